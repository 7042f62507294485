"""Distribution matching (Yin 2024) beside consistency: what a student draws in one step is drawn as often by
the teacher.

Consistency alone averages what lies on both sides of a border between modes. A second network, the fake, is a
diffusion model of what the student draws at the time; where the teacher thinks x_0 likelier than the fake
does, the student is moved: the slope of the divergence KL(student || teacher) after noise. rCM (Zheng 2025)
joins both as here; the fake learns in the student's own step (Yin 2024b gives it several).
"""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.diffusion.denoiser import Denoiser, conditioned
from components.diffusion.dit import DiT
from components.diffusion.guidance import guided
from components.diffusion.process import over
from components.diffusion.sd3_network import SD3Network
from components.diffusion.times import shift_times
from components.distillation.config import ConsistencyConfig
from components.distillation.metrics import pseudo_huber_c
from components.training.loss import Batch, LossContext, Losses, LossFunction

TIMES = (0.05, 0.98)  # of the noise after which the two are compared: at its ends they say nothing


class MatchedStudent(nn.Module):
    """A student and its fake as one module, so that one step trains, averages and keeps both."""

    def __init__(self, student: DiT | SD3Network, fake: DiT | SD3Network) -> None:
        super().__init__()
        self.student, self.fake = student, fake

    def forward(self, x_t: Tensor, t: Tensor, text: TextTokens, fake: bool = False) -> Tensor:
        """What the student predicts, or the fake."""
        network = self.fake if fake else self.student
        predicted: Tensor = network(x_t, t, text)
        return predicted

    def checkpoint_activations(self) -> None:
        """See DiT."""
        self.student.checkpoint_activations()
        self.fake.checkpoint_activations()


def with_fake(student: DiT | SD3Network, teacher: DiT | SD3Network) -> MatchedStudent:
    """The student beside a fake that begins as the teacher."""
    return MatchedStudent(student, copy.deepcopy(teacher).requires_grad_(True))


def matched_loss(
    consistency: LossFunction, config: ConsistencyConfig, teacher: Denoiser, null: TextTokens
) -> LossFunction:
    """The consistency loss of a MatchedStudent's student, its distribution matching, its fake's flow loss.

    <y, sg((fake(y_t) - teacher(y_t)) / ||y - teacher(y_t)||)>, y = f(noise, 1) and both the estimates of x_0
    after noise: its slope is DMD's (Yin 2024, Eq. 7 and 8), of a length that is comparable to that of the
    pseudo-Huber distance. Batches: see FlowLoss.
    """
    matching = config.matching
    assert matching is not None, "a config without matching asks for the consistency loss alone"

    def loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
        nonlocal teacher, null
        x_0, noise = batch["x_0"], context.noise
        teacher, null = teacher.to(x_0.device), null.to(x_0.device)  # in the first step only
        text = TextTokens(batch["text"], batch["mask"])
        losses = consistency(model, batch, context)
        ends = x_0.new_ones(len(x_0))
        start = teacher.process.sample(x_0, noise.normal("start", x_0.shape[1:]), ends).x_t
        drawn = conditioned(teacher.with_network(model), text).consistency(start, ends)
        low, high = TIMES
        t = shift_times(low + (high - low) * noise.uniform("matching_time"), config.shift).to(x_0)
        point = teacher.process.sample(drawn.detach(), noise.normal("matching_eps", x_0.shape[1:]), t)
        fake = conditioned(teacher.with_network(partial(model, fake=True)), text).velocity(point.x_t, t)
        flow = (fake - point.velocity).square().mean()
        with torch.no_grad():
            likelier = guided(teacher, text, null, matching.guidance).x_0(point.x_t, t)
            here = teacher.process.x_0_from_velocity(point.x_t, fake, t)
            distance = (drawn - likelier).flatten(1).norm(dim=1)
            distance = distance.clamp_min(pseudo_huber_c(x_0[0].numel()))  # an image that is right already
            slope = (here - likelier) / over(distance, x_0)
        towards = (slope * drawn).flatten(1).sum(1).mean()
        metrics = {"fake": flow, "slope": slope.flatten(1).norm(dim=1).mean()}
        return Losses(losses.loss + matching.weight * towards + flow, losses.metrics | metrics)

    return loss
