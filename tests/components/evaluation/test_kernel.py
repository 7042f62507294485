"""The kernel distance against its definition, pair by pair, and on samples of known distributions."""

import numpy as np
import pytest

from components.evaluation.kernel import kernel_distance


def unit_rows(rows: int, width: int, seed: int, shift: float = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(rows, width))
    noise[:, 0] += shift
    return noise / np.linalg.norm(noise, axis=1, keepdims=True)


def by_pairs(a: np.ndarray, b: np.ndarray) -> float:
    """Bińkowski 2018, Eq. 4, on unit rows: D times their product over D is the product itself."""
    k_aa = [(1 + x @ y) ** 3 for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    k_bb = [(1 + x @ y) ** 3 for i, x in enumerate(b) for j, y in enumerate(b) if i != j]
    k_ab = [(1 + x @ y) ** 3 for x in a for y in b]
    return float(np.mean(k_aa) + np.mean(k_bb) - 2 * np.mean(k_ab))


def test_it_is_the_mean_over_pairs_of_different_rows():
    a, b = unit_rows(13, 6, 0), unit_rows(9, 6, 1, shift=1.0)
    assert kernel_distance(a, b) == pytest.approx(by_pairs(a, b), rel=1e-12)
    assert kernel_distance(b, a) == pytest.approx(kernel_distance(a, b), rel=1e-12)


def test_two_samples_of_one_distribution_are_at_zero_on_average_at_any_size():
    for rows in (5, 50):
        found = [kernel_distance(unit_rows(rows, 8, s), unit_rows(rows, 8, 1000 + s)) for s in range(200)]
        assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(200)
        assert min(found) < 0


def test_a_shift_of_the_mean_is_seen():
    near = kernel_distance(unit_rows(200, 16, 0), unit_rows(200, 16, 1, shift=0.5))
    far = kernel_distance(unit_rows(200, 16, 0), unit_rows(200, 16, 1, shift=2.0))
    assert 0.001 < near < far


def test_the_third_power_sees_what_mean_and_covariance_do_not():
    """Points on a circle at three directions against six: mean and covariance are the same."""
    angles = np.arange(6) * np.pi / 3
    six = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    three = six[::2]
    assert np.allclose(np.cov(np.tile(three, (100, 1)).T), np.cov(np.tile(six, (50, 1)).T), atol=0.01)
    assert kernel_distance(np.tile(three, (100, 1)), np.tile(six, (50, 1))) > 0.02


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones((1, 3)), np.ones((5, 3)), "two rows"),
        (np.ones((5, 3)), np.ones((5, 4)), "differ in width"),
        (np.full((5, 3), np.nan), np.ones((5, 3)), "not finite"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(a: np.ndarray, b: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        kernel_distance(a, b)
