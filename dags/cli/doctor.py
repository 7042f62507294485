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

from pipelines.errors import StraightshotError
from pipelines.store.home import FREE_BYTES, open_home

PACKAGES = (
    *("torch", "torchvision", "accelerate", "transformers", "open-clip-torch", "ray", "dagster", "mlflow"),
    *("webdataset", "pyarrow", "pillow"),
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ok is None for what is only told."""

    name: str
    ok: bool | None
    text: str


def examine(home: Path) -> bool:
    """Print a line for each finding; whether everything needed works."""
    from rich.console import Console

    console, good = Console(highlight=False, soft_wrap=True), True
    for finding in findings(home):
        mark = {True: "[green]ok[/]  ", False: "[red]no[/]  ", None: "    "}[finding.ok]
        console.print(f"{mark} {finding.name:<12} {finding.text}")
        good = good and finding.ok is not False
    return good


def findings(home: Path) -> Iterator[Finding]:
    """Everything, cheapest first."""
    yield Finding("python", None, f"{platform.python_version()} on {platform.platform()}")
    yield Finding("packages", None, ", ".join(_versions()))
    yield Finding("processors", None, f"{_cpus()} CPUs, {_memory_gb():.1f} GB memory")
    yield _tried("home", lambda: _home(home))
    yield _tried("torch", _torch)
    yield _tried("ray", _ray)
    yield _tried("mlflow", lambda: _mlflow(home))
    yield _tried("dagster", _dagster)


def _tried(name: str, look: Callable[[], str]) -> Finding:
    try:
        with redirect_stderr(StringIO()):
            return Finding(name, True, look())
    except (StraightshotError, ImportError, OSError, RuntimeError, ValueError) as error:
        return Finding(name, False, " ".join(f"{type(error).__name__}: {error}".split()))


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{name} absent"


def _home(home: Path) -> str:
    """Writable, with room. A HOME that is not there yet is judged by the folder it would be made in."""
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if there == home:
        open_home(home)
    elif not os.access(there, os.W_OK):
        raise OSError(f"{there} cannot be written")
    free = shutil.disk_usage(there).free
    if free < FREE_BYTES:
        raise OSError(f"{there} has only {free / 2**20:,.0f} MB free")
    return f"{home}, {free / 2**30:,.1f} GB free"


def _torch() -> str:
    import torch
    import torchvision

    _ = torchvision.ops.nms  # a build that does not match torch's fails here
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    where = ", ".join(devices) or "no GPU, so on the CPU"
    return f"{torch.__version__} with torchvision {torchvision.__version__}; {where}"


def _ray() -> str:
    """A task through a Ray as the stages start it."""
    from pipelines.execution.engine import Engine

    engine = Engine(workers=1)
    try:
        return engine.check()
    finally:
        engine.shutdown()


def _mlflow(home: Path) -> str:
    from pipelines.registry.mlflow_store import Tracker

    tracker = Tracker(home)
    if tracker.empty:
        return f"{tracker.uri}, not made yet"
    return f"{tracker.uri}, {len(tracker.client.search_experiments())} experiments"


def _dagster() -> str:
    from dags.definitions import defs

    return f"{len(list(defs.resolve_all_asset_specs()))} assets, {len(list(defs.jobs or ()))} jobs"


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gb() -> float:
    import psutil

    return float(psutil.virtual_memory().total) / 2**30
