"""One training in several processes that share each batch: Ray Train outside, Accelerate inside.

Ray Train places the processes and has them find each other. Checkpoints are our own: a process that is
killed costs the steps since the last of them. Ray Train's storage is not used.
"""

import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import USER_ERRORS, StageFailed, StraightshotError
from pipelines.execution.engine import GO_ON, WORKER_RESTARTS, Engine, worker_failure
from pipelines.execution.ray_connection import NO_PROGRESS_SECONDS
from pipelines.execution.worker_events import Event, EventReader, EventWriter

# (rank, world_size, events): what one process does; pickled for Ray's workers
TrainRank = Callable[[int, int, EventWriter], None]

POLL_SECONDS, CLEAN_UP_SECONDS = 0.2, 30
ROOM_SECONDS = 3.0  # between two looks at what the cluster has
LOST_NODE_SECONDS = 20.0  # to wait for the room that a training had and has no longer
SETTINGS = {  # Ray Train's, unless the user set them; the driver's environment is where it reads them
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # it is how soon an end or a death is seen
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process more; what it would save, our checkpoints do
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@dataclass(frozen=True)
class _Group:
    """What every process of one attempt needs to know. channel: the folder of its events."""

    stage: str
    workers: int
    train_rank: TrainRank
    channel: Path
    on_gpu: bool


class _Room:
    """The cluster's room for a group that has not started yet.

    Where there is none, Ray Train would wait for ever for a node to come.
    """

    def __init__(self, engine: Engine, group: _Group, each: dict[str, float], patience: float) -> None:
        self._engine, self._group, self._each, self._patience = engine, group, each, patience
        self._looked = self._found = time.monotonic()

    def check(self) -> None:
        """Raise StageFailed when there has been none for `patience` seconds."""
        now = time.monotonic()
        if now - self._looked < ROOM_SECONDS:
            return
        self._looked = now
        group, each = self._group, self._each
        if group.channel.exists() or self._engine.has_room(group.workers, each):
            self._found = now
        elif now - self._found > self._patience:
            amounts = " and ".join(f"{amount:g} {kind}" for kind, amount in each.items())
            raise StageFailed(
                f"{group.stage}.workers: the cluster has no room for {group.workers} processes of {amounts}"
                f" each, after the loss of a node perhaps; {GO_ON}"
            )


def train_together(
    engine: Engine,
    stage: str,
    train_rank: TrainRank,
    *,
    workers: int,
    cpus: int,
    scratch: Path,
    on_event: Callable[[Event], None],
) -> None:
    """Run `train_rank(rank, world_size, events)` in so many processes until all have come to their end.

    cpus: threads of each. scratch: a folder that all nodes see, for events and Ray Train's own files.
    Each finds the others through torch.distributed, as Accelerate does. on_event gets the events that the
    first one writes. A worker that dies starts the whole again, a few times: it should go on from its last
    checkpoint. Raises ConfigError where the workers can never fit; ConfigError or StageFailed with what one
    raised for the user; StageFailed when they failed more often than WORKER_RESTARTS, have no room, or the
    head is lost.
    """
    each = engine.share_of(f"{stage}.workers", workers, cpus)
    run = uuid.uuid4().hex[:8]
    for attempt in range(WORKER_RESTARTS + 1):
        channel = scratch / f"events-{run}-{attempt}"
        group = _Group(stage, workers, train_rank, channel, on_gpu="GPU" in each)
        patience = LOST_NODE_SECONDS if attempt else NO_PROGRESS_SECONDS  # a growing cluster takes minutes
        with engine.in_use():
            failure = _attempt(group, each, scratch / "ray", on_event, _Room(engine, group, each, patience))
        if failure is None:
            return
    raise StageFailed(
        f"{stage}: the {workers} workers failed {WORKER_RESTARTS + 1} times; run the same command"
        f" again to go on from the last checkpoint (at last {failure})"
    )


def _attempt(
    group: _Group,
    each: dict[str, float],
    storage: Path,
    on_event: Callable[[Event], None],
    room: _Room,
) -> str | None:
    """Train once; None when it came to its end, else the line that says what went wrong."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    limits: Any = {"max_failures": 0, "controller_failure_limit": WORKER_RESTARTS}
    settings: Any = {"worker_runtime_env": {"env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}}}
    trainer = TorchTrainer(
        lambda: _work(group),
        scaling_config=ScalingConfig(
            num_workers=group.workers, use_gpu=group.on_gpu, resources_per_worker=each
        ),
        run_config=RunConfig(
            name=group.stage,
            storage_path=str(storage.absolute()),
            failure_config=FailureConfig(**limits),
            **settings,
        ),
    )
    failures: list[str] = []

    def fit() -> None:
        try:
            trainer.fit()
        except (TrainingFailedError, RayError) as error:
            failures.append(worker_failure(error))

    # Not in the main thread, where it would take over Ctrl-C.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    try:
        _follow(thread, EventReader(group.channel), on_event, room)
    except StraightshotError:
        if group.channel.exists():
            thread.join(CLEAN_UP_SECONDS)  # the other workers are being stopped
        raise
    return failures[0] if failures else None


def _follow(
    thread: threading.Thread, events: EventReader, on_event: Callable[[Event], None], room: _Room
) -> None:
    """Pass on the first worker's events until the training is over. Raises the error of any of them."""
    running = True
    while running:
        thread.join(POLL_SECONDS)
        running = thread.is_alive()  # before the poll, which thus sees the last events, too
        for rank, event in events.poll():
            if rank == "0":
                on_event(event)
        room.check()


def _work(group: _Group) -> None:
    """One process's part, in a Ray worker."""
    if not group.on_gpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"  # without it Accelerate looks for several GPUs only
    from ray.train import get_context

    context = get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    events = EventWriter(group.channel, str(rank))
    # Not every error: where one worker dies, the others fail of it, and all are started again.
    with events.reporting(*USER_ERRORS):
        group.train_rank(rank, world_size, events)
