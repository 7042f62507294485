"""The training loop's optimizers: Muon on the hidden matrices, AdamW on the rest, one learning-rate shape."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from components.training.config import OptimizerConfig
from components.training.muon import Muon

ADAPTER = ".lora_"  # in the names of peft's matrices
IMAGE_CHANNELS = 4  # at most; a convolution with so few inputs reads the image


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for what is inside a network, AdamW for embeddings, heads, norms and biases.

    A parameter belongs to Muon if it is a matrix below a module list named `blocks` or `layers`, or the
    kernels of a convolution that does not read the image itself. LoRA's thin matrices are AdamW's.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    hidden, rest = _split(trained) if config.muon_learning_rate else ([], [p for _, p in trained])
    optimizers: list[torch.optim.Optimizer] = []
    if hidden:
        optimizers.append(Muon(hidden, lr=config.muon_learning_rate, weight_decay=config.weight_decay))
    betas = (0.9, config.beta2)
    optimizers.append(
        torch.optim.AdamW(rest, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay)
    )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


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
        inside = any(word in name.split(".") for word in ("blocks", "layers", "resblocks"))
        matrix = inside and parameter.ndim == 2 and name.endswith("weight") and ADAPTER not in name
        kernels = parameter.ndim == 4 and parameter.shape[1] > IMAGE_CHANNELS
        (hidden if matrix or kernels else rest).append(parameter)
    return hidden, rest
