"""The metrics of an evaluation, as one table: a new metric is one entry of METRICS and its test.

metrics.json, the registry, MLflow, the printed tables and the report take their columns from here. Prompt
following is not in the table: the scorer reads it from the pixels, prompt by prompt (see measure.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from components.evaluation.frechet import frechet_distance

Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MetricInputs:
    """What a metric is computed from; row i of the first three belongs to prompt i."""

    images: Pixels  # (N, H, W, 3), generated
    image_features: Features  # (N, D), the judge's unit vectors of them
    text_features: Features  # (N, D), of the prompts
    reference: Features  # (M, D), of held-out images

    @cached_property
    def judge_scores(self) -> Features:
        """The cosine of each image and its prompt, (N,)."""
        scores: Features = np.einsum("nd,nd->n", self.image_features, self.text_features)
        return scores


@dataclass(frozen=True)
class Metric:
    """One number of a model at one number of steps."""

    name: str  # its key in metrics.json, the registry and MLflow
    label: str  # the head of its column
    number_format: str  # how it is shown, such as ".3f"
    compute: Callable[[MetricInputs], float]

    def show(self, value: float | None) -> str:
        """The number for a table; a dash where it was not measured."""
        return "–" if value is None else f"{value:{self.number_format}}"


def _frechet(inputs: MetricInputs) -> float:
    return frechet_distance(inputs.image_features, inputs.reference)


def _judge_score(inputs: MetricInputs) -> float:
    return float(inputs.judge_scores.mean(dtype=np.float64))


METRICS = (
    Metric("judge_score", "Judge score", ".3f", _judge_score),  # mean cosine of image and prompt
    Metric(
        "frechet", "Fréchet", ".4g", _frechet
    ),  # squared distance in the judge's features; lower is closer
)
