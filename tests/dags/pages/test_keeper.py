"""Servers end with the command that started them, however it ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

COMMAND = """
import sys, time
from pathlib import Path
from dags.pages.processes import Keeper, Server, running

server = Server("a server", ("sh", "-c", "sleep 300 & sleep 300"), Path(sys.argv[1]) / "log")
with Keeper() as keeper, running(server, {}, keeper) as process:
    print(process.pid, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start(folder: Path, seconds: float) -> "tuple[subprocess.Popen[str], list[psutil.Process]]":
    """The command, which ends after so long, and its server with what that started."""
    arguments = [sys.executable, "-c", COMMAND, str(folder), str(seconds)]
    command = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    server = psutil.Process(int(command.stdout.readline()))
    deadline = time.monotonic() + 30
    while not (below := server.children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert below
    return command, [server, *below]


def test_a_killed_command_leaves_no_server(tmp_path):
    command, servers = start(tmp_path, 300)
    (keeper,) = [p for p in psutil.Process(command.pid).children() if "dags.pages.keeper" in p.cmdline()]
    command.send_signal(signal.SIGKILL)
    command.wait()
    assert not psutil.wait_procs([*servers, keeper], timeout=40)[1]


def test_a_command_that_ends_takes_its_servers_along_and_the_keeper_goes(tmp_path):
    command, servers = start(tmp_path, 1)
    assert command.wait(40) == 0
    assert not psutil.wait_procs(servers, timeout=5)[1]
