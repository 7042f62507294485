"""One training in several processes that share each batch: Ray Train outside, Accelerate inside.

Ray Train places the processes and has them find each other. Checkpoints are our own: a process that is
killed costs the steps since the last of them. Ray Train's storage is not used.
"""

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import USER_ERRORS, StageFailed, StraightshotError
from pipelines.execution.engine import Engine
from pipelines.execution.part_pool import WORKER_RESTARTS, worker_failure
from pipelines.execution.room import Room
from pipelines.execution.worker_events import Event, EventReader, EventWriter

# (rank, world_size, events): what one process does; pickled for Ray's workers
TrainRank = Callable[[int, int, EventWriter], None]

POLL_SECONDS, CLEAN_UP_SECONDS = 0.2, 30


@dataclass(frozen=True)
class _Group:
    """What every process of one attempt needs to know. each: Ray's resources of one; channel: the folder of
    its events.
    """

    stage: str
    workers: int
    each: dict[str, float]
    train_rank: TrainRank
    channel: Path

    @property
    def on_gpu(self) -> bool:
        return "GPU" in self.each


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
    room, run = Room(engine, f"{stage}.workers", workers, each), uuid.uuid4().hex[:8]
    for attempt in range(WORKER_RESTARTS + 1):
        channel = scratch / f"events-{run}-{attempt}"
        group = _Group(stage, workers, each, train_rank, channel)
        with engine.in_use():
            failure = _attempt(engine, group, scratch / "ray", on_event, room)
        if failure is None:
            return
    raise StageFailed(
        f"{stage}: the {workers} workers failed {WORKER_RESTARTS + 1} times; run the same command"
        f" again to go on from the last checkpoint (at last {failure})"
    )


def _attempt(
    engine: Engine,
    group: _Group,
    storage: Path,
    on_event: Callable[[Event], None],
    room: Room,
) -> str | None:
    """Train once; None when it came to its end, else the line that says what went wrong."""
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    limits: Any = {"max_failures": 0, "controller_failure_limit": WORKER_RESTARTS}
    # Without the second Accelerate looks for several GPUs only.
    variables = {"OMP_WAIT_POLICY": "PASSIVE"} | ({} if group.on_gpu else {"ACCELERATE_USE_CPU": "true"})
    settings: Any = {"worker_runtime_env": {"env_vars": variables}}
    trainer = TorchTrainer(
        lambda: _work(group),
        scaling_config=ScalingConfig(
            num_workers=group.workers, use_gpu=group.on_gpu, resources_per_worker=group.each
        ),
        run_config=RunConfig(
            name=group.stage,
            storage_path=str(storage.absolute()),
            failure_config=FailureConfig(**limits),
            **settings,
        ),
    )
    failures: list[str] = []
    over = threading.Event()

    def fit() -> None:
        try:
            trainer.fit()
        except (TrainingFailedError, RayError) as error:
            failures.append(worker_failure(error))
        finally:
            over.set()

    # Not in the main thread, where it would take over Ctrl-C.
    threading.Thread(target=fit, name="ray-train", daemon=True).start()
    try:
        _follow(over, group.channel, on_event, room)
    except (StraightshotError, KeyboardInterrupt) as error:
        if group.channel.exists() and not isinstance(error, KeyboardInterrupt):
            over.wait(CLEAN_UP_SECONDS)  # the other workers are being stopped
        if not over.is_set():
            engine.abandon()
        raise
    return failures[0] if failures else None


def _follow(over: threading.Event, channel: Path, on_event: Callable[[Event], None], room: Room) -> None:
    """Pass on the first worker's events until the training is over. Raises the error of any of them."""
    events, running = EventReader(channel), True
    while running:
        running = not over.wait(POLL_SECONDS)  # before the poll, which thus sees the last events, too
        for rank, event in events.poll():
            if rank == "0":
                on_event(event)
        if not channel.exists():  # nobody has started
            room.check()


def _work(group: _Group) -> None:
    """One process's part, in a Ray worker."""
    from ray.train import get_context

    context = get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    events = EventWriter(group.channel, str(rank))
    # Not every error: where one worker dies, the others fail of it, and all are started again.
    with events.reporting(*USER_ERRORS):
        group.train_rank(rank, world_size, events)
