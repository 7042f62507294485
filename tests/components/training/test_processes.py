"""Real processes on one training: the same weights as one process has, samples shared, errors shared.

Everything that needs several processes is done once, under gloo, in those that Accelerate finds itself in:
first in two, then in four that go on from the checkpoint of the two.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from functools import partial
from itertools import count, islice, product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import nn

from components.training import processes
from components.training.checkpoints import Checkpoints
from components.training.config import OptimizerConfig, TrainingConfig
from components.training.loop import Trained, train
from components.training.loss import Batch, LossContext, Losses
from components.training.processes import GradientAveraging, choose_averaging
from components.training.sharding import gathered
from tests.forks import FORKS, imported_once

imported_once("accelerate", "torch._dynamo")

BATCH = 8
CONFIG = TrainingConfig(
    images=12 * BATCH,
    batch_size=BATCH,
    optimizer=OptimizerConfig(learning_rate=1e-2, muon_learning_rate=1e-2, warmup_images=20),
    ema_halflife_images=50,
    checkpoint_images=3 * BATCH,
    log_images=5 * BATCH,
    precision="no",
)
CONFIGS = {
    "AdamW": CONFIG.model_copy(
        update={"optimizer": CONFIG.optimizer.model_copy(update={"muon_learning_rate": 0})}
    ),
    "Muon": CONFIG,
}
# The largest difference of a weight (all are below 0.6) after 12 steps, where sums over a batch are taken in
# another order. Measured with 12 seeds and 2 and 4 processes: 6e-8 without Muon; with it 6e-8, too, but 4e-3
# where a last bit turned a rounding of its iterations, which are done in bfloat16. Another noise: 2e-2.
ROUNDING = {"AdamW": 1e-6, "Muon": 1e-2}


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


def batches(images_seen: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
    """This rank's rows of every batch."""
    mine = slice(rank, None, world_size)
    for number in count(images_seen // BATCH):
        x = torch.randn(BATCH, 4, generator=torch.Generator().manual_seed(number))[mine]
        keys = [f"{number}-{row}" for row in range(BATCH)][mine]
        yield {"x": x, "y": x.flip(1)[:, :3], "keys": keys, "epochs": [0] * len(keys)}


def loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
    """Denoises; some of the inputs are left out, as captions are."""
    noise = context.noise.normal("x", batch["x"].shape[1:])
    keep = context.noise.uniform("dropout") >= 0.1
    error = (model((batch["x"] + 0.1 * noise) * keep[:, None]) - batch["y"]).square().mean()
    return Losses(error, {"first": batch["x"][0, 0]})


def fit(
    rank: int,
    world_size: int,
    checkpoints: Path | None = None,
    steps: int | None = None,
    *,
    optimizer: str = "Muon",
    **more: Any,
) -> Trained:
    torch.manual_seed(0)
    settings = {"loss": loss, "seed": 3, "purpose": "test", **more}
    return train(
        Net(),
        settings.pop("loss"),
        lambda seen: islice(batches(seen, rank, world_size), steps),
        CONFIGS[optimizer],
        checkpoints=Checkpoints(checkpoints) if checkpoints else None,
        **settings,
    )


def tensors(trained: Trained) -> tuple[dict, dict, tuple]:
    return trained.model.state_dict(), trained.ema.state_dict(), trained.curve


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def two(folder) -> list[dict]:
    """What the functions below returned in each of two processes."""
    works = (learns, learns_undisturbed, learns_under_ddp, learns_in_shares, diverges, starts_apart, stops)
    return spawn(2, folder / "two", works)


@pytest.fixture(scope="module")
def four(folder, two) -> list[dict]:
    """The same of four processes, which find the checkpoint that the two left in `stops`."""
    shutil.copytree(folder / "two" / "stops", folder / "four" / "goes_on")
    return spawn(4, folder / "four", (learns_undisturbed, goes_on))


def spawn(world_size: int, folder: Path, works: tuple) -> list[dict]:
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (world_size, folder, port, works)
    torch.multiprocessing.start_processes(
        _enter, arguments, world_size, start_method=FORKS.get_start_method()
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world_size)]


def _enter(rank: int, world_size: int, folder: Path, port: int, works: tuple) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    os.environ.update({name: str(value) for name, value in {**ranks, **where, "OMP_NUM_THREADS": 1}.items()})
    fit_here = partial(fit, rank, world_size)
    done = {work.__name__: work(fit_here, folder / work.__name__, rank) for work in works}
    torch.save(done, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def learns(fit: Any, folder: Path, rank: int) -> dict:
    """A training that nothing disturbed, and one whose processes ran out of batches and began again."""
    whole, steps = fit(), []
    with pytest.raises(StopIteration):
        fit(folder, steps=8)
    torch.distributed.barrier()  # as the death of a process would, it ends both attempts
    resumed = fit(folder, on_batch=lambda images, value: steps.append(value))
    left = [path.name for path in folder.iterdir()]
    return {"whole": tensors(whole), "resumed": tensors(resumed), "steps": len(steps), "left": left}


def learns_undisturbed(fit: Any, folder: Path, rank: int) -> dict:
    return {optimizer: tensors(fit(optimizer=optimizer)) for optimizer in CONFIGS}


def learns_under_ddp(fit: Any, folder: Path, rank: int) -> tuple:
    """As on GPUs: Accelerate wraps the model, and the loss calls what it wrapped."""

    def wrapped_loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
        assert isinstance(model, nn.parallel.DistributedDataParallel)
        assert isinstance(context.ema, Net)
        with torch.no_grad():
            model(batch["x"])  # as for the target of a consistency loss
        return loss(model, batch, context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "choose_averaging", lambda *_: GradientAveraging.DDP)
        with pytest.raises(StopIteration):
            fit(folder, steps=8, loss=wrapped_loss)
        torch.distributed.barrier()
        return tensors(fit(folder, loss=wrapped_loss))


def learns_in_shares(fit: Any, folder: Path, rank: int) -> dict:
    """Each process keeps a share of the weights; one goes on from a checkpoint, its batches in parts."""
    held: list[int] = []

    def counting_loss(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
        held.append(sum(p.to_local().numel() for p in (*model.parameters(), *context.ema.parameters())))
        with torch.no_grad():
            context.ema(batch["x"])  # as for the target of a consistency loss
        return loss(model, batch, context)

    results = {name: tensors(fit(optimizer=name, sharded=True, loss=counting_loss)) for name in CONFIGS}
    with pytest.raises(StopIteration):
        fit(folder, steps=8, sharded=True)
    torch.distributed.barrier()
    left = shutil.copytree(folder, folder.with_name(f"left to {rank}"))
    results["in parts"] = tensors(fit(folder, sharded=True, accumulation=2, loss=counting_loss))
    return {"held": set(held), "left": left.name, **gathered(results)}


def diverges(fit: Any, folder: Path, rank: int) -> str:
    """What each raises when only one process's loss is not a number."""

    def bad(model: nn.Module, batch: Batch, context: LossContext) -> Losses:
        good = loss(model, batch, context).loss
        return Losses(good * torch.nan if rank == 1 else good)

    with pytest.raises(FloatingPointError) as caught:
        fit(loss=bad)
    return str(caught.value)


def starts_apart(fit: Any, folder: Path, rank: int) -> str:
    """What each raises when only the first finds the checkpoints: each has a folder of its own."""
    with pytest.raises(StopIteration):
        fit(folder / str(rank), steps=4)
    torch.distributed.barrier()
    with pytest.raises(RuntimeError) as caught:
        fit(folder / str(rank))
    return str(caught.value)


def stops(fit: Any, folder: Path, rank: int) -> None:
    """Leaves a checkpoint at six of the twelve batches."""
    for optimizer in CONFIGS:
        with pytest.raises(StopIteration):
            fit(folder / optimizer, steps=8, optimizer=optimizer)


def goes_on(fit: Any, folder: Path, rank: int) -> dict:
    return {optimizer: goes_on_with(optimizer, fit, folder) for optimizer in CONFIGS}


def goes_on_with(optimizer: str, fit: Any, folder: Path) -> tuple:
    steps: list[int] = []
    trained = fit(
        folder / optimizer, optimizer=optimizer, on_batch=lambda images, value: steps.append(images)
    )
    assert steps == [BATCH] * 6
    return tensors(trained)


def assert_same_but_rounding(result: tuple, expected: tuple, optimizer: str) -> None:
    bound = ROUNDING[optimizer]
    for weights, theirs in zip(result[:2], expected[:2], strict=True):  # the model's, then its average's
        assert weights.keys() == theirs.keys()
        for name, tensor in theirs.items():
            torch.testing.assert_close(weights[name], tensor, atol=bound, rtol=0)
    for point, its in zip(result[2], expected[2], strict=True):
        assert point.images_seen == its.images_seen
        for name in ("loss", "grad_norm", "learning_rate"):
            assert point.values[name] == pytest.approx(its.values[name], rel=bound)


@pytest.fixture(scope="module")
def alone() -> dict:
    """One process's trainings, undisturbed."""
    return {optimizer: tensors(fit(0, 1, optimizer=optimizer)) for optimizer in CONFIGS}


@pytest.mark.parametrize("optimizer", CONFIGS)
def test_two_and_four_processes_learn_what_one_does(two, four, alone, optimizer):
    for result in (*two, *four):
        assert_same_but_rounding(result["learns_undisturbed"][optimizer], alone[optimizer], optimizer)


@pytest.mark.parametrize("optimizer", CONFIGS)
def test_one_process_and_four_go_on_from_the_checkpoint_of_two(folder, two, four, alone, optimizer):
    for result in four:
        assert_same_but_rounding(result["goes_on"][optimizer], alone[optimizer], optimizer)
    shutil.copytree(folder / "two" / "stops" / optimizer, folder / "one" / optimizer)
    resumed = goes_on_with(optimizer, partial(fit, 0, 1), folder / "one")
    assert_same_but_rounding(resumed, alone[optimizer], optimizer)


@pytest.mark.parametrize("optimizer", CONFIGS)
def test_another_noise_makes_more_of_a_difference_than_rounding(alone, optimizer):
    other, _, _ = tensors(fit(0, 1, optimizer=optimizer, seed=4))
    largest = max((other[name] - tensor).abs().max() for name, tensor in alone[optimizer][0].items())
    assert largest > 1.5 * ROUNDING[optimizer]


def test_all_hold_the_same_weights_and_curve_resumed_or_not(two, four):
    first, second = (result["learns"] for result in two)
    assert first["steps"] == second["steps"] == 12 - 6  # from the last checkpoint, at six batches
    assert first["left"] == [f"{12 * BATCH:012d}"]
    for result in (first["resumed"], second["whole"], second["resumed"]):
        assert_identical(result, first["whole"])
    for results, name in ((two, "learns_undisturbed"), (four, "learns_undisturbed"), (four, "goes_on")):
        for result, optimizer in product(results[1:], CONFIGS):
            assert_identical(result[name][optimizer], results[0][name][optimizer])


def assert_identical(result: tuple, expected: tuple) -> None:
    for weights, theirs in zip(result[:2], expected[:2], strict=True):
        assert all(torch.equal(weights[name], tensor) for name, tensor in theirs.items())
    assert result[2] == expected[2]


def test_under_ddp_the_result_is_the_same_and_its_names_are_the_network_s(two, alone):
    for result in two:
        assert_same_but_rounding(result["learns_under_ddp"], alone["Muon"], "Muon")
        assert list(result["learns_under_ddp"][0]) == list(Net().state_dict())


@pytest.mark.parametrize("optimizer", [*CONFIGS, "in parts"])
def test_in_shares_the_result_is_the_same_and_each_process_holds_half(two, alone, optimizer):
    expected = optimizer if optimizer in CONFIGS else "Muon"
    for result in (one["learns_in_shares"] for one in two):
        assert_same_but_rounding(result[optimizer], alone[expected], expected)
        assert_identical(result[optimizer], two[0]["learns_in_shares"][optimizer])
    parameters = sum(p.numel() for p in Net().parameters())
    (first,), (second,) = (one["learns_in_shares"]["held"] for one in two)
    assert first + second == 2 * parameters  # of the model and its average
    assert max(first, second) < 1.1 * parameters


def test_one_process_goes_on_from_a_checkpoint_of_shares(folder, two, alone):
    left = folder / "two" / two[0]["learns_in_shares"]["left"]
    steps: list[int] = []
    resumed = tensors(fit(0, 1, left, on_batch=lambda images, value: steps.append(images)))
    assert steps == [BATCH] * 6
    assert_same_but_rounding(resumed, alone["Muon"], "Muon")


def test_ddp_averages_on_gpus_and_the_flat_all_reduce_on_cpus():
    choices = {
        (device, size): choose_averaging(device, size) for device in ("cpu", "cuda") for size in (1, 2, 8)
    }
    assert choices == {
        ("cpu", 1): GradientAveraging.NOBODY,
        ("cpu", 2): GradientAveraging.FLAT,
        ("cpu", 8): GradientAveraging.FLAT,
        ("cuda", 1): GradientAveraging.NOBODY,
        ("cuda", 2): GradientAveraging.DDP,
        ("cuda", 8): GradientAveraging.DDP,
    }
    asked = {(device, size): choose_averaging(device, size, sharded=True) for device, size in choices}
    assert asked == {
        (device, size): GradientAveraging.SHARDS if size > 1 else GradientAveraging.NOBODY
        for device, size in choices
    }


def test_one_process_that_diverges_stops_all_with_one_message(two):
    (message,) = {result["diverges"] for result in two}
    assert message.startswith("training diverged at 0 images (loss nan")


def test_processes_that_find_different_checkpoints_do_not_start(two):
    assert all("different checkpoints ([0, 24] images)" in result["starts_apart"] for result in two)
