"""The Fréchet distance against closed forms."""

import numpy as np
import pytest

from components.evaluation.frechet import frechet_distance


def exactly(mean: np.ndarray, root: np.ndarray, rows: int, seed: int = 0) -> np.ndarray:
    """Rows whose sample mean is `mean` and whose unbiased sample covariance is root'root, to rounding."""
    noise = np.random.default_rng(seed).normal(size=(rows, len(mean)))
    noise -= noise.mean(axis=0)
    white = np.linalg.qr(noise)[0] * np.sqrt(rows - 1)
    return white @ root + mean


def test_a_set_is_at_distance_zero_from_itself():
    for rows in (3, 64, 65, 500):  # fewer than D, at D, above
        rows_of_a = np.random.default_rng(rows).normal(size=(rows, 64))
        assert frechet_distance(rows_of_a, rows_of_a) == pytest.approx(0, abs=1e-10)


def test_a_shift_of_the_mean_is_its_squared_length():
    a = np.random.default_rng(0).normal(size=(200, 8)) @ np.random.default_rng(1).normal(size=(8, 8))
    shift = np.arange(8) / 4
    assert frechet_distance(a, a + shift) == pytest.approx(np.sum(shift**2), rel=1e-9)


def test_scaling_a_covariance_costs_the_trace_times_the_squared_difference_of_scales():
    root = np.random.default_rng(2).normal(size=(16, 16))
    mean = np.zeros(16)
    a, b = exactly(mean, root, 400), exactly(mean, 3 * root, 300, seed=1)
    assert frechet_distance(a, b) == pytest.approx((3 - 1) ** 2 * np.trace(root.T @ root), rel=1e-9)


def test_commuting_covariances_cost_the_squared_differences_of_their_deviations():
    basis = np.linalg.qr(np.random.default_rng(3).normal(size=(10, 10)))[0]
    of_a, of_b = np.linspace(0, 2, 10), np.linspace(1.5, 0.5, 10)  # one deviation of a is zero
    a = exactly(np.ones(10), np.diag(of_a) @ basis, 200)
    b = exactly(np.zeros(10), np.diag(of_b) @ basis, 300, seed=1)
    assert frechet_distance(a, b) == pytest.approx(10 + np.sum((of_a - of_b) ** 2), rel=1e-9)


def test_two_by_two_covariances_that_do_not_commute_agree_with_the_formula_of_their_determinants():
    """tr((AB)^½) = sqrt(tr(AB) + 2 sqrt(det(A) det(B))) for 2 x 2."""
    root_a, root_b = np.array([[1.0, 0.8], [0.0, 0.3]]), np.array([[0.5, -0.4], [0.0, 1.2]])
    cov_a, cov_b = root_a.T @ root_a, root_b.T @ root_b
    assert not np.allclose(cov_a @ cov_b, cov_b @ cov_a)
    middle = np.sqrt(np.trace(cov_a @ cov_b) + 2 * np.sqrt(np.linalg.det(cov_a) * np.linalg.det(cov_b)))
    expected = np.trace(cov_a) + np.trace(cov_b) - 2 * middle
    found = frechet_distance(exactly(np.zeros(2), root_a, 50), exactly(np.zeros(2), root_b, 70, seed=1))
    assert found == pytest.approx(expected, rel=1e-9)


def test_order_and_direction_do_not_matter():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(130, 32)), rng.normal(size=(90, 32)) * 1.3 + 0.2
    distance = frechet_distance(a, b)
    assert frechet_distance(a[rng.permutation(130)], b[::-1]) == pytest.approx(distance, rel=1e-10)
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-10)


@pytest.mark.parametrize("rows", [8, 63, 64, 65, 66, 1000])
def test_few_images_and_degenerate_features_give_a_finite_distance_that_is_not_negative(rows: int):
    rng = np.random.default_rng(5)
    a = rng.normal(size=(rows, 64)).astype(np.float32)
    a[:, 40:] = a[:, :24]  # rank 40: covariances without an inverse
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = a + rng.normal(size=a.shape).astype(np.float32) * 1e-6
    assert 0 <= frechet_distance(a, b) < 1e-5
    assert frechet_distance(a, a + 1) == pytest.approx(64, rel=1e-5)


def test_the_width_or_path_of_the_computation_does_not_show():
    """Zero columns change N <= D into N > D and nothing else."""
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(60, 40)), rng.normal(size=(50, 40)) + 0.1
    padded = [np.pad(x, ((0, 0), (0, 40))) for x in (a, b)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(a, b), rel=1e-10)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "two rows"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "differ in width"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "not finite"),
        (np.zeros(5), np.zeros((5, 1)), "two rows"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(a: np.ndarray, b: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, b)
