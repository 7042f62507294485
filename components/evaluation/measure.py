"""Measures a model on held-out prompts: generates every image that is needed, then computes every metric.

    the prompts by the default command and as they are     exact following, GenEval's rules, judge score
    the held-out images' own captions                       Fréchet and kernel distance
    a few short prompts many times                          coverage

The metrics themselves are the table in metrics.py.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from components.evaluation.bootstrap import Interval, bootstrap
from components.evaluation.coverage import CoveragePrompt, coverage_distance
from components.evaluation.metrics import METRICS, Features, MetricInputs, Pixels
from components.evaluation.prompts import EvalPrompt
from components.evaluation.reference import Reference, features_of_images
from components.evaluation.results import SECONDS, UPSAMPLED_SECONDS, Evaluation
from components.judge.judge import Judge
from components.randomness import derive_seed
from components.toyworld.scorer import is_exact, satisfies_geneval

DEFAULT, AS_IS = "default", "as_is"  # modes: from the upsampled prompt, from the prompt as it is
OnImages = Callable[[int], object]


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
class UpsampledPrompts:
    """What the default command generates from: a caption of each prompt, and how it came about."""

    captions: tuple[str, ...]
    how: tuple[str, ...]
    seconds: float  # that upsampling them took


@dataclass(frozen=True)
class EvaluationData:
    """What every model is measured with. coverage: empty where no scorer covers the domain."""

    prompts: Sequence[EvalPrompt]
    reference: Reference
    coverage: Sequence[CoveragePrompt]
    coverage_seeds: int  # images of each prompt of coverage
    judge: Judge
    seed: int
    batch_size: int  # images generated at once: their last bits depend on it

    @property
    def is_scored(self) -> bool:
        """Whether the scorer can tell what each image shows."""
        return all(prompt.toy is not None for prompt in self.prompts)

    @property
    def images(self) -> int:
        """How many images of one model at one number of steps are generated."""
        of_prompts = (2 if self.is_scored else 1) * len(self.prompts)
        return of_prompts + len(self.reference.captions) + len(self.coverage) * self.coverage_seeds


@dataclass(frozen=True)
class TimedImages:
    """An image of every text, (N, H, W, 3), and the seconds that generating them took."""

    images: Pixels
    seconds: float


@dataclass(frozen=True)
class PromptResult:
    """One image of a prompt and the verdicts on it, each None where no scorer can tell."""

    index: int  # of the prompt
    mode: str  # DEFAULT or AS_IS
    caption: str  # what it was generated from
    how: str  # how that came about
    correct: bool | None  # exactly what the prompt says, and nothing else
    geneval: bool | None  # by GenEval's looser rules
    judge_score: float
    image: Pixels  # (H, W, 3)


@dataclass(frozen=True)
class MeasuredModel:
    """An evaluation with what it was computed from, prompt by prompt."""

    evaluation: Evaluation
    results: tuple[PromptResult, ...]


@dataclass(frozen=True)
class ModelRun:
    """One model at one number of steps. guidance: its scale, None for the model's own."""

    model: str
    generator: ImageGenerator
    steps: int
    guidance: float | None


def measure(
    run: ModelRun, data: EvaluationData, upsampled: UpsampledPrompts, on_images: OnImages
) -> MeasuredModel:
    """Generate what is needed with one model and compute every metric of it.

    upsampled: the prompts by the model's upsampler. on_images is called with numbers of images that are done.
    """
    texts = [prompt.text for prompt in data.prompts]
    text_features = data.judge.text_features(texts)
    default = _generate(run, data, upsampled.captions, data.seed, on_images)
    default_features = features_of_images(data.judge, default.images)
    scores = _cosines(default_features, text_features)
    results = _judged(data, DEFAULT, default.images, scores, upsampled)
    timed = default
    if data.is_scored:
        timed = _generate(run, data, texts, data.seed, on_images)
        as_is_scores = _cosines(features_of_images(data.judge, timed.images), text_features)
        results += _judged(data, AS_IS, timed.images, as_is_scores, as_they_are(texts))
    captions = _generate(run, data, data.reference.captions, derive_seed(data.seed, "captions"), on_images)
    inputs = MetricInputs(
        prompt_images=default_features,
        judge_scores=scores,
        caption_images=features_of_images(data.judge, captions.images),
        held_out=data.reference.held_out,
        training=data.reference.training,
        coverage=_coverage(run, data, on_images) if data.coverage else None,
    )
    evaluation = _evaluation(run, data, inputs, results)
    seconds = timed.seconds / len(texts)
    timings = {SECONDS: seconds, UPSAMPLED_SECONDS: seconds + upsampled.seconds / len(texts)}
    return MeasuredModel(evaluation.with_timings(timings), tuple(results))


def as_they_are(prompts: Sequence[str]) -> UpsampledPrompts:
    """The prompts in place of captions of them."""
    return UpsampledPrompts(tuple(prompts), ("as is",) * len(prompts), 0.0)


def _generate(
    run: ModelRun, data: EvaluationData, texts: Sequence[str], seed: int, on_images: OnImages
) -> TimedImages:
    """An image of every text, in batches of a fixed composition."""
    images, seconds = [], 0.0
    for first in range(0, len(texts), data.batch_size):
        batch = texts[first : first + data.batch_size]
        started = time.perf_counter()
        images.append(
            run.generator.generate(batch, steps=run.steps, seed=seed, guidance=run.guidance, first=first)
        )
        seconds += time.perf_counter() - started
        on_images(len(batch))
    return TimedImages(np.concatenate(images), seconds)


def _judged(
    data: EvaluationData, mode: str, images: Pixels, judge_scores: Features, upsampled: UpsampledPrompts
) -> list[PromptResult]:
    """The verdicts on one image of each prompt."""
    results = []
    for index, (prompt, image) in enumerate(zip(data.prompts, images, strict=True)):
        toy = prompt.toy
        results.append(
            PromptResult(
                index=index,
                mode=mode,
                caption=upsampled.captions[index],
                how=upsampled.how[index],
                correct=is_exact(image, toy.statements) if toy else None,
                geneval=satisfies_geneval(image, toy) if toy and toy.category else None,
                judge_score=float(judge_scores[index]),
                image=image,
            )
        )
    return results


def _coverage(run: ModelRun, data: EvaluationData, on_images: OnImages) -> float:
    """The coverage distance of images of short prompts as they are, each from many seeds."""
    texts = [one.prompt.text for one in data.coverage for _ in range(data.coverage_seeds)]
    generated = _generate(run, data, texts, derive_seed(data.seed, "coverage"), on_images)
    return coverage_distance(generated.images, data.coverage)


def _evaluation(
    run: ModelRun, data: EvaluationData, inputs: MetricInputs, results: Sequence[PromptResult]
) -> Evaluation:
    metrics = {metric.name: metric.compute(inputs) for metric in METRICS}
    exact = {mode: _verdicts(_exact, data, results, mode) for mode in (DEFAULT, AS_IS)}
    return Evaluation(
        model=run.model,
        steps=run.steps,
        images=data.images,
        metrics={name: value for name, value in metrics.items() if value is not None},
        prompt_following=_shares(exact[DEFAULT]),
        prompt_following_as_is=_shares(exact[AS_IS]),
        geneval=_shares(_verdicts(_by_geneval, data, results, DEFAULT)),
        geneval_as_is=_shares(_verdicts(_by_geneval, data, results, AS_IS)),
        intervals={
            name: _interval(exact[mode], data.seed)
            for name, mode in (("prompt_following", DEFAULT), ("prompt_following_as_is", AS_IS))
            if exact[mode]
        },
    )


Verdict = tuple[str, bool]  # the form or category of a prompt, and whether its image is correct


def _exact(data: EvaluationData, result: PromptResult) -> tuple[str | None, bool | None]:
    """The form of a result's prompt, and exact following where it is scored."""
    return data.prompts[result.index].form, result.correct


def _by_geneval(data: EvaluationData, result: PromptResult) -> tuple[str | None, bool | None]:
    """GenEval's category of a result's prompt, where it has one, and the verdict by GenEval's rules."""
    return data.prompts[result.index].category, result.geneval


def _verdicts(
    verdict_of: Callable[[EvaluationData, PromptResult], tuple[str | None, bool | None]],
    data: EvaluationData,
    results: Sequence[PromptResult],
    mode: str,
) -> list[Verdict]:
    """What there is of the verdicts on one mode's results."""
    found = (verdict_of(data, result) for result in results if result.mode == mode)
    return [(name, correct) for name, correct in found if name is not None and correct is not None]


def _shares(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """The share of correct ones of each form or category, in the order in which they come."""
    by_name: dict[str, list[bool]] = {}
    for name, correct in verdicts:
        by_name.setdefault(name, []).append(correct)
    return {name: sum(of_name) / len(of_name) for name, of_name in by_name.items()}


def _interval(verdicts: Sequence[Verdict], seed: int) -> Interval:
    return bootstrap([correct for _, correct in verdicts], [name for name, _ in verdicts], seed)


def _cosines(a: Features, b: Features) -> Features:
    """The cosine of each pair of rows of unit vectors, (N,)."""
    scores: Features = np.einsum("nd,nd->n", a, b)
    return scores
