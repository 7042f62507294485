"""What the processes of one training do together: they average their gradients and deal out Muon's work.

One process is the common case and costs nothing here. Several see a share of each batch each, and hold the
same weights to the bit: what they compute twice, they compute from the same averages.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor, nn

MOMENTUM = "momentum_buffer"  # Muon's state of a matrix, as torch.optim.Muon names it


class Processes:
    """The processes that an Accelerator found itself among."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rank, self.world_size = accelerator.process_index, accelerator.num_processes

    def agree_on(self, images_seen: int) -> None:
        """Raise RuntimeError unless all go on from the same place."""
        if self.world_size > 1:
            here = torch.tensor([images_seen], device=self.accelerator.device)
            found: Tensor = self.accelerator.gather(here)
            if len(places := set(found.tolist())) > 1:
                raise RuntimeError(
                    f"the processes found different checkpoints ({sorted(places)} images): is the output"
                    " on a file system that all of them share?"
                )

    def average(self, parameters: Iterable[nn.Parameter], scalars: Mapping[str, Tensor]) -> dict[str, float]:
        """Replace every gradient by its mean over the processes; returns the means of the scalars.

        All in one all-reduce of always the same layout, after the backward pass. (DDP overlaps the two, which
        gains nothing where a process has one core, and lays its buckets out anew after the first step: with
        three processes or more the last bits would depend on where a run was resumed.) Every process must
        have reached the same parameters.
        """
        values = torch.stack([scalar.detach().float() for scalar in scalars.values()])
        if self.world_size > 1:
            gradients = [p.grad for p in parameters if p.grad is not None]
            given = [*gradients, values]
            flat = torch.cat([each.flatten() for each in given])
            torch.distributed.all_reduce(flat)
            torch._foreach_copy_(given, _like(flat.div_(self.world_size), given))
        return dict(zip(scalars, values.tolist(), strict=True))

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step; Muon's is dealt out matrix by matrix, and everyone gets every result.

        Its Newton-Schulz iterations take as long for a small share of a batch as for a large one: a third of
        the step of two processes with 16 images each (measured, the demo's network).
        """
        if self.world_size == 1 or not isinstance(optimizer, torch.optim.Muon):
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
        """Have here what each process keeps of the matrices dealt to it; for a checkpoint."""
        if self.world_size == 1 or not isinstance(optimizer, torch.optim.Muon):
            return
        for matrix in _parameters(optimizer):
            optimizer.state[matrix].setdefault(MOMENTUM, torch.zeros_like(matrix))
        self._exchange(self._shares(_parameters(optimizer)), lambda matrix: optimizer.state[matrix][MOMENTUM])

    def _shares(self, matrices: Sequence[Tensor]) -> list[list[Tensor]]:
        """Whose is which: the largest first, each to whom has least."""
        shares: list[list[Tensor]] = [[] for _ in range(self.world_size)]
        for matrix in sorted(matrices, key=Tensor.numel, reverse=True):
            min(shares, key=_size).append(matrix)
        return shares

    def _exchange(self, shares: Sequence[Sequence[Tensor]], of: Callable[[Tensor], Tensor]) -> None:
        """Have everywhere what the owner of each matrix has: `of(matrix)` is overwritten on the others."""
        for owner, share in enumerate(shares):
            if not share:
                continue  # fewer matrices than processes
            tensors = [of(matrix) for matrix in share]
            mine = owner == self.rank
            flat = torch.cat([t.flatten() for t in tensors]) if mine else tensors[0].new_empty(_size(share))
            torch.distributed.broadcast(flat, owner)
            if not mine:
                torch._foreach_copy_(tensors, _like(flat, tensors))


def _like(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """`flat` cut and shaped as the tensors are."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _size(matrices: Sequence[Tensor]) -> int:
    return sum(matrix.numel() for matrix in matrices)
