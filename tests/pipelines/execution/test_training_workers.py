"""The train stage in two of Ray's workers: what a user has of it, and that a SIGKILL changes no byte.

Starting them takes long, so one run is everything at once: its driver is killed, then one of its workers.
"""

import json
import shutil
import subprocess
import sys
import time
from functools import partial
from itertools import islice
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from components.conditioning.autoencoder import PixelAutoencoder
from components.conditioning.convolutional_autoencoder import ConvolutionalAutoencoder
from components.conditioning.text import fit_text_encoder
from components.training.loss import Batch
from pipelines.errors import ConfigError, StageFailed
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.registry.mlflow_store import Tracker
from pipelines.stage import Input, fingerprint, run_stage
from pipelines.stages.learning.training_batches import captions
from pipelines.stages.train import STAGE, TrainConfig, _make_task
from pipelines.store.faults import FAULT_VARIABLE
from pipelines.store.receipts import Receipt
from tests.pipelines.stages.small_trainings import TEXT, contents, output, shards

# A command whose training no node has room for, or that Ctrl-C ends. What Ray does at times under a thread
# that waits within it, where it is shut down or Python takes itself down, this does every time.
WAITING = """
import atexit, os, signal, sys, threading, time, ray, typer
from pathlib import Path
from dags.cli import app
from pipelines.execution import room
from pipelines.execution.engine import Engine
from pipelines.execution.training_workers import train_together

atexit.register(os.abort)
ray.shutdown = lambda: os._exit(1)
room.LOOK_SECONDS, room.NO_PROGRESS_SECONDS = 0.1, float(sys.argv[2])
engine = Engine("local")
engine.start()
engine._embedded = False  # as a cluster, which may grow, and here does not

def interrupt():
    while "ray-train" not in {thread.name for thread in threading.enumerate()}:
        time.sleep(0.1)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)

commands = typer.Typer()

@commands.command()
def train():
    if sys.argv[1] == "Ctrl-C":
        threading.Thread(target=interrupt, daemon=True).start()
    scratch = Path(sys.argv[3])
    with engine:  # left before the line is printed, as a run leaves it
        train_together(engine, "train", print, workers=10_000, cpus=1, scratch=scratch, on_event=print)

app.build_app = lambda: commands
app.main([])
"""
BATCH, STEPS = 8, 48
TRAINING = {
    "images": STEPS * BATCH,
    "batch_size": BATCH,
    "checkpoint_images": 12 * BATCH,
    "log_images": 6 * BATCH,
    "ema_halflife_images": 30,
    "network": {"image_size": 32, "patch": 4, "width": 64, "depth": 2, "heads": 2},
    "text": TEXT,
    "upsampler": {"model": "none"},
    "workers": 2,
}


class CountingProgress(Progress):
    """Counts the images that were reported."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.done = 0

    def task(self, name, total, unit):
        from contextlib import nullcontext

        def advance(n: int = 1, note: str = "") -> None:
            self.done += n

        return nullcontext(advance)


def run_train(home: Path, engine: Engine, tracking: str, progress: Progress, **settings) -> Receipt:
    config = TrainConfig(**{**TRAINING, **settings})
    return run_stage(
        STAGE,
        config,
        {"shard": (shards(home.parent / "shards"),)},
        home=home,
        snapshot="default",
        engine=engine,
        progress=progress,
        tracking_uri=tracking,
    )


def checkpoints(home: Path) -> list[Path]:
    """Those that are whole."""
    return [path for path in home.glob("train/*/scratch/checkpoints/*") if path.name.isdigit()]


def drive(folder: str, tracking: str) -> None:
    """A driver: one run that nothing disturbs, and one that it will be killed in."""
    engine = Engine()
    for name in ("whole", "killed"):
        run_train(Path(folder) / name, engine, tracking, Progress(quiet=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What `drive` left behind when all its processes died after the second run's first checkpoint."""
    folder = tmp_path_factory.mktemp("together")
    script = (
        "import sys; from tests.pipelines.execution import test_training_workers as t; t.drive(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, str(folder), f"sqlite:///{folder}/mlflow.db"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    driver = subprocess.Popen(command, cwd=Path(__file__).parents[3], **streams)
    while driver.poll() is None and not checkpoints(folder / "killed"):
        time.sleep(0.01)
    assert driver.poll() is None, driver.communicate()[0][-3000:]
    workers = psutil.Process(driver.pid).children(recursive=True)
    for process in (driver, *workers):
        process.kill()
    assert driver.communicate()[0] == "", "Ray prints nothing on the terminal"
    shutil.copytree(folder / "killed", folder / "killed too")
    return folder


@pytest.fixture(scope="module")
def engine(monkeypatch_module) -> Engine:
    """A Ray whose workers die at the second checkpoint that they make."""
    monkeypatch_module.setenv(FAULT_VARIABLE, "train.checkpoint.before_rename:2")
    with Engine() as engine:
        engine.start()
        monkeypatch_module.delenv(FAULT_VARIABLE)
        yield engine


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def tracking(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.mark.faults
def test_driver_and_workers_killed_and_run_again_give_the_same_bytes(folder, engine):
    tracking, progress = f"sqlite:///{folder}/mlflow.db", CountingProgress()
    last = max(checkpoints(folder / "killed"))
    assert int(last.name) < TRAINING["images"]
    resumed = run_train(folder / "killed", engine, tracking, progress)
    whole = run_train(folder / "whole", engine, tracking, Progress(quiet=True))
    assert contents(folder / "killed", resumed) == contents(folder / "whole", whole)
    assert progress.done == TRAINING["images"] - int(last.name)
    assert resumed.info["images_per_second"] > 0

    tracker = Tracker(folder / "killed", tracking)
    history = tracker.client.get_metric_history(resumed.info["mlflow_run"], "loss")
    assert sorted(point.step for point in history) == [n * 6 * BATCH for n in range(1, 9)]
    left = {path.name for path in output(folder / "killed", resumed).iterdir()}
    assert left == {"model", "curve.json", "parts", "receipt.json"}
    assert not (Path.home() / "ray_results").exists()


@pytest.mark.faults
def test_one_process_goes_on_from_the_checkpoint_of_two(folder):
    progress = CountingProgress()
    last = max(checkpoints(folder / "killed too"))
    tracking = f"sqlite:///{folder}/mlflow.db"
    receipt = run_train(folder / "killed too", Engine(), tracking, progress, workers=1)
    assert progress.done == TRAINING["images"] - int(last.name)
    curve = json.loads((output(folder / "killed too", receipt) / "curve.json").read_text())
    assert [point["images_seen"] for point in curve] == [n * 6 * BATCH for n in range(1, 9)]


def test_two_workers_fit_the_autoencoder_of_one_and_in_shares_its_network(tmp_path, tracking, engine):
    """The same to rounding; then the same run finds them in their last checkpoints."""
    fit = {"images": 16 * BATCH, "batch_size": BATCH, "ema_halflife_images": 0, "precision": "no"}
    settings = {
        "images": 2 * BATCH,
        "autoencoder": {"model": "fit", "channels": 8, "widths": (4, 8, 8, 8), "training": fit},
        "network": {"image_size": 4, "channels": 8, "patch": 1, "width": 32, "depth": 1, "heads": 2},
    }
    weights = []
    for workers in (1, 2):
        home, progress = tmp_path / str(workers), CountingProgress()
        shares = {"workers": workers, "shard_weights": True}
        receipt = run_train(home, engine, tracking, progress, **shares, **settings)
        assert progress.done == 18 * BATCH
        model = output(home, receipt) / "model"
        weights.append(load_file(model / "autoencoder.safetensors") | load_file(model / "model.safetensors"))
    start = ConvolutionalAutoencoder(TrainConfig(**{**TRAINING, **settings}).autoencoder.card).state_dict()
    for name, one in weights[0].items():
        torch.testing.assert_close(weights[1][name], one, rtol=0, atol=1e-3)
        assert "norm" in name or name not in start or not torch.equal(one, start[name])


def test_where_the_workers_of_a_training_have_room_those_of_its_autoencoder_have():
    config = TrainConfig()
    assert config.autoencoder.training.cpu_threads <= config.cpu_threads


def test_a_diverged_fit_of_the_workers_is_one_line(tmp_path, tracking, engine):
    fit = {
        "images": 16 * BATCH,
        "batch_size": BATCH,
        "optimizer": {"learning_rate": 1e30, "warmup_images": 0},
    }
    with pytest.raises(StageFailed, match=r"^train\.autoencoder: training diverged at "):
        run_train(
            tmp_path / "home",
            engine,
            tracking,
            CountingProgress(),
            autoencoder={"model": "fit", "channels": 8, "widths": (4, 8, 8, 8), "training": fit},
            network={"image_size": 4, "channels": 8, "patch": 1, "width": 32, "depth": 1, "heads": 2},
        )


def test_a_diverged_training_is_one_line(tmp_path, tracking, engine):
    fast = {"learning_rate": 1e30, "warmup_images": 0}
    with pytest.raises(StageFailed) as caught:
        run_train(tmp_path / "home", engine, tracking, CountingProgress(), optimizer=fast, precision="no")
    assert str(caught.value).startswith("train: training diverged at ")
    assert "FloatingPointError" in caught.value.__notes__[0]


def test_more_workers_than_this_machine_has_room_for_is_one_line(tmp_path, tracking, engine):
    many = {"workers": 1024, "batch_size": 1024}
    with pytest.raises(ConfigError, match=r"train.workers: 1024 processes .* this machine; set fewer"):
        run_train(tmp_path / "home", engine, tracking, CountingProgress(), **many)
    with pytest.raises(ValueError, match="batch_size 8 cannot be shared by 3 workers evenly"):
        TrainConfig(**{**TRAINING, "workers": 3})


@pytest.mark.parametrize("samples", [36, 6], ids=["a set", "one that is smaller than a batch"])
@pytest.mark.parametrize("workers", [2, 4])
def test_the_workers_share_the_batches_of_one_process(tmp_path, samples, workers):
    """From wherever they go on; with their captions, and the keys and epochs that their noise is from."""
    given = shards(tmp_path, samples=samples)
    config, indexes = TrainConfig(**TRAINING), [given.path / "index.json"]
    encoder = fit_text_encoder(config.text, captions(indexes))
    make_task = partial(_make_task, config, indexes, None, None, encoder, PixelAutoencoder())
    for start in (0, 17 * BATCH):
        alone = make_task(0, 1).data(start)
        shares = [make_task(rank, workers).data(start) for rank in range(workers)]
        for whole, *parts in islice(zip(alone, *shares, strict=True), 20):
            assert {len(part["keys"]) for part in parts} == {BATCH // workers}
            assert sorted(row for part in parts for row in rows(part)) == sorted(rows(whole))
            assert len({(key, epoch) for key, epoch, *_ in rows(whole)}) == BATCH, "no noise comes twice"


def rows(batch: Batch) -> list[tuple]:
    """Each sample of a batch, without its padding."""
    return [
        (key, epoch, x.sum().item(), tuple(text[mask].tolist()))
        for key, epoch, x, text, mask in zip(
            batch["keys"], batch["epochs"], batch["x_0"], batch["text"], batch["mask"], strict=True
        )
    ]


def test_the_number_of_workers_is_no_part_of_what_an_output_depends_on():
    """So a run goes on with another number from the checkpoints that it has."""
    given = {"shard": (Input("shard", "/shards", "0" * 64),)}
    names = {
        fingerprint(STAGE, "default", TrainConfig(**{**TRAINING, **settings}), given)
        for settings in ({}, {"workers": 1}, {"workers": 4}, {"cache_mb": 0})
    }
    assert len(names) == 1
    assert fingerprint(STAGE, "default", TrainConfig(**{**TRAINING, "seed": 1}), given) not in names


@pytest.mark.parametrize(
    ("end", "patience", "status", "line"),
    [
        ("no room", 0.5, 1, "train.workers: the cluster has no room for 10000 processes of 1 CPU each"),
        ("Ctrl-C", 60, 130, "interrupted; the same command goes on from here"),
    ],
)
def test_a_command_that_leaves_ray_waiting_ends_without_what_ray_does_at_its_end(
    tmp_path, end, patience, status, line
):
    program = [sys.executable, "-c", WAITING, end, str(patience), str(tmp_path)]
    ended = subprocess.run(program, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == status, ended.stderr
    assert ended.stderr.startswith(f"straightshot: {line}")
