"""The test of naming something visible: how likely a text says what can be seen in an image.

A linear model over hashed words and character n-grams (as fastText's, Joulin 2016) of many languages; CARD.md
beside this file says what it was fitted on and how well it does.
"""

from array import array
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from math import sqrt
from typing import NamedTuple

from components.filtering.visibility.features import (
    before_a_word,
    letters_of,
    pair_bucket,
    shape_features,
    without_medium,
    word_features,
    words_in,
)

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
    return read_weights(WEIGHTS)


def read_weights(file: str) -> Weights:
    """Those of a file beside this one."""
    import numpy as np

    with files(__package__).joinpath(file).open("rb") as stream, np.load(stream) as stored:
        return Weights(
            buckets=array("b", stored["buckets"].tobytes()),
            scale=float(stored["scale"]),
            bias=float(stored["bias"]),
        )


def visibility(text: str) -> float:
    """The log-odds that `text` names something visible; 0 where it says nothing that is known."""
    text = without_medium(text)
    words = words_in(text)
    if not words:
        return 0.0
    model = weights()
    buckets, total, count, before = model.buckets, 0, 0, None
    for word in words:
        part = _word_part(word)
        total += part.total
        count += part.features
        if before is not None:
            total += buckets[pair_bucket(before, part.letters)]
            count += 1
        before = part.before
    for bucket in shape_features(words, text):
        total += buckets[bucket]
        count += 1
    return model.bias + model.scale * total / sqrt(count)


class _WordPart(NamedTuple):
    """total: the sum of a word's weights, of so many features. letters, before: see `pair_bucket`."""

    total: int
    features: int
    letters: bytes
    before: int


@lru_cache(maxsize=REMEMBERED_WORDS)
def _word_part(word: str) -> _WordPart:
    buckets = weights().buckets
    features = word_features(word)
    total = sum(buckets[bucket] for bucket in features)
    return _WordPart(total, len(features), letters_of(word), before_a_word(word))
