"""Measures a model on held-out prompts: generate an image of each prompt, then compute every metric.

The metrics themselves are the table in metrics.py.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from components.evaluation.metrics import METRICS, Features, MetricInputs, Pixels
from components.evaluation.results import Evaluation
from components.judge.judge import Judge
from components.shards.decode import decode_square
from components.shards.writer import Sample
from components.toyworld.prompts import ToyPrompt, make_prompts
from components.toyworld.scorer import accuracy_by_category, is_correct


class ImageGenerator(Protocol):
    """A model that is measured; components/generation/generator.py has one."""

    def generate(
        self,
        prompts: Sequence[str],
        *,
        steps: int,
        seed: int,
        guidance: float | None,
        first: int,
    ) -> Pixels:
        """(N, H, W, 3); image i starts from the noise of (seed, first + i), whatever the steps."""


@dataclass(frozen=True)
class EvalPrompt:
    """A held-out prompt; `toy` says what its image must show, where the toy world's scorer can tell."""

    text: str
    toy: ToyPrompt | None = None

    @property
    def category(self) -> str | None:
        return self.toy.category if self.toy else None


@dataclass(frozen=True)
class GeneratedImages:
    """An image of every caption, (N, H, W, 3), and the seconds that generating them took."""

    images: Pixels
    seconds: float


@dataclass(frozen=True)
class MeasuredModel:
    """An evaluation with what it was computed from, prompt by prompt."""

    evaluation: Evaluation
    images: Pixels  # (N, H, W, 3)
    judge_scores: Features  # (N,)
    correct: tuple[bool | None, ...]  # None where no scorer covers the domain


def toy_prompts(per_category: int, seed: int) -> list[EvalPrompt]:
    """GenEval's six categories on the toy world's held-out combinations."""
    return [EvalPrompt(prompt.text, prompt) for prompt in make_prompts(per_category, seed)]


def caption_prompts(held_out: Iterable[Sample], most: int) -> list[EvalPrompt]:
    """The short captions of held-out records, each text once, at most `most` of them."""
    texts = dict.fromkeys(str(sample.meta["caption_short"]) for sample in held_out)
    return [EvalPrompt(text) for text in list(texts)[:most] if text.strip()]


def reference_features(judge: Judge, held_out: Iterable[Sample], size: int) -> Features:
    """The judge's features of held-out images as training would see them: square, `size` pixels."""
    return judge.image_features([Image.fromarray(decode_square(s.image, size)) for s in held_out])


def generate_images(
    generator: ImageGenerator,
    captions: Sequence[str],
    *,
    steps: int,
    seed: int,
    guidance: float | None,
    batch_size: int,
    on_images: Callable[[int], object],
) -> GeneratedImages:
    """Generate an image of every caption, in batches of a fixed composition.

    on_images is called after each batch with the number of its images.
    """
    images, seconds = [], 0.0
    for first in range(0, len(captions), batch_size):
        texts = captions[first : first + batch_size]
        started = time.perf_counter()
        images.append(generator.generate(texts, steps=steps, seed=seed, guidance=guidance, first=first))
        seconds += time.perf_counter() - started
        on_images(len(texts))
    return GeneratedImages(np.concatenate(images), seconds)


def measure(
    generated: GeneratedImages,
    prompts: Sequence[EvalPrompt],
    *,
    model: str,
    steps: int,
    judge: Judge,
    reference: Features,
) -> MeasuredModel:
    """Compute every metric of the generated images.

    reference: features of held-out images, by the same judge. model, steps: what generated the images.
    """
    inputs = MetricInputs(
        images=generated.images,
        image_features=judge.image_features([Image.fromarray(image) for image in generated.images]),
        text_features=judge.text_features([prompt.text for prompt in prompts]),
        reference=reference,
    )
    correct = tuple(
        is_correct(image, prompt.toy) if prompt.toy else None
        for image, prompt in zip(generated.images, prompts, strict=True)
    )
    evaluation = Evaluation(
        model=model,
        steps=steps,
        images=len(prompts),
        metrics={metric.name: metric.compute(inputs) for metric in METRICS},
        prompt_following=accuracy_by_category(
            (prompt.category, verdict)
            for prompt, verdict in zip(prompts, correct, strict=True)
            if prompt.category is not None and verdict is not None
        ),
        seconds_per_image=generated.seconds / len(prompts),
    )
    return MeasuredModel(evaluation, generated.images, inputs.judge_scores, correct)
