"""SIGKILL at random moments, of the command, of one of its processes or of all: the same bytes in the end."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.graph import STAGES
from pipelines.store.receipts import Receipt

KILLS = 6  # in each series: of two, the later kills meet the later stages
WAIT_SECONDS = (2.0, 30.0)  # before each of them; a whole run takes about a minute


@pytest.mark.faults
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(micro_home, tmp_path, seed):
    chance, home, killed = random.Random(seed), tmp_path / "home", 0
    while killed < KILLS:
        command = start(home)
        try:
            command.wait(chance.uniform(*WAIT_SECONDS))
            if command.returncode == 0:
                break  # it was done sooner: the kills so far are what there is to see
        except subprocess.TimeoutExpired:
            kill(command, chance)
            killed += 1
    finished = start(home)
    assert finished.wait() == 0, (home / "log.txt").read_text()[-2000:]
    assert killed >= 3
    assert digests(home) == digests(micro_home)


def start(home: Path) -> "subprocess.Popen[bytes]":
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "dags.cli.app", "run", "--preset", "micro", "--home", str(home)]
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
    """The digest of the content of every stage's one output."""
    receipts = {}
    for stage in STAGES:
        (path,) = (home / stage.name).glob("*/receipt.json")
        receipts[stage.name] = Receipt.model_validate_json(path.read_bytes()).digest
    return receipts
