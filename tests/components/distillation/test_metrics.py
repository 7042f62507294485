"""Each metric's value by hand."""

import pytest
import torch

from components.distillation.metrics import difference_metric


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l1", [(3 + 4) / 2, 0.0]),
        ("l2", [(9 + 16) / 2, 0.0]),
        ("pseudo_huber", [(25 + 2 * 0.00054**2) ** 0.5 - 0.00054 * 2**0.5, 0.0]),
    ],
)
def test_each_sample_s_distance(name, expected):
    target = torch.tensor([[[[1.0, 1.0]]], [[[2.0, 2.0]]]], dtype=torch.float64)
    estimate = target + torch.tensor([[[[3.0, -4.0]]], [[[0.0, 0.0]]]], dtype=torch.float64)
    distance = difference_metric(name)(estimate, target)
    assert distance.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)
