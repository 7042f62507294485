"""Reflow: couplings of a known flow, their order, and how much straighter a flow is that learns from them."""

from itertools import islice

import pytest
import torch
from torch import nn

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig
from components.diffusion.denoiser import Denoiser, conditioned
from components.diffusion.process import rectified_flow
from components.diffusion.samplers import euler
from components.diffusion.times import even_times
from components.distillation.couplings import Couplings, coupling_noise, straightness
from components.training.config import FlowLossConfig
from components.training.flow_loss import FlowLoss
from tests.gaussian_data import Gaussian
from tests.loss_context import context
from tests.mixture_data import Mixture
from tests.one_text import NO_TEXT

FLOW = rectified_flow()
CPU = torch.device("cpu")


def encoder(captions):
    return TextTokens(
        torch.ones(len(captions), 1, dtype=torch.long), torch.ones(len(captions), 1, dtype=torch.bool)
    )


def of(x_0, count=7):
    return Couplings(x_0, [f"caption {row}" for row in range(count)], seed=3)


def test_paths_to_a_single_image_are_straight():
    denoiser = Gaussian(0.5, 0.0).denoiser(FLOW, "x_0")
    start = torch.randn(5, 1, 2, 2, dtype=torch.float64)
    assert straightness(conditioned(denoiser, NO_TEXT), start, 9) == pytest.approx(0, abs=1e-20)


def test_straightness_of_a_gaussian_is_that_of_its_known_paths():
    """x_t = sqrt((1 - t)² s² + t²) z for data N(0, s²), so v = (t - (1 - t) s²) / sqrt(...) z and the chord
    is (1 - s) z.
    """
    s, steps = 0.3, 4000
    denoiser = Gaussian(0.0, s).denoiser(FLOW, "velocity")
    start = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    t = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    velocity = (t - (1 - t) * s**2) / ((1 - t) ** 2 * s**2 + t**2).sqrt()
    expected = torch.trapezoid((1 - s - velocity) ** 2, t).item()
    found = straightness(conditioned(denoiser, NO_TEXT), start, steps)
    assert found.item() == pytest.approx(expected, rel=2e-3)


def test_every_pair_comes_once_in_an_epoch_whatever_the_ranks_and_from_wherever_they_go_on():
    pairs = of(torch.arange(7.0).view(7, 1, 1, 1))
    settings = {"batch_size": 4, "device": CPU}
    alone = list(islice(pairs.batches(encoder, 0, rank=0, world_size=1, **settings), 7))
    seen = [
        (key, epoch) for batch in alone for key, epoch in zip(batch["keys"], batch["epochs"], strict=True)
    ]
    assert sorted(seen) == sorted((str(row), epoch) for row in range(7) for epoch in range(4))
    orders = [[key for key, at in seen if at == epoch] for epoch in range(4)]
    assert orders[0] != orders[1]
    for batch in alone:
        rows = [int(key) for key in batch["keys"]]
        assert batch["x_0"].flatten().tolist() == rows
        assert torch.equal(batch["eps"], coupling_noise(3, rows, (1, 1, 1)))
    for start in (0, 8, 20):
        shares = [pairs.batches(encoder, start, rank=rank, world_size=2, **settings) for rank in (0, 1)]
        for whole, *parts in zip(alone[start // 4 :], *shares, strict=False):
            assert sorted(key for part in parts for key in part["keys"]) == sorted(whole["keys"])


class Velocity(nn.Module):
    """A small network for images of one pixel."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)
        )

    def forward(self, x_t, t, text):
        return self.layers(torch.stack([x_t.flatten(), t], 1)).view_as(x_t)


def test_a_flow_that_learns_its_teacher_s_couplings_is_straighter_and_ends_where_the_teacher_does():
    """In one dimension the flow map is monotone, and straight lines to its ends do not cross: the paths of a
    perfect reflow are straight. The teacher's, to a mixture of two, are not.
    """
    teacher = conditioned(Mixture().denoiser(FLOW, "velocity"), NO_TEXT)
    count = 2048
    start = coupling_noise(3, range(count), (1, 1, 1))
    pairs = of(euler(teacher, start.double(), even_times(100).double()).float(), count)
    config, network = DiffusionConfig(prediction="velocity"), Velocity()
    loss = FlowLoss(FlowLossConfig(times="uniform", caption_dropout=0), config, encoder([""]))
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for batch in islice(pairs.batches(encoder, 0, batch_size=256, rank=0, world_size=1, device=CPU), 300):
        value = loss(network, batch, context(batch)).loss
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    student = conditioned(Denoiser(network, FLOW, "velocity"), NO_TEXT)
    fresh = torch.randn(1000, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = straightness(teacher, fresh.double(), 50).mean().item()
        after = straightness(student, fresh, 50).mean().item()
        ends = euler(teacher, fresh.double(), even_times(100).double()).float()
        errors = {
            name: (euler(one, fresh.to(dtype), even_times(1).to(dtype)).float() - ends).abs().mean().item()
            for name, one, dtype in (("teacher", teacher, torch.float64), ("student", student, torch.float32))
        }
    assert after < before / 5, (before, after)
    assert errors["student"] < errors["teacher"] / 3, errors  # in one step
