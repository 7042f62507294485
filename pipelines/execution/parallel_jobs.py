"""A few long jobs at the same time, a Ray worker each.

A job that does not fit beside the others waits for them; one that has no room any more ends them all, after a
while. A killed one is started again a few times; it goes on from its own checkpoints, if it keeps any.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import StageFailed
from pipelines.execution.engine import Engine
from pipelines.execution.part_pool import WORKER_RESTARTS, worker_failure
from pipelines.execution.room import Room
from pipelines.execution.worker_events import Event, EventReader, EventWriter

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """name: in its events and in errors. work: goes to a worker, so it and what it holds are pickled.

    cpus: threads that it computes with.
    """

    name: str
    work: Callable[[EventWriter], None]
    cpus: int


def run_together(
    engine: Engine,
    jobs: Sequence[Job],
    channel: Path,
    *,
    on_event: Callable[[str, Event], None],
    on_done: Callable[[str], None],
) -> None:
    """Run every job to its end. channel: the folder of their events.

    on_event(name, event): what a job reports, {"start": True} before all else. on_done(name): that job has
    succeeded; the others may still run. Raises ConfigError where a job can never fit; ConfigError,
    StageFailed or UnexpectedError with what a job raised; StageFailed when one died more often than
    WORKER_RESTARTS, has no room, or the head is lost.
    """
    if not jobs:
        return
    shares = [engine.share_of(f"the threads of {job.name}", 1, job.cpus) for job in jobs]
    pairs = zip(jobs, shares, strict=True)
    rooms = {job.name: Room(engine, f"the fit of {job.name}", 1, share) for job, share in pairs}
    with engine.in_use():
        _run_together(jobs, shares, rooms, channel, on_event, on_done)


def _run_together(
    jobs: Sequence[Job],
    shares: Sequence[dict[str, float]],
    rooms: dict[str, Room],
    channel: Path,
    on_event: Callable[[str, Event], None],
    on_done: Callable[[str], None],
) -> None:
    import ray

    running: dict[Any, str] = {}
    for job, share in zip(jobs, shares, strict=True):
        remote: Any = ray.remote(_run_job).options(
            num_cpus=share["CPU"],
            num_gpus=share.get("GPU", 0) / len(jobs),  # they share one
            max_retries=WORKER_RESTARTS,
        )
        running[remote.remote(job, channel)] = job.name
    events = EventReader(channel)
    try:
        while running:
            ended, _ = ray.wait(list(running), num_returns=1, timeout=POLL_SECONDS)
            for name, event in events.poll():
                on_event(name, event)
            for task in ended:
                ray.get(task)
                on_done(running.pop(task))
            for name in running.values():
                rooms[name].check()
    except ray.exceptions.RayError as error:
        raise StageFailed(worker_failure(error)) from error
    finally:
        for task in running:  # after an error, or Ctrl-C
            ray.cancel(task, force=True)


def _run_job(job: Job, channel: Path) -> None:
    """One job, in a Ray worker."""
    events = EventWriter(channel, job.name)
    events.write(start=True)
    with events.reporting(Exception):
        job.work(events)
