"""`straightshot doctor`: what works on this machine, a line each. Nothing is changed or downloaded."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from components.redaction import redacted
from pipelines.errors import ConfigError, describe
from pipelines.store.home import FREE_BYTES, open_home

PACKAGES = (
    *("torch", "torchvision", "accelerate", "transformers", "open-clip-torch", "ray", "dagster", "mlflow"),
    *("webdataset", "pyarrow", "pillow"),
)


@dataclass(frozen=True)
class Finding:
    """The result of one check. ok is None for what is only information."""

    name: str
    ok: bool | None
    text: str


def print_findings(home: Path) -> bool:
    """Print a line for each finding; whether everything that a run needs works."""
    from rich.console import Console

    console, works = Console(highlight=False, soft_wrap=True), True
    for finding in findings(home):
        sign = {True: "[green]ok[/]  ", False: "[red]no[/]  ", None: "    "}[finding.ok]
        console.print(f"{sign} {finding.name:<12} {finding.text}")
        works = works and finding.ok is not False
    return works


def findings(home: Path) -> Iterator[Finding]:
    """Everything, cheapest first."""
    yield Finding("python", None, f"{platform.python_version()} on {platform.platform()}")
    yield Finding("packages", None, ", ".join(_versions()))
    yield Finding("processors", None, f"{_cpus()} CPUs, {_memory_gb():.1f} GB memory")
    yield _checked("home", lambda: _home(home))
    yield _checked("torch", _torch)
    yield _checked("ray", _ray)
    yield _checked("mlflow", lambda: _mlflow(home))
    yield _checked("dagster", _dagster)


def _checked(name: str, check: Callable[[], str]) -> Finding:
    try:
        with redirect_stderr(StringIO()):
            return Finding(name, True, check())
    except Exception as error:  # noqa: BLE001  a library that is broken here is a finding, whatever it raises
        return Finding(name, False, describe(error))


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{name} absent"


def _home(home: Path) -> str:
    """Writable, with room. A HOME that is not there yet is judged by the folder it would be made in."""
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if existing == home:
        open_home(home)
    elif not os.access(existing, os.W_OK):
        raise ConfigError(f"{existing} cannot be written; choose another HOME")
    free = shutil.disk_usage(existing).free
    if free < FREE_BYTES:
        raise ConfigError(f"{existing} has only {free / 2**20:,.0f} MB free; make room")
    return f"{home}, {free / 2**30:,.1f} GB free"


def _torch() -> str:
    import torch
    import torchvision

    _ = torchvision.ops.nms  # a build that does not match torch's fails here
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    computes_on = ", ".join(devices) or "no GPU, so on the CPU"
    return f"{torch.__version__} with torchvision {torchvision.__version__}; {computes_on}"


def _ray() -> str:
    """A task through a Ray as the stages start it."""
    from pipelines.execution.engine import Engine

    with Engine(workers=1) as engine:
        return engine.check()


def _mlflow(home: Path) -> str:
    from pipelines.registry.mlflow_store import Tracker

    tracker = Tracker(home)
    uri = redacted(tracker.uri)
    if tracker.empty:
        return f"{uri}, not made yet"
    return f"{uri}, {len(tracker.client.search_experiments())} experiments"


def _dagster() -> str:
    from dags.definitions import defs

    return f"{len(list(defs.resolve_all_asset_specs()))} assets, {len(list(defs.jobs or ()))} jobs"


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gb() -> float:
    import psutil

    return float(psutil.virtual_memory().total) / 2**30
