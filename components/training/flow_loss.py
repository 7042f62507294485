"""The rectified-flow loss of the teacher, as the training loop takes it."""

from torch import nn

from components.conditioning.text import TextTokens
from components.diffusion.process import logit_normal, rectified_flow, shift_times, velocity_of_x_hat
from components.training.config import FlowLossConfig
from components.training.loss import Batch, LossContext, Losses, LossFunction


def flow_loss(config: FlowLossConfig, null: TextTokens) -> LossFunction:
    """||v_hat - v||² on x_t = (1 - t) x_0 + t eps (Liu 2022; Esser 2024).

    Batches hold `x_0` (B, C, H, W) in [-1, 1], `text` and `mask` (B, L). null: the empty caption (1, l).
    """
    process = rectified_flow()

    def loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
        x_0, device, noise = batch["x_0"], batch["x_0"].device, context.noise
        size, length = batch["mask"].shape
        t = shift_times(logit_normal(noise.normal("time"), config.time_mean, config.time_std), config.shift)
        eps = noise.normal("eps", x_0.shape[1:])
        keep = noise.uniform("caption_dropout") >= config.caption_dropout
        text = TextTokens(batch["text"], batch["mask"]).where(keep, null.to(device).repeat(size, length))
        point = process.sample(x_0, eps, t)
        v_hat = velocity_of_x_hat(point.x_t, model(point.x_t, t, text), t)
        return Losses((v_hat - point.v).square().mean())

    return loss
