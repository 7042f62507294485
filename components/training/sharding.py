"""Weights of which every process holds a share (FSDP2): whole only block by block, while they compute.

Gradients, averages and the optimizers' state are shared out as the weights are: each is a DTensor, cut along
its first dimension. torch's own fully_shard does it, since Accelerate passes its FSDP plugin over on CPUs,
where all of this is tested.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from components.training.lora import BLOCKS


def shard_weights(network: nn.Module, device_type: str, world_size: int) -> None:
    """Leave this process its share, in place; each block is gathered by itself when it computes."""
    mesh = init_device_mesh(device_type, (world_size,))
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in BLOCKS:
            for block in module:
                fully_shard(block, mesh=mesh)
    # By default what is outside the blocks stays whole until a backward pass, which an average never has.
    fully_shard(network, mesh=mesh, reshard_after_forward=True)
    # A DiT's first block returns its values, a view; nothing here changes a block's output in place.
    warnings.filterwarnings("ignore", r"FSDP2-wrapped module .* returned a view tensor")


def sync_gradients(network: nn.Module, now: bool) -> None:
    """Whether the next backward pass averages the gradients, or adds to those that wait for it."""
    assert isinstance(network, FSDPModule)
    network.set_requires_gradient_sync(now)


def gathered(state: Any, *, keep: bool = True) -> Any:
    """The state with every share made whole, on the CPU; all processes have to ask together.

    keep: whether this process wants it; one that does not has None in its place, and takes no memory for it.
    """

    def whole(shares: DTensor) -> Tensor | None:
        gathered = shares.full_tensor()
        return gathered.cpu() if keep else None

    return tree_map_only(DTensor, whole, state)


def load_weights(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Load whole weights, each process its share of them where it holds shares."""
    own = network.state_dict()
    network.load_state_dict({name: _share(value, own[name]) for name, value in state.items()})


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load an optimizer's whole state as `load_weights` loads weights.

    But for the count of its steps, what it keeps of a parameter is shaped like that.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        number: {
            name: value
            if name == "step"
            else _share(value.reshape(parameters[number].shape), parameters[number])
            for name, value in values.items()
        }
        for number, values in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": state})


def _share(whole: Tensor, like: Tensor) -> Tensor:
    """This process's share of a tensor that is shaped like `like`; all of it where that has no shares."""
    if not isinstance(like, DTensor):
        return whole
    whole = whole.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
