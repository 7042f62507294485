"""The one training loop. Annotators, teacher and student all pass through it; their losses are passed in.

Time is `images_seen`. Every step takes the batch at `images_seen` from the data and draws each sample's noise
from (seed, purpose, key, epoch), so a resumed run sees what an uninterrupted run would have, to the bit.
Several processes share each batch (processes.py): the same call in each, with its own share as `batches`.
Their number may change when a run is resumed; the result then is the same to rounding.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from components.malloc import keep_freed_memory
from components.precision import autocast, resolve_precision
from components.training.checkpoints import Checkpoints
from components.training.config import TrainingConfig
from components.training.curve import CurvePoint, Meter, StepReport
from components.training.ema import EMA, HalfLife, ramped_up
from components.training.loss import Batch, LossContext, Losses, LossFunction, on_device
from components.training.noise import SampleNoise
from components.training.optimizers import (
    build_optimizers,
    learning_rate_factor,
    set_learning_rate,
)
from components.training.processes import Processes, make_accelerator
from components.training.sharding import gathered, load_optimizer, load_weights
from components.training.utilisation import count_flops, peak_flops
from components.training.validation import Validation, named_values


@dataclass(frozen=True)
class Trained:
    """model: the trained weights; ema: their average (the same object when there is none)."""

    model: nn.Module
    ema: nn.Module
    curve: tuple[CurvePoint, ...]


Batches = Callable[[int], Iterator[Batch]]


def train(
    model: nn.Module,
    loss: LossFunction,
    batches: Batches,
    config: TrainingConfig,
    *,
    seed: int,
    purpose: str,
    target_halflife: HalfLife | None = None,
    accumulation: int = 1,
    sharded: bool = False,
    validation: Validation | None = None,
    utilisation: bool = False,
    checkpoints: Checkpoints | None = None,
    on_batch: Callable[[int, float], None] | None = None,
    on_point: Callable[[CurvePoint], None] | None = None,
) -> Trained:
    """Train `model` in place on `config.images` images.

    loss(model, batch, context) -> Losses, see loss.py; batches(images_seen) yields this process's share of
    the batches from there on, a mapping of tensors (moved to the device) and other things (left alone).
    target_halflife: of the average that the loss takes its targets from (context.target), if it does.
    accumulation: equal parts of this process's share of a batch that go through the model one by one.
    sharded: each of several processes keeps a share of the weights, and what is returned has shares, too; its
    last checkpoint is whole.
    validation: of the averaged model, whose values join those of the next point of the curve.
    utilisation: find out, before the first step, how much of the device's arithmetic the points stand for.
    on_batch(images, loss) is called after every step, with the latest loss that is known: on a CPU the
    step's, on a GPU one of up to curve.LOOK_STEPS steps before. on_point is called at every point of the
    curve. With several processes all losses are means over them; only the first process writes checkpoints,
    and all of them go on from the same one.
    Raises FloatingPointError, in every process, when a loss or gradient is not finite: on a CPU before the
    step's weights change, on a GPU up to LOOK_STEPS steps later, always before a point or a checkpoint.
    """
    keep_freed_memory()
    accelerator = make_accelerator()
    run = _Run(model, config, accelerator, target_halflife, accumulation, sharded)
    curve = run.restore(checkpoints)
    run.processes.agree_on(run.images_seen)
    with _cpu_threads(config.cpu_threads), _written(checkpoints):
        source = batches(run.images_seen)
        while run.images_seen < config.images:
            batch = on_device(next(source), accelerator.device)
            noise = SampleNoise.of(batch, seed, purpose, accelerator.device)
            if utilisation and run.flops_per_image is None:
                run.count_flops(loss, batch, noise)
            run.step(loss, batch, noise)
            if on_batch is not None:
                on_batch(config.batch_size, run.meter.loss)
            if run.crossed(config.log_images):
                last = curve[-1].images_seen if curve else 0
                curve.append(run.point(validation, last))
                if on_point is not None:
                    on_point(curve[-1])
            if checkpoints is not None and run.crossed(config.checkpoint_images):
                state = run.state(curve)  # of all processes together
                if accelerator.is_main_process:
                    checkpoints.save(run.images_seen, state)
    ema = run.ema.model if run.ema is not None else model
    return Trained(model=model.eval(), ema=ema, curve=tuple(curve))


@contextmanager
def _cpu_threads(count: int) -> Iterator[None]:
    """Compute with so many threads; afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _written(checkpoints: Checkpoints | None) -> Iterator[None]:
    """Afterwards, however it ends, no checkpoint is still being written."""
    try:
        yield
    finally:
        if checkpoints is not None:
            checkpoints.wait()


class _Run:
    """The live state of one training: what a checkpoint holds, and the step that changes it.

    model and ema are the networks themselves, whose state dicts have their own names; `wrapped` is the model
    as the losses call it (processes.py).
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        accelerator: Accelerator,
        target_halflife: HalfLife | None,
        accumulation: int,
        sharded: bool,
    ) -> None:
        self.config, self.accelerator, self.images_seen = config, accelerator, 0
        self.accumulation = accumulation
        self.flops_per_image: float | None = None
        self.processes = Processes(accelerator, sharded)
        self.precision = resolve_precision(config.precision, accelerator.device)
        self.meter = Meter(accelerator.device, config.batch_size)
        self.model = model.to(accelerator.device).train()
        # Every process averages, so that a loss may use the average: 1% of a step (measured, the demo's).
        halflife = config.ema_halflife_images
        self.ema = EMA(model, ramped_up(halflife)) if halflife else None
        self.target = EMA(model, target_halflife) if target_halflife is not None else None
        averages = [average.model for average in (self.ema, self.target) if average is not None]
        self.processes.shard([model, *averages])
        if config.compile:
            model.compile()
        self.wrapped, self.optimizers = self.processes.prepare(
            model, build_optimizers(model, config.optimizer)
        )

    def step(self, loss: LossFunction, batch: Batch, noise: SampleNoise) -> None:
        """One batch's change of the weights. Raises FloatingPointError as `train` says."""
        config = self.config
        factor = learning_rate_factor(self.images_seen, config.images, config.optimizer)
        set_learning_rate(self.optimizers, factor)
        losses = self.backward(loss, batch, self.context(noise))
        means = self.processes.average(self.model.parameters(), [*losses.metrics.values(), losses.loss])
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), config.optimizer.clip_norm)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        names, values = [*losses.metrics, "loss", "grad_norm"], torch.cat([means, norm.float()[None]])
        self.meter.add(StepReport(self.images_seen, factor, names, values))
        for optimizer in self.optimizers:
            self.processes.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.images_seen += config.batch_size
        for average in (self.ema, self.target):
            if average is not None:
                average.update(self.model, self.images_seen, config.batch_size)

    def context(self, noise: SampleNoise) -> LossContext:
        """Of the step at hand."""
        averaged = self.ema.model if self.ema is not None else None
        target = self.target.model if self.target is not None else None
        return LossContext(self.images_seen, self.config.images, averaged, noise, target)

    def count_flops(self, loss: LossFunction, batch: Batch, noise: SampleNoise) -> None:
        """Of one image, by a step's passes whose gradients are thrown away."""
        part, context = _split(batch, self.context(noise), self.accumulation)[0]

        def passes() -> None:
            with autocast(self.precision, self.accelerator.device):
                value = loss(self.model, part, context).loss
            value.backward()

        self.flops_per_image = count_flops(passes, compiled=self.config.compile) / len(context.noise.seeds)
        for parameter in self.model.parameters():
            parameter.grad = None
        self.meter.restart()

    def backward(self, loss: LossFunction, batch: Batch, context: LossContext) -> Losses:
        """The gradient of a batch, part by part; returns the mean of the parts' losses."""
        parts = _split(batch, context, self.accumulation)
        losses = []
        for number, (part, part_context) in enumerate(parts, start=1):
            with self.processes.accumulating(self.wrapped, last=number == len(parts)):
                with autocast(self.precision, self.accelerator.device):
                    of_part = loss(self.wrapped, part, part_context)
                self.accelerator.backward(of_part.loss / len(parts))
            metrics = {name: metric.detach() for name, metric in of_part.metrics.items()}
            losses.append(Losses(of_part.loss.detach(), metrics))
        if len(losses) == 1:
            return losses[0]
        means = {name: torch.stack([one.metrics[name] for one in losses]).mean() for name in metrics}
        return Losses(torch.stack([one.loss for one in losses]).mean(), means)

    def crossed(self, every: int) -> bool:
        """Whether the last step crossed a multiple of `every` images, or ended the run."""
        before = self.images_seen - self.config.batch_size
        return self.images_seen // every > before // every or self.images_seen >= self.config.images

    def point(self, validation: Validation | None, last: int) -> CurvePoint:
        """The next point of the curve, `last` images having been seen at the one before."""
        point = self.meter.point(self.images_seen)
        if self.flops_per_image is not None:
            device, threads = self.accelerator.device, self.config.cpu_threads
            peak = self.processes.world_size * peak_flops(device, self.precision, threads)
            point = replace(point, mfu=point.images_per_second * self.flops_per_image / peak)
        if validation is None:
            return point
        due = self.images_seen // validation.every > last // validation.every
        if not due and self.images_seen < self.config.images:
            return point
        network = self.ema.model if self.ema is not None else self.model
        losses = self.processes.average((), list(validation(network, self.accelerator.device))).tolist()
        self.meter.restart()
        return replace(point, values={**point.values, **named_values(losses)})

    def state(self, curve: list[CurvePoint]) -> dict[str, Any]:
        """What a checkpoint holds; shares are whole in the first process only.

        Raises FloatingPointError where a step before it diverged.
        """
        self.meter.look()
        for optimizer in self.optimizers:
            self.processes.gather_state(optimizer)
        state = {
            "images_seen": self.images_seen,
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict() if self.ema is not None else {},
            "target": self.target.model.state_dict() if self.target is not None else {},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "curve": [(point.images_seen, point.values) for point in curve],
            "meter": (self.meter.sums, self.meter.steps),
        }
        return gathered(state, keep=self.accelerator.is_main_process)

    def restore(self, checkpoints: Checkpoints | None) -> list[CurvePoint]:
        """Go on from the newest checkpoint, if there is one; returns the curve so far."""
        state = checkpoints.latest() if checkpoints is not None else None
        if state is None:
            return []
        self.images_seen = state["images_seen"]
        load_weights(self.model, state["model"])
        if self.ema is not None:
            load_weights(self.ema.model, state["ema"])
        if self.target is not None:
            load_weights(self.target.model, state["target"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            load_optimizer(optimizer, saved)
        self.meter = Meter(self.accelerator.device, self.config.batch_size, *state["meter"])
        return [CurvePoint(images, values) for images, values in state["curve"]]


def _split(batch: Batch, context: LossContext, parts: int) -> list[tuple[Batch, LossContext]]:
    """A batch in equal parts, each with its samples' noise."""
    if parts == 1:
        return [(batch, context)]
    seeds = context.noise.seeds
    size = len(seeds) // parts
    assert size * parts == len(seeds), f"{len(seeds)} samples do not split into {parts} parts"
    return [
        (
            {name: value[at : at + size] for name, value in batch.items()},
            replace(context, noise=replace(context.noise, seeds=seeds[at : at + size])),
        )
        for at in range(0, len(seeds), size)
    ]
