"""Fit the test of naming something visible, and write its weights beside `model.py`.

    python -m components.filtering.visibility.fit [--packages PACKAGES PROMPTS]

In two steps, as many short texts are at hand and few whole alt texts. First on the short texts of packages:
packages.npz, which is made anew where they are given. Then on the alt texts, with the first model's score as
one feature more; both are linear in the same features, so their sum is one model: weights.npz.

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
    without_medium,
    word_features,
    words_in,
)
from components.filtering.visibility.model import WEIGHTS, read_weights
from components.filtering.visibility.sources import Example, alt_texts, examples

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
PACKAGES = "packages.npz"  # the first step's, beside this file
INVERSE_PENALTY, INVERSE_PENALTY_OF_ALT_TEXTS = 3.0, 30.0  # C of the logistic regressions
PACKAGES_SCALE = 0.2  # of the first model's score as a feature
MOST_ITERATIONS = {PACKAGES: 60, WEIGHTS: 300}
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
    labels = [example.visible for example in texts]
    matrix = _matrix([example.text for example in texts])
    model = _regression(INVERSE_PENALTY, MOST_ITERATIONS[PACKAGES])
    model.fit(matrix, labels, sample_weight=_weights(texts))
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def fit_alt_texts(texts: Sequence[tuple[str, bool]]) -> tuple[np.ndarray[Any, Any], float]:
    """The same of both steps together, after the first one."""
    from scipy.sparse import csr_matrix, hstack

    first = read_weights(PACKAGES)
    buckets = np.frombuffer(first.buckets.tobytes(), np.int8) * first.scale
    matrix = _matrix([without_medium(text) for text, _ in texts])
    scores = matrix @ buckets + first.bias
    model = _regression(INVERSE_PENALTY_OF_ALT_TEXTS, MOST_ITERATIONS[WEIGHTS])
    model.fit(hstack([matrix, csr_matrix(PACKAGES_SCALE * scores[:, None])]), [seen for _, seen in texts])
    of_scores = PACKAGES_SCALE * model.coef_[0, -1]
    return model.coef_[0, :-1] + of_scores * buckets, float(model.intercept_[0] + of_scores * first.bias)


def _matrix(texts: Sequence[str]) -> Any:
    """(texts, BUCKETS), sparse."""
    from scipy.sparse import csr_matrix

    columns, ends = array("i"), [0]
    for text in texts:
        columns.extend(features_of(text))
        ends.append(len(columns))
    lengths = np.diff(ends)
    values = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
    return csr_matrix((values, np.asarray(columns), np.array(ends, np.int32)), shape=(len(texts), BUCKETS))


def _regression(inverse_penalty: float, iterations: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=inverse_penalty, max_iter=iterations, solver="lbfgs", random_state=SEED)


def _weights(texts: Sequence[Example]) -> np.ndarray[Any, Any]:
    """Of each text, so that a source has its share and both classes weigh the same."""
    sizes = Counter((example.source, example.visible) for example in texts)
    weights = np.array([SOURCE_WEIGHTS[e.source] / sizes[e.source, e.visible] for e in texts], np.float64)
    visible = np.array([example.visible for example in texts])
    for of_class in (visible, ~visible):
        weights[of_class] *= len(texts) / 2 / weights[of_class].sum()
    return weights


def write(file: str, weights: np.ndarray[Any, Any], bias: float) -> None:
    """Store the weights as whole numbers of one byte beside `model.py`."""
    scale = float(np.abs(weights).max()) / 127
    buckets = np.round(weights / scale).astype(np.int8)
    np.savez_compressed(Path(__file__).with_name(file), buckets=buckets, scale=scale, bias=bias)


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, nargs=2, metavar=("PACKAGES", "PROMPTS"))
    if (folders := parser.parse_args().packages) is not None:
        write(PACKAGES, *fit(examples(*folders)))
    write(WEIGHTS, *fit_alt_texts(alt_texts()))


if __name__ == "__main__":
    main()
