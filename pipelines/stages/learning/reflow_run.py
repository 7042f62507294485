"""Reflow: the initial model's own pairs of noise and image, drawn once, and what training on them gained.

Imports torch, so the stage imports it when it runs.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.conditioning.text import TextEncoder
from components.diffusion.denoiser import ConditionedDenoiser, conditioned
from components.diffusion.dit import DiT
from components.diffusion.guidance import guided
from components.diffusion.samplers import euler
from components.diffusion.times import even_times
from components.distillation.couplings import Couplings, coupling_noise, straightness
from components.generation.model_folder import Model
from components.image_size import ImageSize
from components.training.loss import Batch
from pipelines.errors import ConfigError
from pipelines.stage import SCRATCH, Work
from pipelines.stages.learning.training_batches import caption_loader
from pipelines.store.parts import Parts

FOLDER = f"{SCRATCH}/couplings"
PAIRS_OF_A_PART = 512
BATCH = 64  # pairs that are drawn together: their last bits depend on it
STRAIGHTNESS_PAIRS = 256  # that it is measured on, at most
ENDS, CAPTIONS = "x_0.safetensors", "captions.json"


def draw_couplings(work: Work, teacher: Model, shards: Sequence[Path]) -> Path:
    """Draw the pairs that the config asks for; a killed run goes on where it was. Returns their folder.

    The captions are those that a training of the shards would see first. Raises ConfigError for a student,
    which has no flow to follow, and for shards of several sizes.
    """
    if teacher.card.is_student:
        raise ConfigError("train.reflow goes on from a flow, and the model of train.init is a student")
    config, parts = work.config, work.parts.within(FOLDER)
    loader = caption_loader(shards, config, teacher.image_size, 0, 1)
    if loader.sizes != (square := ImageSize.square(teacher.image_size),):
        sizes = ", ".join(map(str, loader.sizes))
        raise ConfigError(
            f"train.reflow draws images of {square}, and the shards have buckets of {sizes}; make shards"
            " without shard.buckets for it"
        )
    seen = chain.from_iterable(batch.captions for batch in loader.batches(0))
    captions = list(islice(seen, config.reflow.pairs))
    with work.progress.task("couplings", len(captions), "pairs") as advance:
        for first in range(0, len(captions), PAIRS_OF_A_PART):
            of_part = captions[first : first + PAIRS_OF_A_PART]
            _draw_part(parts, teacher, config, first, of_part)
            advance(len(of_part))
    return parts.root / FOLDER


def coupled_batches(
    pairs: Path, config: Any, encoder: TextEncoder, images_seen: int, rank: int, world_size: int
) -> Iterator[Batch]:
    """One process's share of the batches of pairs; see FlowLoss."""
    device = PartialState().device
    return _read(pairs, config.seed).batches(
        encoder.to(device),
        images_seen,
        batch_size=config.batch_size,
        rank=rank,
        world_size=world_size,
        device=device,
    )


def straightness_of(before: Model, after: DiT, config: Any, pairs: Path) -> dict[str, float]:
    """Of the initial model's paths, as the pairs were drawn, and of the trained network's."""
    couplings = _read(pairs, config.seed)
    rows = range(min(len(couplings.captions), STRAIGHTNESS_PAIRS))
    start, captions = couplings.eps(rows), [couplings.captions[row] for row in rows]
    steps = config.reflow.steps or before.card.steps
    drawn = _guided(before, config, captions)
    device = next(after.parameters()).device
    trained = before.denoiser.with_network(after)
    text = before.encoder.to(device)(captions)
    with torch.no_grad():
        return {
            "before": round(float(straightness(drawn, start, steps).mean()), 5),
            "after": round(
                float(straightness(conditioned(trained, text), start.to(device), steps).mean()), 5
            ),
        }


def _draw_part(parts: Parts, teacher: Model, config: Any, first: int, captions: Sequence[str]) -> None:
    name = f"part-{first // PAIRS_OF_A_PART:05d}"
    if parts.finished(name) is not None:
        return
    dit, steps = teacher.card.dit, config.reflow.steps or teacher.card.steps
    shape = (dit.channels, dit.image_size, dit.image_size)
    ends: list[Tensor] = []
    for at in range(0, len(captions), BATCH):
        texts = captions[at : at + BATCH]
        rows = range(first + at, first + at + len(texts))
        start = coupling_noise(config.seed, rows, shape)
        with torch.no_grad():
            ends.append(euler(_guided(teacher, config, texts), start, even_times(steps)))
    x_0 = torch.cat(ends)
    parts.write(
        name,
        {
            f"{name}/{ENDS}": lambda path: save_file({"x_0": x_0}, path),
            f"{name}/{CAPTIONS}": lambda path: path.write_text(json.dumps(list(captions)), encoding="utf-8"),
        },
    )


def _guided(teacher: Model, config: Any, captions: Sequence[str]) -> ConditionedDenoiser:
    """The initial model on these captions, guided as the pairs are drawn."""
    scale = config.reflow.guidance or teacher.card.guidance or 1.0
    return guided(teacher.denoiser, teacher.encoder(captions), teacher.encoder([""]), scale)


def _read(pairs: Path, seed: int) -> Couplings:
    folders = sorted(path for path in pairs.glob("part-*") if path.is_dir())
    ends = [load_file(folder / ENDS)["x_0"] for folder in folders]
    captions = [json.loads((folder / CAPTIONS).read_text(encoding="utf-8")) for folder in folders]
    return Couplings(torch.cat(ends), list(chain.from_iterable(captions)), seed)
