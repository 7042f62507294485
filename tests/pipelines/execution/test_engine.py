"""The engine: tasks through a pool of workers, in order, whoever dies on the way."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from components.errors import InputError
from pipelines.errors import ConfigError, StageFailed, UnexpectedError
from pipelines.execution import room
from pipelines.execution.engine import Engine
from pipelines.execution.parallel_jobs import Job, run_together
from pipelines.execution.part_pool import WORKER_RESTARTS
from pipelines.store.receipts import Counts, PartReceipt

# What Ray does at times while Python takes itself down is what this does every time.
LOST_HEAD = """
import atexit, os, sys, threading, time
from pathlib import Path
from pipelines.errors import HeadLost
from pipelines.execution import engine, training_workers

lost = threading.Event()

class Head:
    def watch(self):
        return lambda: "the head is lost" if lost.is_set() else None

    def answers(self):
        return not lost.is_set()

class Lost(engine.Engine):
    def _connected(self):
        return Head()

    def share_of(self, *_):
        return {}

def attempt(*_):  # as a training that fails since the head is lost: the next would need Ray's object store
    if lost.is_set():
        os._exit(7)
    lost.set()
    return "a worker died"

training_workers._attempt = attempt
atexit.register(os.abort)
try:
    if sys.argv[1] == "a stage":
        lost.set()
        with Lost("local").in_use():
            time.sleep(60)
    else:
        scratch = Path("scratch")
        training_workers.train_together(
            Lost("local"), "train", print, workers=2, cpus=1, scratch=scratch, on_event=print
        )
except HeadLost as error:
    print(error, end="")
"""
ERRORS = {
    "input": InputError("t1: column 'alt_text'\n is missing"),
    "disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/part-1"),
    "config": ConfigError("recaption.batch: too large"),
    "bug": ValueError("shapes (2, 3) and (4,)\n do not match"),
}


@pytest.fixture(scope="module")
def engine():
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers cannot import a test
    with Engine(workers=2) as engine:
        yield engine


class Worker:
    """Does what its task asks for: sleep, raise, or die (once, or every time)."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ConfigError(f"no folder at {folder}")

    def __call__(self, task) -> PartReceipt:
        name = task["name"]
        time.sleep(task.get("sleep", 0))
        if "raise" in task:
            raise ERRORS[task["raise"]]
        deaths = len(list(self.folder.glob(f"{name}.died-*")))
        if deaths < task.get("deaths", 0):
            (self.folder / f"{name}.died-{deaths}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return PartReceipt(name=name, files=(), counts=Counts.model_validate({"in": 1, "kept": 1}))


def map_names(engine: Engine, folder: Path, tasks) -> tuple[list[str], list[str]]:
    """(names in the order they came back, names in the order they are returned)."""
    arrived: list[str] = []
    receipts = engine.map_parts(
        Worker, tasks, setup={"folder": str(folder)}, on_done=lambda receipt: arrived.append(receipt.name)
    )
    return arrived, [receipt.name for receipt in receipts]


def test_whoever_has_no_token_gets_no_answer_from_the_ray_of_this_process(engine):
    engine.start()
    import ray

    with (
        grpc.insecure_channel(ray.get_runtime_context().gcs_address) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_no_tasks_need_no_ray():
    assert Engine("127.0.0.1:1").map_parts(Worker, [], setup={}, on_done=print) == []


def test_receipts_come_back_in_task_order_whatever_the_order_of_arrival(engine, tmp_path):
    tasks = [{"name": f"t{i}", "sleep": 0.3 if i == 0 else 0} for i in range(6)]
    arrived, returned = map_names(engine, tmp_path, tasks)
    assert returned == [f"t{i}" for i in range(6)]
    assert sorted(arrived) == returned


def test_startup_is_what_was_waited_for_beside_the_tasks(engine, tmp_path):
    """Two workers with three tasks of 0.4 s each, so 1.2 s of the wait are work and the rest is not."""
    engine.start()
    before, started = engine.startup_seconds, time.perf_counter()
    map_names(engine, tmp_path, [{"name": f"t{i}", "sleep": 0.4} for i in range(6)])
    waited = time.perf_counter() - started
    assert before > 0, "Ray's own start counts"
    assert engine.startup_seconds - before == pytest.approx(waited - 1.2, abs=0.3)


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("input", StageFailed, "t1: column 'alt_text' is missing"),
        ("disk", StageFailed, "/full/part-1: no space left, free some; the same command goes on from here"),
        ("config", ConfigError, "recaption.batch: too large"),
        ("bug", UnexpectedError, "ValueError: shapes (2, 3) and (4,) do not match"),
    ],
)
def test_what_a_worker_raises_is_what_the_stage_sees(engine, tmp_path, name, kind, text):
    with pytest.raises(kind) as raised:
        map_names(engine, tmp_path, [{"name": "t0"}, {"name": "t1", "raise": name}])
    assert str(raised.value) == text
    assert "in __call__" in raised.value.__notes__[0]  # where, for --debug


def test_what_a_worker_raises_when_it_is_built_is_seen_too(engine, tmp_path):
    with pytest.raises(ConfigError, match="no folder at"):
        map_names(engine, tmp_path / "gone", [{"name": "t0"}])


def test_a_killed_workers_task_is_done_again(engine, tmp_path):
    _, returned = map_names(engine, tmp_path, [{"name": "t0"}, {"name": "t1", "deaths": 1}, {"name": "t2"}])
    assert returned == ["t0", "t1", "t2"]
    assert (tmp_path / "t1.died-0").exists()


def test_a_worker_that_dies_every_time_fails_the_stage(engine, tmp_path):
    with pytest.raises(StageFailed) as failed:
        map_names(engine, tmp_path, [{"name": "t0", "deaths": 100}])
    assert str(failed.value) == (
        f"a worker process died {WORKER_RESTARTS + 1} times, for lack of memory perhaps; run the same command"
        " again, with fewer workers if that does not help"
    )
    assert len(list(tmp_path.glob("t0.died-*"))) <= 2 * (WORKER_RESTARTS + 1)


@pytest.mark.parametrize(("gpus", "here"), [(0, 3), (1, 1), (2, 2), (8, 3)])
def test_side_by_side_there_is_one_process_on_each_gpu_of_this_machine(monkeypatch, gpus, here):
    total = {"CPU": 4.0} | ({"GPU": float(gpus)} if gpus else {})
    for embedded, fitting in ((True, here), (False, 3)):  # a cluster may grow
        engine = Engine()
        monkeypatch.setattr(engine, "total", lambda: total)
        monkeypatch.setattr(engine, "_embedded", embedded)
        assert engine.fitting(3) == fitting


def test_jobs_that_no_node_has_room_for_end_all_with_one_line(engine, tmp_path, monkeypatch):
    engine.start()
    monkeypatch.setattr(engine, "_embedded", False)  # as a cluster, which may grow, and here does not
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(room, "NO_PROGRESS_SECONDS", 0.5)
    jobs = [Job("judge", lambda _: time.sleep(60), 1), Job("captioner", lambda _: None, 10_000)]
    started = time.monotonic()
    with pytest.raises(StageFailed, match="the fit of captioner: the cluster has no room for 10000 CPU"):
        run_together(engine, jobs, tmp_path, on_event=lambda *_: None, on_done=lambda _: None)
    assert time.monotonic() - started < 50  # the other job is ended, not waited for


@pytest.mark.parametrize("what", ["a stage", "a training between two attempts"])
def test_a_process_that_lost_the_head_ends_without_what_ray_does_at_its_end(what):
    program = [sys.executable, "-c", LOST_HEAD, what]
    ended = subprocess.run(program, check=False, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.startswith("the head is lost; when the cluster is whole again")
