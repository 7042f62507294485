"""Which weights go to Muon, and the learning rate's shape."""

from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError

from components.diffusion.dit import DiT, DiTConfig
from components.training.muon import Muon
from components.training.optimizers import (
    OptimizerConfig,
    build_optimizers,
    learning_rate_factor,
    set_learning_rate,
)

HIDDEN = ("qkv.weight", "attention_out.weight", "mlp_in.weight", "mlp_out.weight")


def network() -> DiT:
    return DiT(DiTConfig(image_size=8, patch=4, width=16, depth=2, heads=2, vocabulary=20))


def held(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> set[str]:
    mine = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in mine}


def test_muon_has_the_matrices_of_the_blocks_and_adamw_all_else():
    model = network()
    muon, adamw = build_optimizers(model, OptimizerConfig(learning_rate=0.1, muon_learning_rate=0.2))
    assert isinstance(muon, Muon) and isinstance(adamw, torch.optim.AdamW)
    matrices = {name for name, p in model.named_parameters() if p.ndim == 2 and name.endswith("weight")}
    inside = {name for name in matrices if {"blocks", "layers"} & set(name.split("."))}
    assert held(muon, model) == inside >= {f"blocks.{block}.{name}" for block in (0, 1) for name in HIDDEN}
    assert {"image_in.weight", "out.weight", "modulation.weight"} <= held(adamw, model)
    assert held(muon, model) | held(adamw, model) == {name for name, _ in model.named_parameters()}
    assert not held(muon, model) & held(adamw, model)
    assert (muon.param_groups[0]["lr"], adamw.param_groups[0]["lr"]) == (0.2, 0.1)


def test_without_a_rate_muon_has_nothing():
    model = network()
    (adamw,) = build_optimizers(model, OptimizerConfig(muon_learning_rate=0))
    assert held(adamw, model) == {name for name, _ in model.named_parameters()}


def test_frozen_weights_stay_as_they_are():
    model = network()
    model.text_in.requires_grad_(False)
    model.blocks[0].requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizers = build_optimizers(model, OptimizerConfig(weight_decay=0.5))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (not parameter.requires_grad), name


def test_a_muon_step_is_orthogonal_and_of_the_set_size():
    """Newton-Schulz brings every singular value of the step near 1 (Jordan 2024)."""
    model = network()
    muon, _ = build_optimizers(model, OptimizerConfig(muon_learning_rate=0.01))
    weight = model.blocks[0].attention_out.weight
    before = weight.detach().clone()
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    set_learning_rate([muon], 0.5)
    muon.step()
    values = torch.linalg.svdvals((before - weight.detach()) / 0.005)
    assert values.min() > 0.5 and values.max() < 1.5


def test_the_learning_rate_warms_up_holds_and_decays_to_zero():
    config = OptimizerConfig(warmup_images=100, decay_fraction=0.4)
    factors = {n: learning_rate_factor(n, 1000, config) for n in (0, 49, 99, 100, 600, 700, 800, 999)}
    expected = {0: 0.01, 49: 0.5, 99: 1, 100: 1, 600: 1, 700: 0.75, 800: 0.5, 999: 1 / 400}
    assert factors == pytest.approx(expected)
    assert learning_rate_factor(1000, 1000, config) == 0


def test_the_shape_is_without_jumps_and_always_positive_before_the_end():
    config = OptimizerConfig(warmup_images=300, decay_fraction=0.9)  # the ramps overlap
    factors = [learning_rate_factor(n, 1000, config) for n in range(1000)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(abs(b - a) for a, b in pairwise(factors)) < 0.005


def test_no_warm_up_and_no_decay_is_a_constant():
    config = OptimizerConfig(warmup_images=0, decay_fraction=0)
    assert {learning_rate_factor(n, 1000, config) for n in range(0, 1000, 7)} == {1.0}


def test_the_factor_scales_each_optimizer_s_own_peak():
    optimizers = build_optimizers(network(), OptimizerConfig(learning_rate=0.1, muon_learning_rate=0.2))
    for factor in (0.5, 0.25, 1.0):
        set_learning_rate(optimizers, factor)
        assert [o.param_groups[0]["lr"] for o in optimizers] == [0.2 * factor, 0.1 * factor]


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0},
        {"learning_rate": float("inf")},
        {"decay_fraction": 1.1},
        {"beta2": 1},
        {"momentum": 1},
    ],
)
def test_a_bad_value_is_refused(wrong):
    with pytest.raises(ValidationError):
        OptimizerConfig(**wrong)


def test_a_convolutions_kernels_are_one_matrix_to_muon():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3))
    matrix = model[1].weight.detach().flatten(1).clone()
    alone = Muon([torch.nn.Parameter(matrix)], lr=0.01)
    muon, adamw = build_optimizers(model, OptimizerConfig(muon_learning_rate=0.01))
    assert held(muon, model) == {"1.weight"} and "0.weight" in held(adamw, model)
    for _ in range(3):
        model(torch.randn(2, 3, 9, 9)).square().sum().backward()
        (flat,) = alone.param_groups[0]["params"]
        flat.grad = model[1].weight.grad.flatten(1).clone()
        muon.step()
        alone.step()
        muon.zero_grad()
    assert model[1].weight.shape == (8, 8, 3, 3)
    torch.testing.assert_close(model[1].weight.detach().flatten(1), flat.detach())
