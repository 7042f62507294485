"""The arithmetic of a training: counted as by hand, compared with the device's, and changing nothing."""

from collections.abc import Iterator

import torch
from torch import nn

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig
from components.diffusion.denoiser import make_denoiser
from components.diffusion.dit import DiT, DiTConfig
from components.distillation.config import ConsistencyConfig
from components.distillation.mean_flow import mean_flow_loss
from components.training.config import TrainingConfig
from components.training.loop import Trained, train
from components.training.loss import Batch, LossContext, Losses
from components.training.utilisation import count_flops, peak_flops
from tests.loss_context import context, named

SIDE, BATCH = 768, 256


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(SIDE, SIDE, bias=False) for _ in range(3)))


def squared(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
    return Losses(model(batch["x_0"]).square().mean())


def trained(images: int, utilisation: bool, accumulation: int = 1) -> Trained:
    def batches(images_seen: int) -> Iterator[Batch]:
        while True:
            yield named({"x_0": torch.randn(BATCH, SIDE, generator=torch.Generator().manual_seed(1))})

    config = TrainingConfig(
        images=images, batch_size=BATCH, ema_halflife_images=0, log_images=2 * BATCH, precision="no",
        optimizer={"muon_learning_rate": 0.0},
    )  # fmt: skip
    return train(
        layers(), squared, batches, config, seed=0, purpose="test",
        accumulation=accumulation, utilisation=utilisation,
    )  # fmt: skip


def test_products_are_counted_as_by_hand():
    """Forward three products of 2 B n² operations; backward as many for weights, two for activations."""
    model, x = layers(), torch.randn(BATCH, SIDE)
    assert count_flops(lambda: model(x).sum().backward()) == (3 + 3 + 2) * 2 * BATCH * SIDE**2


def test_counting_changes_no_weight_and_a_training_of_large_products_is_near_the_peak():
    plain, counted = trained(8 * BATCH, False), trained(8 * BATCH, True, accumulation=1)
    assert all(map(torch.equal, plain.model.parameters(), counted.model.parameters()))
    assert plain.curve == counted.curve
    assert {point.mfu for point in plain.curve} == {None}
    flops = 8 * 2 * SIDE**2  # of one image
    for point, again in zip(counted.curve, trained(8 * BATCH, True, accumulation=4).curve, strict=True):
        peak = peak_flops(torch.device("cpu"), "no", 1)
        assert point.mfu == point.images_per_second * flops / peak
        assert again.mfu == again.images_per_second * flops / peak
        assert 0.02 < point.mfu < 2  # of a machine that may do other things meanwhile


def test_compiled_code_is_counted_as_it_runs_eagerly():
    model, x = layers(), torch.randn(BATCH, SIDE)
    model.compile(backend="eager")
    assert count_flops(lambda: model(x).sum().backward(), compiled=True) == 8 * 2 * BATCH * SIDE**2


def test_a_forward_mode_loss_is_counted_too():
    sizes = DiTConfig(image_size=8, patch=4, width=32, depth=1, heads=2, vocabulary=30, second_time=True)
    network, diffusion = DiT(sizes), DiffusionConfig()
    null = TextTokens(torch.tensor([[1]]), torch.tensor([[True]]))
    objective = mean_flow_loss(
        ConsistencyConfig(method="mean_flow"), make_denoiser(DiT(sizes).eval(), diffusion), null
    )
    ids = torch.ones(4, 3, dtype=torch.long)
    samples = named({"x_0": torch.randn(4, 3, 8, 8), "text": ids, "mask": ids > 0})
    once = count_flops(lambda: network(samples["x_0"], torch.rand(4), TextTokens(ids, ids > 0)))
    step = count_flops(lambda: objective(network, samples, context(samples)).loss.backward())  # noqa: PLW0108 its forward pass is in it
    assert step > 5 * once  # the teacher twice, the slope, the estimate and the way back
