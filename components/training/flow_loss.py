"""The denoising loss of the teacher, as the training loop takes it."""

from torch import nn

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig
from components.diffusion.denoiser import make_denoiser
from components.diffusion.process import make_process
from components.diffusion.times import logit_normal, shift_times
from components.training.config import FlowLossConfig
from components.training.loss import Batch, LossContext, Losses, LossFunction


def flow_loss(config: FlowLossConfig, diffusion: DiffusionConfig, null: TextTokens) -> LossFunction:
    """|| estimate - truth ||² of x_0, the velocity or eps (`config.target`) at x_t = alpha x_0 + sigma eps.

    Of the velocity of rectified flow it is flow matching (Liu 2022; Esser 2024), of DDPM's eps L_simple (Ho
    2020, Eq. 14); whichever the network predicts. Without a target in the config, it is the process's own.

    Batches hold `x_0` (B, C, H, W) in [-1, 1], `text` and `mask` (B, L). null: the empty caption (1, l).
    """
    process = make_process(diffusion.process)
    target = config.target or process.loss_target

    def loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
        nonlocal null
        x_0, noise = batch["x_0"], context.noise
        null = null.to(x_0.device)  # copied in the first step only: a copy would wait for the device
        size, length = batch["mask"].shape
        t = shift_times(logit_normal(noise.normal("time"), config.time_mean, config.time_std), config.shift)
        eps = noise.normal("eps", x_0.shape[1:])
        keep = noise.uniform("caption_dropout") >= config.caption_dropout
        text = TextTokens(batch["text"], batch["mask"]).where(keep, null.repeat(size, length))
        point = process.sample(x_0, eps, t)
        truth = {"x_0": x_0, "velocity": point.velocity, "eps": eps}[target]
        estimate = make_denoiser(model, diffusion).estimate(target, point.x_t, t, text)
        return Losses((estimate - truth).square().mean())

    return loss
