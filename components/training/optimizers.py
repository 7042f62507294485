"""The training loop's optimizers: Muon on the hidden matrices, AdamW on the rest, one learning-rate shape."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from components.training.config import OptimizerConfig

IMAGE_CHANNELS = 4  # at most; a convolution with so few inputs reads the image


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for what is inside a network, AdamW for embeddings, heads, norms and biases.

    A parameter belongs to Muon if it is a matrix below a module list named `blocks` or `layers`, or the
    kernels of a convolution that does not read the image itself.
    """
    hidden, rest = (
        _split(model.named_parameters()) if config.muon_learning_rate else ([], list(model.parameters()))
    )
    optimizers: list[torch.optim.Optimizer] = []
    if hidden:
        optimizers.append(
            KernelMuon(hidden, lr=config.muon_learning_rate, weight_decay=config.weight_decay, ns_steps=5)
        )
    betas = (0.9, config.beta2)
    optimizers.append(
        torch.optim.AdamW(rest, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay)
    )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


class KernelMuon(torch.optim.Muon):
    """Muon that takes the kernels of a convolution as one matrix, (out, in * height * width)."""

    def __init__(self, params: Iterable[Tensor], **settings: Any) -> None:
        params = list(params)
        with _as_matrices(params):
            super().__init__(params, **settings)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        with _as_matrices([p for group in self.param_groups for p in group["params"]]):
            return super().step(closure)


@contextmanager
def _as_matrices(params: Sequence[Tensor]) -> Iterator[None]:
    """Within it, every parameter is a matrix, and so is its gradient."""
    shapes = {p: p.shape for p in params if p.ndim > 2}
    for kernels in shapes:
        _reshape(kernels, (len(kernels), -1))
    try:
        yield
    finally:
        for kernels, shape in shapes.items():
            _reshape(kernels, shape)


def _reshape(parameter: Tensor, shape: Sequence[int]) -> None:
    gradient, parameter.grad = parameter.grad, None  # a gradient must always have its parameter's shape
    parameter.data = parameter.data.reshape(shape)
    parameter.grad = None if gradient is None else gradient.reshape(shape)


def learning_rate_factor(images_seen: int, total: int, config: OptimizerConfig) -> float:
    """Warm-up, plateau, linear decay: the factor on the peak rate of the step at `images_seen`."""
    warm = min(1.0, (images_seen + 1) / config.warmup_images) if config.warmup_images else 1.0
    decay_images = max(1.0, config.decay_fraction * total)
    return warm * min(1.0, (total - images_seen) / decay_images)


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def _split(named: Iterable[tuple[str, nn.Parameter]]) -> tuple[list[Tensor], list[Tensor]]:
    hidden: list[Tensor] = []
    rest: list[Tensor] = []
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        inside = any(word in name.split(".") for word in ("blocks", "layers", "resblocks"))
        matrix = inside and parameter.ndim == 2 and name.endswith("weight")
        kernels = parameter.ndim == 4 and parameter.shape[1] > IMAGE_CHANNELS
        (hidden if matrix or kernels else rest).append(parameter)
    return hidden, rest
