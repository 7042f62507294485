"""Two real processes on one training: the same weights as one process has, samples shared, errors shared.

Everything that needs two processes is done once, under gloo, in two that Accelerate finds itself in.
"""

import os
import socket
from itertools import count, islice
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import nn

from components.training.checkpoints import Checkpoints
from components.training.config import OptimizerConfig, TrainingConfig
from components.training.loop import Losses, Trained, train

BATCH, WORLD = 8, 2
CONFIG = TrainingConfig(
    images=12 * BATCH,
    batch_size=BATCH,
    optimizer=OptimizerConfig(learning_rate=1e-2, muon_learning_rate=1e-2, warmup_images=20),
    ema_halflife_images=50,
    checkpoint_images=3 * BATCH,
    log_images=5 * BATCH,
    precision="no",
)


class Net(nn.Module):
    """Matrices of two sizes for Muon, and biases for AdamW."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 8)])
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.out(x)


def batches(images_seen: int, rank: int = 0, world_size: int = 1):
    """This rank's rows of every batch."""
    for number in count(images_seen // BATCH):
        x = torch.randn(BATCH, 4, generator=torch.Generator().manual_seed(number))
        yield {"x": x[rank::world_size], "y": x[rank::world_size].flip(1)[:, :3]}


def loss(model: nn.Module, batch: dict, generator: torch.Generator) -> Losses:
    """Nothing is drawn, so the two halves of a batch are worth the whole."""
    error = (model(batch["x"]) - batch["y"]).square().mean()
    return Losses(error, {"first": batch["x"][0, 0]})


def fit(
    rank: int, world_size: int, checkpoints: Path | None = None, steps: int | None = None, **more
) -> Trained:
    torch.manual_seed(0)
    return train(
        Net(),
        more.pop("loss", loss),
        lambda seen: islice(batches(seen, rank, world_size), steps),
        CONFIG,
        seed=3,
        purpose="test",
        checkpoints=Checkpoints(checkpoints) if checkpoints else None,
        **more,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    """What the functions below returned in each of two processes."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_enter, (folder, port), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


def _enter(rank: int, folder: Path, port: int) -> None:
    found = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    os.environ.update({name: str(value) for name, value in {**found, **where, "OMP_NUM_THREADS": 1}.items()})
    done = {work.__name__: work(rank, folder / work.__name__) for work in (learnt, diverged, apart)}
    torch.save(done, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def learnt(rank: int, folder: Path) -> dict:
    """A training that nothing disturbed, and one whose processes ran out of batches and began again."""
    whole, steps = fit(rank, WORLD), []
    with pytest.raises(StopIteration):
        fit(rank, WORLD, folder, steps=8)
    torch.distributed.barrier()  # as the death of a process would, it ends both attempts
    resumed = fit(rank, WORLD, folder, on_batch=lambda images, value: steps.append(value))
    names = ("whole", "resumed")
    found = {
        name: (trained.model.state_dict(), trained.ema.state_dict(), trained.curve)
        for name, trained in zip(names, (whole, resumed), strict=True)
    }
    return {**found, "steps": len(steps), "left": [path.name for path in folder.iterdir()]}


def diverged(rank: int, folder: Path) -> str:
    """What each says when only one process's loss is not a number."""

    def bad(model: nn.Module, batch: dict, generator: torch.Generator) -> Losses:
        good = loss(model, batch, generator).loss
        return Losses(good * torch.nan if rank == 1 else good)

    with pytest.raises(FloatingPointError) as caught:
        fit(rank, WORLD, loss=bad)
    return str(caught.value)


def apart(rank: int, folder: Path) -> str:
    """What each says when only the first finds the checkpoints: each has a folder of its own."""
    with pytest.raises(StopIteration):
        fit(rank, WORLD, folder / str(rank), steps=4)
    torch.distributed.barrier()
    with pytest.raises(RuntimeError) as caught:
        fit(rank, WORLD, folder / str(rank))
    return str(caught.value)


def test_two_processes_learn_what_one_does(results):
    alone = fit(0, 1)
    model, ema, curve = results[0]["learnt"]["whole"]
    for name, tensor in alone.model.state_dict().items():
        torch.testing.assert_close(model[name], tensor, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ema[name], alone.ema.state_dict()[name], atol=1e-5, rtol=1e-5)
    for point, lone in zip(curve, alone.curve, strict=True):
        assert point.images_seen == lone.images_seen
        for name in ("loss", "grad_norm", "learning_rate"):
            assert point.values[name] == pytest.approx(lone.values[name], rel=1e-4)


def test_both_hold_the_same_weights_and_curve_resumed_or_not(results):
    first, second = (result["learnt"] for result in results)
    assert first["steps"] == second["steps"] == 12 - 6  # from the last checkpoint, at six batches
    assert first["left"] == [f"{12 * BATCH:012d}"]
    model, ema, curve = first["whole"]
    for found in (first["resumed"], second["whole"], second["resumed"]):
        assert all(torch.equal(found[0][name], tensor) for name, tensor in model.items())
        assert found[2] == curve
    assert all(torch.equal(first["resumed"][1][name], tensor) for name, tensor in ema.items())


def test_one_process_that_diverges_stops_all_with_one_message(results):
    told = {result["diverged"] for result in results}
    assert len(told) == 1
    assert told.pop().startswith("training diverged at 0 images (loss nan")


def test_processes_that_find_different_checkpoints_do_not_start(results):
    assert all("different checkpoints ([0, 24] images)" in result["apart"] for result in results)
