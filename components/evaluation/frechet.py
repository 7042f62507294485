"""The Fréchet distance between two sets of images, in the features of a judge."""

import numpy as np
import numpy.typing as npt

from components.errors import InputError

Array = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]


def frechet_distance(a: Array, b: Array) -> float:
    """The squared Fréchet distance between Gaussians fitted to the rows of `a` (N, D) and `b` (M, D).

    |mu_a - mu_b|² + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^½)   (Dowson & Landau 1982; Heusel 2017, Eq. 6)

    The last trace is taken as a nuclear norm: with C_a = A'A and C_b = B'B for the centred, scaled rows A
    and B, tr((C_a C_b)^½) = ‖A B'‖_*. No covariance is formed and no matrix square root is taken, so nothing
    turns complex or loses digits when a covariance is singular, as it is whenever N <= D.

    Stable is not unbiased: with few images the distance reads too large, by about tr(C)/N for the means and
    more for the covariances as N nears D. Compare only numbers taken with the same N and the same features.

    Raises InputError for fewer than two rows, unequal D, or values that are not finite.
    """
    a, b = finite_rows(a, "a"), finite_rows(b, "b")
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"the features differ in width: {a.shape[1]} and {b.shape[1]}; use one judge for both"
        )
    shift = a.mean(axis=0) - b.mean(axis=0)
    root_a, root_b = _covariance_root(a), _covariance_root(b)
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    distance = shift @ shift + np.square(root_a).sum() + np.square(root_b).sum() - 2 * overlap
    return max(float(distance), 0.0)  # rounding may leave -1e-16 where the two sets are one


def finite_rows(features: Array, name: str) -> Doubles:
    """The features (N, D) in float64. Raises InputError for fewer than two rows or values not finite."""
    doubles = np.asarray(features, dtype=np.float64)
    if doubles.ndim != 2 or len(doubles) < 2:
        raise InputError(f"features {name} have shape {doubles.shape}; a distance needs two rows or more")
    if not np.isfinite(doubles).all():
        raise InputError(
            f"features {name} hold values that are not finite; check the images they were read from"
        )
    return doubles


def _covariance_root(features: Doubles) -> Doubles:
    """R with R'R = the unbiased covariance of the rows, at most D rows long."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    if len(centred) <= centred.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))
