"""A few long jobs at the same time, a Ray worker each.

A job that does not fit beside the others waits for them. A killed one is started again a few times; what it
had reached is its own business (checkpoints).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import StageFailed
from pipelines.execution.engine import WORKER_RESTARTS, Engine, last_line
from pipelines.execution.worker_events import Event, EventReader, EventWriter

LISTEN_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """name: in what it says and in errors. work: goes to a worker, so it and what it holds are pickled.

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
    """Run every job to its end. on_event(name, event): what a job says, {"start": True} before all else.

    on_done(name): that job has ended well; the others may still run. Raises ConfigError where a job can never
    fit, StageFailed with a worker's own words, or when its process died more often than WORKER_RESTARTS.
    """
    if not jobs:
        return
    shares = [engine.share_of(f"the threads of {job.name}", 1, job.cpus) for job in jobs]
    import ray

    running = {}
    for job, share in zip(jobs, shares, strict=True):
        task: Any = ray.remote(_do).options(
            num_cpus=share["CPU"],
            num_gpus=share.get("GPU", 0) / len(jobs),  # they share one
            max_retries=WORKER_RESTARTS,
        )
        running[task.remote(job, channel)] = job.name
    events = EventReader(channel)
    try:
        while running:
            ended, _ = ray.wait(list(running), num_returns=1, timeout=LISTEN_SECONDS)
            for who, event in events.poll():
                on_event(who, event)
            for one in ended:
                ray.get(one)
                on_done(running.pop(one))
    except ray.exceptions.RayError as error:
        raise StageFailed(last_line(error)) from error
    finally:
        for one in running:  # after an error, or Ctrl-C
            ray.cancel(one, force=True)


def _do(job: Job, channel: Path) -> None:
    """One job, in a Ray worker."""
    events = EventWriter(channel, job.name)
    events.write(start=True)
    with events.reporting_errors():
        job.work(events)
