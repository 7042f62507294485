"""SIGKILL at random moments, of the command, of one of its processes or of all: the same bytes in the end."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.graph import STAGES, upstream
from pipelines.store.receipts import Receipt
from tests.faults.test_killed_stages import copy_of

KILLS = 4  # in each half
WAIT_SECONDS = (2.0, 25.0)  # before each of them; half a run takes about as long as two


@pytest.mark.faults
@pytest.mark.parametrize("last", ["shard", "promote"])
def test_half_a_run_killed_at_random_moments_ends_in_the_same_bytes(micro_home, tmp_path, last):
    """The data half from nothing, the learning half from a finished data half."""
    chance, home, killed = random.Random(last), tmp_path / "home", 0
    if last == "promote":
        copy_of(micro_home, home, "train")
    while killed < KILLS:
        command = start(home, last)
        try:
            command.wait(chance.uniform(*WAIT_SECONDS))
            if command.returncode == 0:
                break  # it was done sooner: the kills so far are what there is to see
        except subprocess.TimeoutExpired:
            kill(command, chance)
            killed += 1
    finished = start(home, last)
    assert finished.wait() == 0, (home / "log.txt").read_text()[-2000:]
    assert killed >= 3
    whole = digests(micro_home)
    assert digests(home) == {name: whole[name] for name in whole if name in (*upstream(last), last)}


def start(home: Path, last: str) -> "subprocess.Popen[bytes]":
    home.mkdir(exist_ok=True)
    options = ["--preset", "micro", "--home", str(home), "--select", f"+{last}"]
    command = [sys.executable, "-m", "dags.cli.app", "run", *options]
    with (home / "log.txt").open("ab") as log:
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)


def kill(command: "subprocess.Popen[bytes]", chance: random.Random) -> None:
    """Kill the command alone, one of the processes that it started, or all at once; then wait for its end."""
    me = psutil.Process(command.pid)
    children = me.children(recursive=True)
    victims = {
        "command": [me],
        "child": [chance.choice(children)] if children else [me],
        "all": [me, *children],
    }[chance.choice(["command", "child", "all"])]
    for victim in victims:
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
    if me not in victims:  # it may survive the death of a child, or fail of it: both are right
        time.sleep(chance.uniform(0, 5))
        command.kill()
    command.wait()
    _, alive = psutil.wait_procs(children, timeout=60)  # Ray's own end with their driver
    for child in alive:
        child.kill()


def digests(home: Path) -> dict[str, str]:
    """The digest of the content of the one output of every stage that has any."""
    digests = {}
    for stage in STAGES:
        for path in (home / stage.name).glob("*/receipt.json"):
            assert stage.name not in digests, "two outputs"
            digests[stage.name] = Receipt.model_validate_json(path.read_bytes()).digest
    return digests
