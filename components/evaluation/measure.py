"""Measures a model on held-out prompts: prompt following, the judge's score and the Fréchet distance."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from components.evaluation.frechet import frechet_distance
from components.evaluation.results import Evaluation
from components.judge.judge import Judge
from components.shards.decode import decode_square
from components.shards.writer import Sample
from components.toyworld.prompts import CATEGORIES, Prompt, make_prompts
from components.toyworld.scorer import follows

Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]


class Draws(Protocol):
    """What is measured; components/generation/generator.py is one."""

    def generate(
        self,
        prompts: Sequence[str],
        *,
        steps: int,
        seed: int,
        guidance: float | None,
        first: int,
        upsample: bool,
    ) -> Pixels:
        """(N, H, W, 3); image i starts from the noise of (seed, first + i), whatever the steps."""


@dataclass(frozen=True)
class EvalPrompt:
    """A held-out prompt; `prompt` knows what must be seen where a scorer knows the corpus's world."""

    text: str
    prompt: Prompt | None = None

    @property
    def category(self) -> str | None:
        return self.prompt.category if self.prompt else None


@dataclass(frozen=True)
class Drawn:
    """An image of every caption, (N, H, W, 3), and the seconds that drawing them took."""

    images: Pixels
    seconds: float


@dataclass(frozen=True)
class Measured:
    """An evaluation with what it was read from, question by question."""

    evaluation: Evaluation
    images: Pixels  # (N, H, W, 3)
    judge_scores: Features  # (N,)
    follows: tuple[bool | None, ...]  # None where no scorer knows the world


def toy_prompts(per_category: int, seed: int) -> list[EvalPrompt]:
    """GenEval's six categories asked of the toy world's held-out combinations."""
    return [EvalPrompt(prompt.text, prompt) for prompt in make_prompts(per_category, seed)]


def caption_prompts(held_out: Iterable[Sample], most: int) -> list[EvalPrompt]:
    """The short captions of held-out records, each text once, at most `most` of them."""
    texts = dict.fromkeys(str(sample.meta["caption_short"]) for sample in held_out)
    return [EvalPrompt(text) for text in list(texts)[:most] if text.strip()]


def reference_features(judge: Judge, held_out: Iterable[Sample], size: int) -> Features:
    """The judge's features of held-out images as training would see them: square, `size` pixels."""
    return judge.image_features([Image.fromarray(decode_square(s.image, size)) for s in held_out])


def draw(
    generator: Draws,
    captions: Sequence[str],
    *,
    steps: int,
    seed: int,
    guidance: float | None,
    batch_size: int,
    on_images: Callable[[int], object],
) -> Drawn:
    """Draw every caption once, in batches of a fixed composition. `on_images` hears of each batch's size."""
    images, seconds = [], 0.0
    for first in range(0, len(captions), batch_size):
        texts = captions[first : first + batch_size]
        started = time.perf_counter()
        images.append(
            generator.generate(texts, steps=steps, seed=seed, guidance=guidance, first=first, upsample=False)
        )
        seconds += time.perf_counter() - started
        on_images(len(texts))
    return Drawn(np.concatenate(images), seconds)


def measure(
    drawn: Drawn,
    questions: Sequence[EvalPrompt],
    *,
    model: str,
    steps: int,
    judge: Judge,
    reference: Features,
) -> Measured:
    """Ask everything of the drawn images. reference: features of held-out images, from the same judge."""
    pictures = [Image.fromarray(image) for image in drawn.images]
    features = judge.image_features(pictures)
    texts = judge.text_features([question.text for question in questions])
    scores = np.einsum("nd,nd->n", features, texts)
    verdicts = tuple(
        follows(image, question.prompt) if question.prompt else None
        for image, question in zip(drawn.images, questions, strict=True)
    )
    evaluation = Evaluation(
        model=model,
        steps=steps,
        frechet=frechet_distance(features, reference),
        judge_score=float(scores.mean(dtype=np.float64)),
        seconds_per_image=drawn.seconds / len(questions),
        images=len(questions),
        prompt_following=_by_category(questions, verdicts),
    )
    return Measured(evaluation, drawn.images, scores, verdicts)


def _by_category(questions: Sequence[EvalPrompt], verdicts: Sequence[bool | None]) -> dict[str, float]:
    """The share of each category's prompts that were followed, in the order of CATEGORIES."""
    found: dict[str, list[bool]] = {}
    for question, verdict in zip(questions, verdicts, strict=True):
        if question.category is not None and verdict is not None:
            found.setdefault(question.category, []).append(verdict)
    return {name: sum(found[name]) / len(found[name]) for name in CATEGORIES if name in found}
