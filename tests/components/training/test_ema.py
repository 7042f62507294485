"""The average against its closed form."""

import pytest
import torch
from torch import nn

from components.training.ema import EMA, ramped_up

FAR = 10**9  # images after which the ramp-up no longer shortens the half-life


def filled(value: float) -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            nn.init.constant_(tensor, value)
    return model


def test_after_a_half_life_half_of_the_start_is_left():
    ema, live = EMA(filled(1.0), ramped_up(1000)), filled(3.0)
    for _ in range(40):
        ema.update(live, FAR, 25)
    for average in (ema.model[0].weight, ema.model[1].weight, ema.model[1].running_mean):
        torch.testing.assert_close(average, torch.full_like(average, 2.0))


@pytest.mark.parametrize("batches", [(50, 50), (10,) * 10, (100,)])
def test_time_is_images_whatever_the_batch(batches):
    ema, live = EMA(filled(1.0), ramped_up(200)), filled(0.0)
    for batch in batches:
        ema.update(live, FAR, batch)
    assert ema.model[0].weight[0, 0].item() == pytest.approx(0.5 ** (100 / 200), rel=1e-6)


def test_early_on_the_half_life_is_a_tenth_of_the_images_seen():
    ema, live = EMA(filled(1.0), ramped_up(10_000)), filled(0.0)
    ema.update(live, 500, 50)
    assert ema.model[0].weight[0, 0].item() == pytest.approx(0.5, rel=1e-6)
    ema = EMA(filled(1.0), ramped_up(10_000))
    ema.update(live, 50, 50)  # the first step: of the random start a thousandth is left
    assert ema.model[0].weight[0, 0].item() == pytest.approx(0.5**10, rel=1e-4)


def test_the_average_is_never_trained_and_leaves_the_model_alone():
    live = filled(3.0)
    ema = EMA(live, ramped_up(100))
    live[0].weight.data.fill_(5.0)
    ema.update(live, FAR, 100)
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert not ema.model.training and live.training
    assert torch.equal(live[0].weight, torch.full((2, 3), 5.0))
    assert torch.equal(ema.model[0].weight, torch.full((2, 3), 4.0))


def test_a_restored_average_goes_on():
    ema, live = EMA(filled(0.0), ramped_up(100)), filled(0.0)
    ema.model.load_state_dict(filled(8.0).state_dict())
    ema.update(live, FAR, 100)
    assert torch.equal(ema.model[0].weight, torch.full((2, 3), 4.0))
