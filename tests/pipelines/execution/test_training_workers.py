"""The train stage in two of Ray's workers: what a user has of it, and that a SIGKILL changes no byte.

Starting them takes long, so one run is everything at once: its driver is killed, then one of its workers.
"""

import subprocess
import sys
import time
from functools import partial
from itertools import islice
from pathlib import Path

import psutil
import pytest
import torch

from components.conditioning.text import fit_text_encoder
from pipelines.errors import ConfigError, StageFailed
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.registry.mlflow_store import Tracker
from pipelines.stage import run_stage
from pipelines.stages.train import STAGE, TrainConfig, _make_task
from pipelines.stages.training_run import captions
from pipelines.store.faults import FAULT_VARIABLE
from pipelines.store.receipts import Receipt
from tests.pipelines.stages.test_train import TEXT, contents, output, shards

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


class Heard(Progress):
    """A progress that remembers how far it was."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.done = 0

    def task(self, name, total, unit):
        from contextlib import nullcontext

        def advance(n: int = 1, note: str = "") -> None:
            self.done += n

        return nullcontext(advance)


def run_train(home: Path, engine: Engine, tracking: str, progress: Progress, **settings) -> Receipt:
    given = shards(home.parent / "shards")
    config = TrainConfig(**{**TRAINING, **settings})
    return run_stage(
        STAGE,
        config,
        {"shard": (given,)},
        home=home,
        snapshot="default",
        engine=engine,
        progress=progress,
        tracking_uri=tracking,
    )


def checkpoints(home: Path) -> list[Path]:
    """Those that are whole."""
    found = home.glob("train/*/scratch/checkpoints/*")
    return [path for path in found if path.name.isdigit()]


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
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    driver = subprocess.Popen(command, cwd=Path(__file__).parents[3], **told)
    while driver.poll() is None and not checkpoints(folder / "killed"):
        time.sleep(0.01)
    assert driver.poll() is None, driver.communicate()[0][-3000:]
    workers = psutil.Process(driver.pid).children(recursive=True)
    for process in (driver, *workers):
        process.kill()
    assert driver.communicate()[0] == "", "Ray prints nothing on the terminal"
    return folder


@pytest.fixture(scope="module")
def engine(monkeypatch_module) -> Engine:
    """A Ray whose workers die at the second checkpoint that they make."""
    monkeypatch_module.setenv(FAULT_VARIABLE, "train.checkpoint.before_rename:2")
    engine = Engine()
    engine.start()
    monkeypatch_module.delenv(FAULT_VARIABLE)
    yield engine
    engine.shutdown()


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_driver_and_workers_killed_and_run_again_give_the_same_bytes(folder, engine):
    tracking, progress = f"sqlite:///{folder}/mlflow.db", Heard()
    begun = max(checkpoints(folder / "killed"))
    assert int(begun.name) < TRAINING["images"]
    resumed = run_train(folder / "killed", engine, tracking, progress)
    whole = run_train(folder / "whole", engine, tracking, Progress(quiet=True))
    assert contents(folder / "killed", resumed) == contents(folder / "whole", whole)
    assert progress.done == TRAINING["images"] - int(begun.name)
    assert resumed.info["images_per_second"] > 0

    tracker = Tracker(folder / "killed", tracking)
    history = tracker.client.get_metric_history(resumed.info["mlflow_run"], "loss")
    assert sorted(point.step for point in history) == [n * 6 * BATCH for n in range(1, 9)]
    left = {path.name for path in output(folder / "killed", resumed).iterdir()}
    assert left == {"model", "curve.json", "parts", "receipt.json"}
    assert not (Path.home() / "ray_results").exists()


def test_a_diverged_training_is_one_line(tmp_path, folder, engine):
    fast = {"learning_rate": 1e30, "warmup_images": 0}
    tracking = f"sqlite:///{folder}/mlflow.db"
    with pytest.raises(StageFailed) as caught:
        run_train(tmp_path / "home", engine, tracking, Heard(), optimizer=fast, precision="no")
    assert str(caught.value).startswith("train: training diverged at ")
    assert "FloatingPointError" in caught.value.__notes__[0]


def test_more_workers_than_this_machine_has_room_for_is_one_line(tmp_path, folder, engine):
    many = {"workers": 1024, "batch_size": 1024}
    with pytest.raises(ConfigError, match=r"train.workers: 1024 processes .* this machine; set fewer"):
        run_train(tmp_path / "home", engine, f"sqlite:///{folder}/mlflow.db", Heard(), **many)
    with pytest.raises(ValueError, match="batch_size 8 cannot be shared by 3 workers evenly"):
        TrainConfig(**{**TRAINING, "workers": 3})


def test_the_workers_share_the_batches_of_one_process(tmp_path):
    given = shards(tmp_path)
    config, indexes = TrainConfig(**TRAINING), [given.path / "index.json"]
    encoder = fit_text_encoder(config.text, captions(indexes))
    taught = partial(_make_task, config, indexes, encoder)
    alone, *ranks = (islice(taught(*who).data(0), 20) for who in ((0, 1), (0, 2), (1, 2)))
    for whole, first, second in zip(alone, *ranks, strict=True):
        halves = [rows(first), rows(second)]
        assert [len(half) for half in halves] == [BATCH // 2] * 2
        assert sorted(halves[0] + halves[1]) == sorted(rows(whole))


def rows(batch: dict[str, torch.Tensor]) -> list[tuple]:
    """Each sample of a batch, without its padding."""
    return [
        (x.sum().item(), tuple(text[mask].tolist()))
        for x, text, mask in zip(batch["x_0"], batch["text"], batch["mask"], strict=True)
    ]
