"""No step waits for a GPU: between two looks at the losses no value of a tensor is read by the host.

Shown on a CPU, where reading is counted instead of timed; torch's own optimizers are left out, which read
only what they keep on the CPU.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig, DiTConfig
from components.diffusion.denoiser import make_denoiser
from components.diffusion.dit import DiT
from components.distillation.config import ConsistencyConfig
from components.distillation.consistency import consistency_loss
from components.distillation.matching import matched_loss, with_fake
from components.distillation.mean_flow import mean_flow_loss
from components.training import loop
from components.training.config import FlowLossConfig, TrainingConfig
from components.training.curve import Meter
from components.training.flow_loss import FlowLoss
from components.training.loop import train
from components.training.loss import Batch, LossContext, Losses, LossFunction

READS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"}  # of ATen
STEPS, BATCH = 12, 4
NULL = TextTokens(torch.tensor([[1]]), torch.tensor([[True]]))


class ReadCounter(TorchDispatchMode):
    """Counts the operators whose result depends on a value that the host must know."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.in_optimizer = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in READS and not self.in_optimizer:
            self.reads[name] += 1
        return func(*args, **(kwargs or {}))

    def enter_optimizer(self, *_: object) -> None:
        self.in_optimizer = True

    def leave_optimizer(self, *_: object) -> None:
        self.in_optimizer = False


def count_reads(network: DiT, loss: LossFunction, monkeypatch) -> tuple[Counter[str], int]:
    """The reads of a training on "a GPU", and how often its meter looked."""
    looks: list[int] = []
    look = Meter.look
    monkeypatch.setattr(Meter, "look", lambda meter: (looks.append(1), look(meter)))
    monkeypatch.setattr(loop, "Meter", lambda _, *rest: Meter(torch.device("cuda"), *rest))
    config = TrainingConfig(images=STEPS * BATCH, batch_size=BATCH, log_images=10**9, ema_halflife_images=20)
    counter = ReadCounter()
    handles = (
        register_optimizer_step_pre_hook(counter.enter_optimizer),
        register_optimizer_step_post_hook(counter.leave_optimizer),
    )
    try:
        with counter:
            train(network, loss, batches, config, seed=0, purpose="test")
    finally:
        for handle in handles:
            handle.remove()
    return counter.reads, len(looks)


def batches(images_seen: int) -> Iterator[Batch]:
    for number in count(images_seen // BATCH):
        keys = [f"{number}-{row}" for row in range(BATCH)]
        yield {
            "x_0": torch.rand(BATCH, 3, 8, 8) * 2 - 1,
            "text": torch.randint(2, 20, (BATCH, 5)),
            "mask": torch.ones(BATCH, 5, dtype=torch.bool),
            "keys": keys,
            "epochs": [0] * BATCH,
        }


def network() -> DiT:
    torch.manual_seed(0)
    return DiT(
        DiTConfig(
            image_size=8, patch=4, width=16, depth=2, heads=2, vocabulary=20, text_length=8, second_time=True
        )
    )


def teacher_loss(_: DiT) -> LossFunction:
    return FlowLoss(FlowLossConfig(), DiffusionConfig(), NULL)


def student_loss(student: DiT, **settings: str) -> LossFunction:
    teacher = make_denoiser(copy.deepcopy(student), DiffusionConfig())
    return consistency_loss(ConsistencyConfig(**settings), teacher, NULL)


def mean_flow(student: DiT) -> LossFunction:
    teacher = make_denoiser(copy.deepcopy(student), DiffusionConfig())
    return mean_flow_loss(ConsistencyConfig(method="mean_flow"), teacher, NULL)


LOSSES = {
    "teacher": teacher_loss,
    "cd": student_loss,
    "ct": partial(student_loss, method="ct", curriculum="doubling"),
    "ratio": partial(student_loss, method="ct", curriculum="ratio"),
    "mean_flow": mean_flow,
}


@pytest.mark.parametrize("make_loss", LOSSES.values(), ids=LOSSES.keys())
def test_a_step_reads_nothing_and_the_losses_are_looked_at_twice(monkeypatch, make_loss):
    student = network()
    reads, looks = count_reads(student, make_loss(student), monkeypatch)
    assert reads == {}
    assert looks == 2  # after the first step, and at the only point


def test_matching_reads_nothing_either(monkeypatch):
    student, config = with_fake(network(), network()), ConsistencyConfig(matching={})
    teacher = make_denoiser(network(), DiffusionConfig())
    loss = matched_loss(consistency_loss(config, teacher, NULL), config, teacher, NULL)
    reads, _ = count_reads(student, loss, monkeypatch)
    assert reads == {}


def test_a_loss_that_reads_a_value_is_counted(monkeypatch):
    def reading(loss: LossFunction, wait: Callable[[torch.Tensor], object]) -> LossFunction:
        def wrapped(model: torch.nn.Module, batch: Batch, context: LossContext) -> Losses:
            losses = loss(model, batch, context)
            wait(losses.loss.detach())
            return losses

        return wrapped

    for wait in (float, bool, torch.Tensor.item, lambda loss: loss[loss > 0]):
        student = network()
        with monkeypatch.context() as patch:
            reads, _ = count_reads(student, reading(teacher_loss(student), wait), patch)
        assert reads.total() == STEPS
