"""Fit the test of naming something visible, and write its weights beside `model.py`.

    python -m components.filtering.visibility.fit PACKAGES PROMPTS

PACKAGES: the folder of unpacked packages that CARD.md lists. PROMPTS: the folder of parti.tsv, geneval.jsonl.
"""

import argparse
from array import array
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from components.filtering.visibility.features import (
    BUCKETS,
    pair_feature,
    shape_features,
    word_features,
    words_in,
)
from components.filtering.visibility.model import WEIGHTS
from components.filtering.visibility.sources import Example, examples

# What a source's texts of one class weigh together, beside the other sources; both classes weigh the same.
SOURCE_WEIGHTS = {
    **{
        "written": 0.8,
        "emoji": 1.0,
        "prompts": 0.5,
        "nouns": 0.7,
        "glosses": 0.15,
        "scenes": 0.5,
        "titles": 0.3,
    },
    **{
        "emoji sequences": 0.15,
        "English emoji": 0.5,
        "emoji scenes": 0.6,
        "interface": 1.0,
        "businesses and people": 0.6,
        "slots": 0.2,
    },
}
INVERSE_PENALTY = 3.0  # C of the logistic regression
MOST_ITERATIONS = 60
SEED = 0


def features_of(text: str) -> list[int]:
    """Every bucket of a text; `model.visibility` sums the weights of the same."""
    words = words_in(text)
    found = [bucket for word in words for bucket in _word_features(word)]
    found += [pair_feature(*pair) for pair in pairwise(words)]
    return found + shape_features(words, text) if words else []


@cache
def _word_features(word: str) -> list[int]:
    return word_features(word)


def fit(texts: Sequence[Example]) -> tuple[np.ndarray[Any, Any], float]:
    """The weight of each bucket, (BUCKETS,) float64, and the bias, of a logistic regression (L2)."""
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    columns, ends = array("i"), [0]
    for example in texts:
        columns.extend(features_of(example.text))
        ends.append(len(columns))
    lengths = np.diff(ends)
    values = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
    matrix = csr_matrix((values, np.asarray(columns), np.array(ends, np.int32)), shape=(len(texts), BUCKETS))
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=MOST_ITERATIONS, solver="lbfgs", random_state=SEED)
    model.fit(matrix, [example.visible for example in texts], sample_weight=_weights(texts))
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def _weights(texts: Sequence[Example]) -> np.ndarray[Any, Any]:
    """Of each text, so that a source has its share and both classes weigh the same."""
    sizes = Counter((example.source, example.visible) for example in texts)
    weights = np.array([SOURCE_WEIGHTS[e.source] / sizes[e.source, e.visible] for e in texts], np.float64)
    visible = np.array([example.visible for example in texts])
    for of_class in (visible, ~visible):
        weights[of_class] *= len(texts) / 2 / weights[of_class].sum()
    return weights


def write(weights: np.ndarray[Any, Any], bias: float) -> None:
    """Store the weights as whole numbers of one byte beside `model.py`."""
    scale = float(np.abs(weights).max()) / 127
    buckets = np.round(weights / scale).astype(np.int8)
    np.savez_compressed(Path(__file__).with_name(WEIGHTS), buckets=buckets, scale=scale, bias=bias)


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path)
    parser.add_argument("prompts", type=Path)
    arguments = parser.parse_args()
    texts = examples(arguments.packages, arguments.prompts)
    weights, bias = fit(texts)
    write(weights, bias)


if __name__ == "__main__":
    main()
