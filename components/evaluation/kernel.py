"""The kernel distance between two sets of images, in the features of a judge."""

import numpy as np

from components.errors import InputError
from components.evaluation.frechet import Array, Doubles, finite_rows


def kernel_distance(a: Array, b: Array) -> float:
    """The squared maximum mean discrepancy of the rows of `a` (N, D) and `b` (M, D), unbiased.

    With the kernel k(x, y) = (x·y / D + 1)³, as KID has it (Bińkowski 2018, Eq. 3 and 4), on rows scaled to
    the length √D: a judge's are unit vectors, whose products over D would leave the kernel linear. Unlike
    the Fréchet distance its expectation does not depend on N and M; between two samples of one distribution
    it is zero on average, so that it can come out below zero.

    Raises InputError for fewer than two rows, unequal D, or values that are not finite.
    """
    a, b = finite_rows(a, "a"), finite_rows(b, "b")
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"the features differ in width: {a.shape[1]} and {b.shape[1]}; use one judge for both"
        )
    a, b = _scaled(a), _scaled(b)
    return float(_mean_of_pairs(a) + _mean_of_pairs(b) - 2 * _kernel(a, b).mean())


def _scaled(rows: Doubles) -> Doubles:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows * np.sqrt(rows.shape[1]) / np.maximum(lengths, np.finfo(np.float64).tiny))


def _kernel(a: Doubles, b: Doubles) -> Doubles:
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)


def _mean_of_pairs(rows: Doubles) -> float:
    """The mean kernel of two different rows: a row with itself would bias the estimate."""
    kernel, count = _kernel(rows, rows), len(rows)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
