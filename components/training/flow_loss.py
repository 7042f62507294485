"""The denoising loss of the teacher, as the training loop takes it."""

import math

import torch
from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig, LossTarget
from components.diffusion.denoiser import make_denoiser
from components.diffusion.process import make_process, over
from components.diffusion.times import logit_normal, shift_times
from components.training.config import FlowLossConfig
from components.training.loss import Batch, LossContext, Losses
from components.training.noise import SampleNoise


class FlowLoss:
    """|| estimate - truth ||² of x_0, the velocity or eps (`config.target`) at x_t = alpha x_0 + sigma eps.

    Of the velocity of rectified flow it is flow matching (Liu 2022; Esser 2024), of DDPM's eps L_simple (Ho
    2020, Eq. 14); whichever the network predicts. Target and times are the process's own by default: of a
    chain, t = n / T with n uniform from 1 to T, at which x_t is exactly the paper's. Where the conversion of
    what the network predicts is clamped, near an end, so is the truth's (JiT, Li 2025, Section 4.2): the best
    prediction is the conditional mean everywhere.

    Batches hold `x_0` (B, C, H, W) in [-1, 1], `text` and `mask` (B, L); of a coupling (couplings.py) also
    its noise `eps`. null: the empty caption (1, l).
    """

    def __init__(self, config: FlowLossConfig, diffusion: DiffusionConfig, null: TextTokens) -> None:
        self.config, self.diffusion, self.null = config, diffusion, null
        self.process = make_process(diffusion.process)
        self.target = config.target or self.process.loss_target
        self.predicted: LossTarget = (
            "x_0" if diffusion.prediction == "preconditioned" else diffusion.prediction
        )
        self.times = config.times or ("uniform" if self.process.chain_steps else "logit_normal")

    def __call__(self, model: nn.Module, batch: Batch, context: LossContext) -> Losses:
        config, noise, x_0 = self.config, context.noise, batch["x_0"]
        self.null = self.null.to(x_0.device)  # copied in the first step only: a copy waits for the device
        size, length = batch["mask"].shape
        if self.times == "logit_normal":
            t = logit_normal(noise.normal("time"), config.time_mean, config.time_std)
        elif self.process.chain_steps:
            t = noise.integers("step", 1, self.process.chain_steps + 1) / self.process.chain_steps
        else:
            t = noise.uniform("time")
        keep = noise.uniform("caption_dropout") >= config.caption_dropout
        text = TextTokens(batch["text"], batch["mask"]).where(keep, self.null.repeat(size, length))
        t = shift_times(t, self.shift_at(x_0.shape[2], x_0.shape[3]))
        return Losses(self.errors(model, batch, noise, t, text).mean())

    def shift_at(self, height: int, width: int) -> float:
        """The shift of the times of images of that size (Esser 2024, Eq. 23)."""
        side = self.config.shift_side
        return self.config.shift * (math.sqrt(height * width) / side if side else 1)

    def errors(
        self, model: nn.Module, batch: Batch, noise: SampleNoise, t: Tensor, text: TextTokens
    ) -> Tensor:
        """The squared errors (B, C, H, W) at times t (B,)."""
        x_0 = batch["x_0"]
        eps = batch["eps"] if "eps" in batch else noise.normal("eps", x_0.shape[1:])
        point = self.process.sample(x_0, eps, t)
        quantities = {"x_0": x_0, "velocity": point.velocity, "eps": eps}
        truth = quantities[self.target]
        if self.predicted != self.target:
            alike = self.process.convert(
                quantities[self.predicted], point.x_t, t, source=self.predicted, target=self.target
            )
            truth = torch.where(over(self.process.clamps(t), truth), alike, truth)
        estimate = make_denoiser(model, self.diffusion).estimate(self.target, point.x_t, t, text)
        return (estimate - truth).square()
