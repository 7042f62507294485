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
    2020, Eq. 14); whichever the network predicts. Target and times are the process's own by default: of a
    chain, t = n / T with n uniform from 1 to T, at which x_t is exactly the paper's.

    Batches hold `x_0` (B, C, H, W) in [-1, 1], `text` and `mask` (B, L); of a coupling (couplings.py) also
    its noise `eps`. null: the empty caption (1, l).
    """
    process = make_process(diffusion.process)
    target = config.target or process.loss_target
    times = config.times or ("uniform" if process.chain_steps else "logit_normal")

    def loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
        nonlocal null
        x_0, noise = batch["x_0"], context.noise
        null = null.to(x_0.device)  # copied in the first step only: a copy would wait for the device
        size, length = batch["mask"].shape
        if times == "logit_normal":
            t = logit_normal(noise.normal("time"), config.time_mean, config.time_std)
        elif process.chain_steps:
            t = noise.integers("step", 1, process.chain_steps + 1) / process.chain_steps
        else:
            t = noise.uniform("time")
        t = shift_times(t, config.shift)
        eps = batch["eps"] if "eps" in batch else noise.normal("eps", x_0.shape[1:])
        keep = noise.uniform("caption_dropout") >= config.caption_dropout
        text = TextTokens(batch["text"], batch["mask"]).where(keep, null.repeat(size, length))
        point = process.sample(x_0, eps, t)
        truth = {"x_0": x_0, "velocity": point.velocity, "eps": eps}[target]
        estimate = make_denoiser(model, diffusion).estimate(target, point.x_t, t, text)
        return Losses((estimate - truth).square().mean())

    return loss
