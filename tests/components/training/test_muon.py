"""Muon's step: against the polynomial on singular values, and against PyTorch's."""

import math

import pytest
import torch

from components.training.muon import A, B, C, Muon, orthogonalise

SHAPES = [(8, 8), (8, 12), (12, 8), (8, 40), (40, 8), (1, 5)]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_each_singular_value_goes_through_the_polynomial(shape, steps):
    """x -> A x + B x³ + C x⁵, so many times, on the matrix divided by its Frobenius norm."""
    matrices = normal(3, *shape)
    result = orthogonalise(matrices, steps)
    for matrix, orthogonal in zip(matrices.double(), result, strict=True):
        u, values, vt = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
        for _ in range(steps):
            values = A * values + B * values**3 + C * values**5
        torch.testing.assert_close(orthogonal.double(), u @ values.diag() @ vt, atol=1e-5, rtol=0)


def test_a_gradient_of_zeros_stays_one():
    assert torch.equal(orthogonalise(torch.zeros(2, 4, 16), 5), torch.zeros(2, 4, 16))


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_are_those_of_pytorchs_muon(shape):
    """Which computes in bfloat16: its steps differ by as much."""
    mine = [torch.nn.Parameter(normal(*shape, seed=i)) for i in range(3)]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in mine]
    rate = 0.1
    ours, peer = Muon(mine, rate, weight_decay=0.1), torch.optim.Muon(theirs, rate, weight_decay=0.1)
    for step in range(4):
        for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            a.grad, b.grad = normal(*shape, seed=10 * step + i), normal(*shape, seed=10 * step + i)
        ours.step()
        peer.step()
        for a, b in zip(mine, theirs, strict=True):
            difference = (a - b).detach().norm() / (rate * math.sqrt(min(shape)) * (step + 1))
            assert difference < 0.05
    states = [ours.state[a]["momentum_buffer"] for a in mine]
    torch.testing.assert_close(states, [peer.state[b]["momentum_buffer"] for b in theirs])


def test_parameters_without_a_gradient_stay():
    a, b = (torch.nn.Parameter(normal(4, 4, seed=i)) for i in range(2))
    before = b.detach().clone()
    a.grad = normal(4, 4)
    optimizer = Muon([a, b], 0.1, weight_decay=0.5)
    optimizer.step()
    assert torch.equal(b, before) and b not in optimizer.state
