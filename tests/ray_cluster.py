"""Real Ray clusters on loopback: a head and nodes, each a process group of its own that a test may kill.

Nodes run a Python that has the libraries and not the project, in a folder that is not the project's, as the
machines of a cluster do.
"""

import os
import secrets
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

START_SECONDS = 120.0
RAY = ("-c", "from ray.scripts.scripts import main; main()")
STARTED = "--block"  # `ray start --block` prints the word once its node is up
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class Node:
    """One `ray start --block`, up when this returns."""

    def __init__(self, python: Path, options: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: the paths of sockets must be
        self._log = self.folder / "log"
        store = "--object-store-memory=100000000"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(python), *RAY, "start", "--block", store, f"--temp-dir={self.folder}", *options],
                env={**without("PYTHONPATH", "RAY_ADDRESS"), **QUIET, **environment},
                cwd=self.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while STARTED not in self.log():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(self.log())
            time.sleep(0.1)

    def log(self) -> str:
        return self._log.read_text()

    def alive(self) -> bool:
        return self._process.poll() is None

    def workers(self) -> list[str]:
        """The titles of the processes on it that run a task or an actor."""
        titles = []
        for process in self._descendants():
            with suppress(psutil.Error, IndexError):
                titles.append(process.cmdline()[0])
        return [title for title in titles if title.startswith("ray::") and title != "ray::IDLE"]

    def freeze(self) -> None:
        """As a machine that hangs: every process of it stands still."""
        for process in self._descendants():
            _signal(process, signal.SIGSTOP)

    def kill(self) -> None:
        """As a lost machine: every process of it at once."""
        lost = self._descendants()
        for process in lost:  # stopped first, so that none outlives another by as much as a message
            _signal(process, signal.SIGSTOP)
        for process in {*lost, *self._descendants()}:
            _signal(process, signal.SIGKILL)
        self._process.wait()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _descendants(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


class Cluster:
    """A head without CPUs at a free port, and the nodes that joined it.

    environment: what its processes were started with, and what a driver needs beside the address.
    """

    def __init__(self, python: Path, environment: Mapping[str, str], *, cpus: int = 0) -> None:
        self.environment = dict(environment)
        self._python = python
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        options = ("--head", f"--port={port}", "--include-dashboard=false", f"--num-cpus={cpus}")
        self.head = Node(python, ("--node-ip-address=127.0.0.1", *options), self.environment)
        self.nodes: list[Node] = []

    def join(self, count: int = 1) -> None:
        """Start nodes of one CPU, each with an address of its own: all of 127.0.0.0/8 is this machine."""
        with ThreadPoolExecutor() as together:
            self.nodes += together.map(self._node, range(len(self.nodes) + 2, len(self.nodes) + 2 + count))

    def living(self) -> list[Node]:
        return [node for node in self.nodes if node.alive()]

    def remove(self) -> None:
        for node in (self.head, *self.nodes):
            node.remove()

    def _node(self, number: int) -> Node:
        options = (f"--address={self.address}", f"--node-ip-address=127.0.0.{number}", "--num-cpus=1")
        return Node(self._python, options, self.environment)


@contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, gone at the end."""
    try:
        yield cluster
    finally:
        cluster.remove()


def token_in(folder: Path) -> dict[str, str]:
    """The environment of a cluster with a token: Ray's ports are open on every interface."""
    path = folder / "token"
    path.write_text(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


def libraries_only(folder: Path) -> Path:
    """A Python in a new folder that has every library of this one, and not the project."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for installed in map(Path, site.getsitepackages()):
        for entry in installed.iterdir():
            if "straightshot" not in entry.name and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def without(*names: str) -> dict[str, str]:
    """This process's environment, less those."""
    return {name: value for name, value in os.environ.items() if name not in names}


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
