"""MeanFlow (Geng 2025) from a diffusion teacher, guidance absorbed: the student learns average velocities.

Differentiating (t - r) u(x_t, r, t) = the integral of v from r to t gives u = v - (t - r) du/dt along the
path (Eq. 6): the teacher's velocity and a derivative of the student, in forward mode, say what u should be,
with no integral and no second point. A student with the teacher's weights and an untrained second time is
the teacher, and u = v is right where r = t.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from components.conditioning.text import TextTokens
from components.diffusion.denoiser import Denoiser, conditioned
from components.diffusion.guidance import guided
from components.diffusion.mean_flow import toward
from components.diffusion.process import over
from components.diffusion.times import shift_times
from components.distillation.config import ConsistencyConfig
from components.distillation.consistency import refuse_blind_teacher
from components.training.loss import Batch, LossContext, Losses, LossFunction

ADAPTIVE_C = 1e-3  # added to a squared error that is divided by


@dataclass(frozen=True)
class Span:
    """Two times of one path, (B,) each, r at or before t."""

    t: Tensor
    r: Tensor


@dataclass(frozen=True)
class AverageVelocity:
    """u: at (x_t, r, t), (B, C, H, W). slope: its total derivative in t along the path, shaped alike."""

    u: Tensor
    slope: Tensor


def mean_flow_loss(config: ConsistencyConfig, teacher: Denoiser, null: TextTokens) -> LossFunction:
    """w || u(x_t, r, t) - sg(v - (t - r) du/dt) ||², v the teacher's guided velocity (Geng 2025, Eq. 9).

    w = sg(1 / (error + 1e-3)^p) of each sample's squared error is the paper's adaptive weight (Section 4.3):
    on a guided path slopes are many times as long as velocities, and the longest would drown all others. With
    p = 1 the loss is near 1 whatever the error, whose mean over the dimensions is the metric `error`.

    t and r are two uniform times, shifted, or for a share of the samples the same. Batches: see FlowLoss.

    Raises InputError for a teacher from which nothing can be learned at pure noise.
    """
    refuse_blind_teacher(teacher)

    def loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
        nonlocal teacher, null
        x_0 = batch["x_0"]
        teacher, null = teacher.to(x_0.device), null.to(x_0.device)  # in the first step only
        text = TextTokens(batch["text"], batch["mask"])
        span = draw_span(config, context)
        t, r = span.t.to(x_0), span.r.to(x_0)
        x_t = teacher.process.sample(x_0, context.noise.normal("eps", x_0.shape[1:]), t).x_t
        with torch.no_grad():
            v = guided(teacher, text, null, config.guidance).velocity(x_t, t)
            target = v - over(t - r, x_t) * average_velocity(teacher, model, text, x_t, t, r, v).slope
        u = conditioned(toward(teacher, model, r), text).velocity(x_t, t)
        error = (u - target).square().flatten(1).sum(1)
        weight = (error.detach() + ADAPTIVE_C) ** -config.adaptive_power
        return Losses((weight * error).mean(), {"error": error.detach().mean() / x_0[0].numel()})

    return loss


def draw_span(config: ConsistencyConfig, context: LossContext) -> Span:
    """t and r of a batch: the later and the earlier of two times in (0, 1], or t twice."""
    noise = context.noise
    first, second = (shift_times(1 - noise.uniform(name), config.shift) for name in ("time", "second_time"))
    t, r = torch.maximum(first, second), torch.minimum(first, second)
    return Span(t, torch.where(noise.uniform("same_times") < config.same_times, t, r))


def average_velocity(
    denoiser: Denoiser, model: nn.Module, text: TextTokens, x_t: Tensor, t: Tensor, r: Tensor, v: Tensor
) -> AverageVelocity:
    """u(x_t, r, t) and du/dt = v ∂u/∂x + ∂u/∂t (Geng 2025, Eq. 8), v = dx_t/dt: one forward-mode pass.

    In the weights' own precision, since a slope feels rounding more than a value does, and with the attention
    that is written out as matrix products: the fused kernels have no forward-mode derivative.
    """
    # Only the training's own pass must go through DDP, which averages the gradients that this one has not.
    network = model.module if isinstance(model, DistributedDataParallel) else model

    def u_at(x: Tensor, time: Tensor) -> Tensor:
        return conditioned(toward(denoiser, network, r), text).velocity(x, time)

    with torch.no_grad(), torch.autocast(x_t.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
        result = jvp(u_at, (x_t, t.contiguous()), (v, torch.ones_like(t)))  # t may be an expanded number
    return AverageVelocity(u=result[0], slope=result[1])
