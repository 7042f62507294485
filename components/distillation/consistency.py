"""Consistency distillation of a diffusion teacher (Song 2023), guidance absorbed, and training without one.

The consistency function f(x_t, t) of a denoiser is the x_0 of its velocity, so f(x, 0) = x by construction
(ConditionedDenoiser.consistency), and a student started from the teacher's weights starts with the teacher's
estimate of x_0. The student learns that f is the same all along the teacher's guided path.
"""

import torch
from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.diffusion.denoiser import Denoiser, conditioned
from components.diffusion.guidance import guided
from components.diffusion.process import PathSample
from components.diffusion.samplers import STEPS
from components.distillation.config import ConsistencyConfig
from components.distillation.curriculum import draw_times
from components.distillation.metrics import MetricFunction, difference_metric
from components.errors import InputError
from components.training.loss import Batch, LossContext, Losses, LossFunction


def consistency_loss(
    config: ConsistencyConfig, teacher: Denoiser, null: TextTokens, metric: MetricFunction | None = None
) -> LossFunction:
    """d(f(x_t, t), sg f(x_s, s)) / t, x_s nearer to the data on the path through x_t (Song 2023, Eq. 10).

    cd: x_s is a guided step of the teacher from x_t. ct: x_s has the image and the noise of x_t, and on
    average over them it is the unguided step of a perfect teacher (Theorem 2); the teacher here only says
    what process and prediction are. metric: d, by default the config's, which is not the perceptual one. The
    target is the student itself, as in iCT, or its average. Batches: see FlowLoss.

    Euler's step is DDIM's on rectified flow, exact where the teacher's x_0 is constant: 8 of them end nearer
    to the path of the demo's teacher than 8 of Heun's (2.0 against 3.8, the images' median distance), at half
    the cost.

    Raises InputError for a teacher from which nothing can be learned at pure noise, where a student starts.
    """
    refuse_blind_teacher(teacher)
    metric = metric or difference_metric(config.metric)
    step = STEPS[config.solver]

    def next_point(point: PathSample, s: Tensor, text: TextTokens) -> Tensor:
        nonlocal teacher, null
        if config.method == "ct":
            return teacher.process.sample(point.x_0, point.eps, s).x_t
        teacher, null = teacher.to(s.device), null.to(s.device)  # in the first step only
        return step(guided(teacher, text, null, config.guidance), point.x_t, point.t, s)

    def loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
        x_0 = batch["x_0"]
        text = TextTokens(batch["text"], batch["mask"])
        times = draw_times(config, context)
        t, s = times.t.to(x_0), times.s.to(x_0)
        point = teacher.process.sample(x_0, context.noise.normal("eps", x_0.shape[1:]), t)
        student = conditioned(teacher.with_network(model), text)
        averaged = model if config.target == "stop_gradient" else context.target
        assert averaged is not None, "an EMA target needs the training loop to keep one"
        with torch.no_grad():
            x_s = next_point(point, s, text)
            target = conditioned(teacher.with_network(averaged), text).consistency(x_s, s)
        distance = metric(student.consistency(point.x_t, t), target)
        return Losses((distance / t).mean())

    return loss


def refuse_blind_teacher(teacher: Denoiser) -> None:
    """Raise InputError for a teacher from which nothing can be learned at pure noise."""
    if teacher.prediction == "eps" and teacher.process.alpha(torch.ones(1)) == 0:
        raise InputError(
            "distill: a teacher that predicts eps knows no image at pure noise; distill one with"
            " train.diffusion.prediction x_0 or velocity, or process ddpm"
        )
