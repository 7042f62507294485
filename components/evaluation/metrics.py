"""The metrics of an evaluation, as one table: a new metric is one entry of METRICS and its test.

metrics.json, the registry, MLflow, the printed tables and the report take their columns from here. Prompt
following is not in the table: the scorer reads it from the pixels, prompt by prompt (see measure.py).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.evaluation.frechet import frechet_distance
from components.evaluation.kernel import kernel_distance
from components.evaluation.nearest import nearest_distances
from components.evaluation.results import PROMPTS_DIGEST, REFERENCE_DIGEST

Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MetricInputs:
    """What a metric is computed from: the judge's unit vectors, all of one width D."""

    prompt_images: Features  # (N, D), images of the prompts by the default command
    judge_scores: Features  # (N,), the cosine of each prompt and its image
    caption_images: Features  # (M, D), images of the held-out images' own captions
    held_out: Features  # (M, D), those held-out images
    training: Features  # (T, D), training images
    coverage: float | None = None  # see coverage.py; None where no scorer covers the domain


@dataclass(frozen=True)
class Metric:
    """One number of a model at one number of steps."""

    name: str  # its key in metrics.json, the registry and MLflow
    label: str  # the head of its column
    number_format: str  # how it is shown, such as ".3f"
    protocol: str  # the digest that two numbers must share to compare; see results.comparable
    compute: Callable[[MetricInputs], float | None]  # None: not measured

    def show(self, value: float | None) -> str:
        """The number for a table; a dash where it was not measured."""
        return "–" if value is None else f"{value:{self.number_format}}"


def _coverage(inputs: MetricInputs) -> float | None:
    return inputs.coverage


def _frechet(inputs: MetricInputs) -> float:
    return frechet_distance(inputs.caption_images, inputs.held_out)


def _kernel(inputs: MetricInputs) -> float:
    return kernel_distance(inputs.caption_images, inputs.held_out)


def _nearest(inputs: MetricInputs) -> float:
    return float(np.median(nearest_distances(inputs.prompt_images, inputs.training)))


def _judge_score(inputs: MetricInputs) -> float:
    return float(inputs.judge_scores.mean(dtype=np.float64))


METRICS = (
    # Total variation distance of what prompts leave open; lower is closer, down to its floor.
    Metric("coverage", "Coverage", ".3f", PROMPTS_DIGEST, _coverage),
    # Squared distances in the judge's features, on matched captions; lower is closer.
    Metric("frechet", "Fréchet", ".4g", REFERENCE_DIGEST, _frechet),
    Metric("kernel", "Kernel", ".4g", REFERENCE_DIGEST, _kernel),
    # Median cosine distance to the nearest training image; far below its floor: memorised.
    Metric("nearest", "Nearest", ".3f", REFERENCE_DIGEST, _nearest),
    # Mean cosine of image and prompt.
    Metric("judge_score", "Judge score", ".3f", REFERENCE_DIGEST, _judge_score),
)
