"""Loading whole states into one process; test_processes.py has several, which hold shares of them."""

import pytest
import torch
from torch import nn

from components.training.sharding import gathered, load_optimizer


def stepped(shape: tuple[int, ...]) -> torch.optim.Optimizer:
    """After one step on a single parameter of ones."""
    parameter = nn.Parameter(torch.ones(shape))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    parameter.square().sum().backward()
    optimizer.step()
    return optimizer


def test_the_state_of_a_number_is_that_of_a_vector_of_one():
    """As checkpoints have it from before a block's value_mix had a dimension."""
    optimizer, earlier = stepped((1,)), stepped(())
    load_optimizer(optimizer, earlier.state_dict())
    state, its = (next(iter(one.state.values())) for one in (optimizer, earlier))
    assert state["exp_avg"].tolist() == [its["exp_avg"].item()] and state["step"].item() == 1
    optimizer.step()
    earlier.step()
    (parameter,), (number,) = (one.param_groups[0]["params"] for one in (optimizer, earlier))
    assert parameter.item() == pytest.approx(number.item(), rel=1e-6)


def test_a_state_without_shares_stays_as_it_is():
    state = {"model": {"weight": torch.ones(2)}, "curve": [(1, {"loss": 2.0})]}
    assert gathered(state)["model"]["weight"] is state["model"]["weight"]
    assert gathered(state)["curve"] == state["curve"]
