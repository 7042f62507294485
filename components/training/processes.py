"""What the processes of one training do together: they average their gradients and share out Muon's work.

Each sees a share of every batch and holds the same weights to the bit: what two compute, they compute from
the same averages. On GPUs Accelerate wraps the model in DDP, which averages the gradients; processes on CPUs
average them here. Or each holds a share of the weights (sharding.py), and FSDP averages their gradients.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from enum import Enum, auto

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, environment
from torch import Tensor, nn

from components.training.muon import MOMENTUM, Muon
from components.training.sharding import shard_weights, sync_gradients


class GradientAveraging(Enum):
    """Who averages the gradients over the processes."""

    NOBODY = auto()  # there is one process
    DDP = auto()  # in buckets, while the backward pass still runs
    FLAT = auto()  # one all-reduce of all of them after it
    SHARDS = auto()  # FSDP: each process gets the mean of its share, block by block


def choose_averaging(device_type: str, world_size: int, sharded: bool = False) -> GradientAveraging:
    """DDP where there are several GPUs, one flat all-reduce between processes on CPUs; FSDP where asked.

    On a CPU DDP's overlap gains nothing, since communication and computation share the core; and DDP lays
    its buckets out anew after the first step, so that with three processes or more the last bits would
    depend on where a run was resumed. The flat all-reduce always has the same layout: its sums are
    deterministic, and a resumed run ends with the same bytes.
    """
    if world_size == 1:
        return GradientAveraging.NOBODY
    if sharded:
        return GradientAveraging.SHARDS
    return GradientAveraging.FLAT if device_type == "cpu" else GradientAveraging.DDP


def make_accelerator() -> Accelerator:
    """The Accelerator of this process; devices, process group and DDP's settings are its business.

    Its precision is one for the whole program, and our trainings differ in theirs: autocast is the loop's.
    """
    # To learn its classes' defaults it empties the environment for a moment. They read none of it, but Ray's
    # threads do meanwhile, and getenv beside setenv can end the process; see pipelines/environment.py.
    environment.clear_environment = nullcontext
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)  # they are constants, the same everywhere
    return Accelerator(mixed_precision="no", kwargs_handlers=[ddp])


class Processes:
    """The processes that an Accelerator finds itself among. sharded: whether weights are shared out."""

    def __init__(self, accelerator: Accelerator, sharded: bool = False) -> None:
        self.accelerator = accelerator
        self.rank, self.world_size = accelerator.process_index, accelerator.num_processes
        self.averaging = choose_averaging(accelerator.device.type, self.world_size, sharded)

    def shard(self, networks: Iterable[nn.Module]) -> None:
        """Leave this process its share of the weights of each, where they are shared out.

        Before the optimizers are built: the parameters are others then.
        """
        if self.averaging is GradientAveraging.SHARDS:
            for network in networks:
                shard_weights(network, self.accelerator.device.type, self.world_size)

    def prepare(
        self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
    ) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
        """Model and optimizers as Accelerate prepares them: on the device, wrapped in DDP where it averages.

        The model passed in holds the same weights; take state dicts from it, whose names have no prefix.
        """
        # Accelerate would wrap both in DDP: it has nothing else on CPUs and knows of no shares.
        if self.averaging in (GradientAveraging.FLAT, GradientAveraging.SHARDS):
            return model, [self.accelerator.prepare(optimizer) for optimizer in optimizers]
        wrapped, *prepared = self.accelerator.prepare(model, *optimizers)
        return wrapped, prepared

    @contextmanager
    def accumulating(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        """Around a backward pass: only the last of a step averages the gradients over the processes."""
        if self.averaging is GradientAveraging.SHARDS:
            sync_gradients(wrapped, last)
        with nullcontext() if last else self.accelerator.no_sync(wrapped):
            yield

    def agree_on(self, images_seen: int) -> None:
        """Raise RuntimeError unless all go on from the same place."""
        if self.world_size > 1:
            here = torch.tensor([images_seen], device=self.accelerator.device)
            everywhere: Tensor = self.accelerator.gather(here)
            if len(places := set(everywhere.tolist())) > 1:
                raise RuntimeError(
                    f"the processes found different checkpoints ({sorted(places)} images): is the output"
                    " on a file system that all of them share?"
                )

    def average(self, parameters: Iterable[nn.Parameter], scalars: Sequence[Tensor]) -> Tensor:
        """The means of the scalars over the processes, (K,), on the device.

        Every gradient has become its mean, too: here after FLAT's all-reduce, in which the scalars travel
        along, or in the backward pass before (DDP, FSDP). Every process must have reached the same
        parameters.
        """
        values = torch.stack([scalar.detach().float() for scalar in scalars])
        if self.averaging is GradientAveraging.FLAT:
            gradients = [p.grad for p in parameters if p.grad is not None]
            tensors = [*gradients, values]
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            torch.distributed.all_reduce(flat)
            torch._foreach_copy_(tensors, _split_like(flat.div_(self.world_size), tensors))
        elif self.averaging is not GradientAveraging.NOBODY:
            torch.distributed.all_reduce(values)
            values.div_(self.world_size)
        return values

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step; Muon's is shared out matrix by matrix, and every process gets every result.

        Its Newton-Schulz iterations take as long for a small share of a batch as for a large one: a third of
        the step of two processes with 16 images each (measured, the demo's network).
        """
        if not self._shares_out(optimizer):
            optimizer.step()
            return
        shares = self._shares([p for p in _parameters(optimizer) if p.grad is not None])
        for rank, share in enumerate(shares):
            for matrix in share:
                if rank != self.rank:
                    matrix.grad = None  # leaves it out
        optimizer.step()
        self._exchange(shares, lambda matrix: matrix.data)

    def gather_state(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring here what each process keeps of its share of the matrices, for a checkpoint.

        So the state is whole, and any number of processes can go on from it.
        """
        if not self._shares_out(optimizer):
            return
        for matrix in _parameters(optimizer):
            optimizer.state[matrix].setdefault(MOMENTUM, torch.zeros_like(matrix))
        self._exchange(self._shares(_parameters(optimizer)), lambda matrix: optimizer.state[matrix][MOMENTUM])

    def _shares_out(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether it is a Muon whose matrices are whole everywhere; one of shares divides its work itself."""
        apart = self.averaging in (GradientAveraging.NOBODY, GradientAveraging.SHARDS)
        return not apart and _is_muon(optimizer)

    def _shares(self, matrices: Sequence[Tensor]) -> list[list[Tensor]]:
        """The matrices of each rank: the largest first, each to the rank that has least."""
        shares: list[list[Tensor]] = [[] for _ in range(self.world_size)]
        for matrix in sorted(matrices, key=Tensor.numel, reverse=True):
            min(shares, key=_size).append(matrix)
        return shares

    def _exchange(self, shares: Sequence[Sequence[Tensor]], of: Callable[[Tensor], Tensor]) -> None:
        """Copy `of(matrix)` from the matrix's owner to all other processes."""
        for owner, share in enumerate(shares):
            if not share:
                continue  # fewer matrices than processes
            tensors = [of(matrix) for matrix in share]
            mine = owner == self.rank
            flat = torch.cat([t.flatten() for t in tensors]) if mine else tensors[0].new_empty(_size(share))
            torch.distributed.broadcast(flat, owner)
            if not mine:
                torch._foreach_copy_(tensors, _split_like(flat, tensors))


def _is_muon(optimizer: torch.optim.Optimizer) -> bool:
    return isinstance(getattr(optimizer, "optimizer", optimizer), Muon)  # Accelerate wraps it


def _split_like(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """`flat` cut and shaped as the tensors are."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _size(matrices: Sequence[Tensor]) -> int:
    return sum(matrix.numel() for matrix in matrices)
