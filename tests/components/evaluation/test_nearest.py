"""The nearest training image: a copy is found, an opposite is far, whatever the number of rows."""

import numpy as np
import pytest

from components.evaluation.nearest import ROWS, nearest_distances


def unit_rows(rows: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(rows, 12)).astype(np.float32)
    return noise / np.linalg.norm(noise, axis=1, keepdims=True)


def test_a_memorised_image_is_at_zero_and_a_new_one_is_not():
    training = unit_rows(50, 0)
    memorised = nearest_distances(training[[7, 3]], training)
    assert memorised == pytest.approx([0, 0], abs=1e-6)
    assert (nearest_distances(unit_rows(20, 1), training) > 0.01).all()


def test_the_distance_is_one_minus_the_largest_cosine_for_every_row():
    images, training = unit_rows(2 * ROWS + 3, 2), unit_rows(40, 3)
    expected = [min(1 - float(image @ other) for other in training) for image in images]
    assert nearest_distances(images, training) == pytest.approx(expected, abs=1e-5)
    east, west = np.array([[1.0, 0.0]], np.float32), np.array([[-1.0, 0.0]], np.float32)
    assert nearest_distances(east, west) == pytest.approx([2.0])


def test_no_training_image_is_an_error_and_no_image_is_none():
    with pytest.raises(ValueError, match="no training image"):
        nearest_distances(unit_rows(2, 4), np.zeros((0, 12), np.float32))
    assert nearest_distances(np.zeros((0, 12), np.float32), unit_rows(2, 4)).shape == (0,)
