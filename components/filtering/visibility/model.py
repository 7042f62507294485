"""The test of naming something visible: how likely a short text says what can be seen in an image.

A linear model over hashed words and character n-grams (as fastText's, Joulin 2016) of many languages; CARD.md
beside this file says what it was fitted on and how well it does.
"""

from array import array
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from math import sqrt

from components.filtering.visibility.features import pair_feature, shape_features, word_features, words_in

WEIGHTS = "weights.npz"  # beside this file
REMEMBERED_WORDS = 100_000  # words whose part is remembered in a process


@dataclass(frozen=True)
class Weights:
    """The fitted model. buckets: a whole number each, times `scale` the weight of that feature."""

    buckets: "array[int]"
    scale: float
    bias: float


@cache
def weights() -> Weights:
    """The weights, read once per process; some 10 ms and half a megabyte."""
    import numpy as np

    with files(__package__).joinpath(WEIGHTS).open("rb") as stream, np.load(stream) as stored:
        return Weights(
            buckets=array("b", stored["buckets"].tobytes()),
            scale=float(stored["scale"]),
            bias=float(stored["bias"]),
        )


def visibility(text: str) -> float:
    """The log-odds that `text` names something visible; 0 where it says nothing that is known."""
    words = words_in(text)
    if not words:
        return 0.0
    model = weights()
    total, count = 0, 0
    previous = None
    for word in words:
        part, features = _word_part(word)
        total += part
        count += features
        if previous is not None:
            total += model.buckets[pair_feature(previous, word)]
            count += 1
        previous = word
    shape = shape_features(words, text)
    total += sum(model.buckets[bucket] for bucket in shape)
    count += len(shape)
    return model.bias + model.scale * total / sqrt(count)


@lru_cache(maxsize=REMEMBERED_WORDS)
def _word_part(word: str) -> tuple[int, int]:
    """The sum of a word's weights, and how many features it has."""
    buckets = weights().buckets
    features = word_features(word)
    return sum(buckets[bucket] for bucket in features), len(features)
