"""Muon (Jordan 2024) on stacks: all matrices of one shape are orthogonalised together.

PyTorch's takes them one by one, in bfloat16. A small network on a CPU spends half of a step on that where
the processor does not compute in bfloat16, and a third where it does.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

MOMENTUM = "momentum_buffer"  # the state of a matrix, as torch.optim.Muon names it
# The polynomial a x + b x³ + c x⁵ of a Newton-Schulz step (Jordan 2024).
A, B, C = 3.4445, -4.7750, 2.0315
SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon's steps and state, for tensors of two dimensions or more.

    The kernels of a convolution are one matrix, (out, in * height * width). ns_steps: of Newton-Schulz.
    weight_decay: decoupled, per unit of learning rate.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "ns_steps": ns_steps}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step on all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(_matrix_shape(parameter), []).append(parameter)
            for shape, parameters in by_shape.items():
                self._step_stack(parameters, shape, group)
        return loss

    def _step_stack(self, parameters: list[Tensor], shape: tuple[int, int], group: dict[str, Any]) -> None:
        rows, columns = shape
        momentum, rate = group["momentum"], group["lr"]
        gradients = [p.grad for p in parameters if p.grad is not None]
        for parameter in parameters:
            if MOMENTUM not in self.state[parameter]:
                self.state[parameter][MOMENTUM] = torch.zeros_like(parameter)
        buffers = [self.state[parameter][MOMENTUM] for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, buffers, momentum)  # Nesterov's
        stack = torch.stack([update.reshape(shape) for update in ahead])
        steps = _orthogonalised(stack, group["ns_steps"]).unbind()
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        changes = [step.reshape(p.shape) for step, p in zip(steps, parameters, strict=True)]
        torch._foreach_add_(parameters, changes, alpha=-rate * math.sqrt(max(1, rows / columns)))


def _orthogonalised(stack: Tensor, steps: int) -> Tensor:
    """`orthogonalise` of (K, m, n); a process with some rows of every matrix does it for some whole ones."""
    if not isinstance(stack, DTensor):
        return orthogonalise(stack, steps)
    mesh, rows = stack.device_mesh, stack.placements
    mine = orthogonalise(stack.redistribute(placements=[Shard(0)]).to_local(), steps).contiguous()
    whole = DTensor.from_local(mine, mesh, [Shard(0)], shape=stack.shape, stride=stack.stride())
    return whole.redistribute(placements=rows)


def orthogonalise(matrices: Tensor, steps: int) -> Tensor:
    """Each of (K, m, n) with its singular values brought near 1 by so many Newton-Schulz steps.

    On a CPU in float32 (bfloat16 is emulated on many), elsewhere in bfloat16 as Jordan does.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalise(matrices.mT, steps).mT
    on_cpu = matrices.device.type == "cpu"
    x = matrices.float() if on_cpu else matrices.bfloat16()
    x = x / x.flatten(1).norm(dim=1).clamp(min=SMALLEST_NORM)[:, None, None]
    wide = matrices.shape[2] >= 2 * matrices.shape[1]
    return (_through_gram if on_cpu and wide else _directly)(x, steps).to(matrices.dtype)


def _directly(x: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        x = torch.baddbmm(x, _polynomial(x @ x.mT), x, beta=A)
    return x


def _through_gram(x: Tensor, steps: int) -> Tensor:
    """The same by way of x xᵀ, which is small where x is wide: every step is a polynomial of it.

    Needs more than bfloat16's digits.
    """
    gram = x @ x.mT
    product: Tensor | None = None
    for step in range(steps):
        factor = _polynomial(gram)
        factor.diagonal(dim1=1, dim2=2).add_(A)
        product = factor if product is None else factor @ product
        if step < steps - 1:
            gram = factor @ (gram @ factor)
    return x if product is None else product @ x


def _polynomial(gram: Tensor) -> Tensor:
    """B gram + C gram², without the constant."""
    return torch.baddbmm(gram, gram, gram, beta=B, alpha=C)


def _matrix_shape(parameter: Tensor) -> tuple[int, int]:
    return len(parameter), parameter[0].numel()
