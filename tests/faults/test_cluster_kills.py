"""Nodes and the head of a real cluster are killed in the middle of stages: the same bytes in the end.

The cluster has a head without CPUs and two nodes of one CPU, without the project. Each test is the command on
a copy of a finished HOME without the stage's output, and waits for a sign of the stage's middle to kill.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.graph import STAGES
from tests.faults.test_killed_stages import assert_same_output, copy_of
from tests.faults.test_random_kills import digests
from tests.ray_cluster import Cluster, Node, libraries_only, running, token_in

NODES = 2
MINUTE = 60.0  # what a command may take to end once its cluster is broken
STAGE_SECONDS = 400.0  # a hang, on the slowest machine
TRAIN = (  # by two processes; shorter than the preset's, for it runs twice
    *("train", "--set", "train.workers=2", "train.images=512", "train.checkpoint_images=256"),
    *("train.autoencoder.training.images=128", "train.upsampler.training.images=256"),
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


class Command:
    """`straightshot run` on a cluster; what it prints goes to a file beside HOME."""

    def __init__(self, home: Path, ray: str, environment: dict[str, str], *options: str) -> None:
        self.log = home.with_suffix(".log")
        words = ("run", "--preset", "micro", "--home", str(home), "--ray", ray, *options)
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dags.cli.app", *words],
                env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=output,
            )

    def wait_for(self, sign: Callable[[], object]) -> None:
        """Wait for it, while the command runs."""
        deadline = time.monotonic() + STAGE_SECONDS
        while not sign():
            assert self._process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def end(self, seconds: float = STAGE_SECONDS) -> int:
        """Its exit status. A command that goes on for longer is killed."""
        try:
            return self._process.wait(seconds)
        finally:
            self._process.kill()
            self._process.wait()

    def assert_one_line(self) -> str:
        """The last line; nothing of Ray's own and no traceback stands before it."""
        lines = self.log.read_text().splitlines()
        assert [line for line in lines if line.startswith("straightshot: ")] == lines[-1:], lines
        noise = ("Traceback", "StackTrace", "(raylet)", "GCS", "ray::")
        assert not [line for line in lines for word in noise if word in line], lines
        return lines[-1]


@pytest.fixture(scope="module")
def node_python(tmp_path_factory) -> Path:
    return libraries_only(tmp_path_factory.mktemp("node") / "venv")


@pytest.fixture(scope="module")
def shared_cluster(node_python, tmp_path_factory) -> Iterator[Cluster]:
    with running(Cluster(node_python, token_in(tmp_path_factory.mktemp("token")))) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster) -> Cluster:
    """With all of its nodes, whatever the test before has done to them."""
    shared_cluster.join(NODES - len(shared_cluster.living()))
    return shared_cluster


def start(home: Path, cluster: Cluster, stage: str, *options: str) -> Command:
    return Command(home, cluster.address, cluster.environment, "--select", stage, *options)


def test_the_whole_dag_on_a_cluster_gives_the_bytes_of_one_machine(micro_home, cluster, tmp_path):
    home = tmp_path / "home"
    command = Command(home, cluster.address, cluster.environment)
    assert command.end(3 * STAGE_SECONDS) == 0, command.log.read_text()
    assert digests(home).keys() == {stage.name for stage in STAGES}
    assert digests(home) == digests(micro_home)


@pytest.mark.parametrize("stage", ["filter", "recaption"])
def test_a_stage_goes_on_without_the_node_that_it_loses(micro_home, cluster, tmp_path, stage):
    home = copy_of(micro_home, tmp_path / "home", stage)
    command = start(home, cluster, stage)
    command.wait_for(lambda: parts_of(home, stage) and any(map(pool_workers, cluster.living())))
    max(cluster.living(), key=pool_workers).kill()
    assert not list((home / stage).glob("*/receipt.json")), "it was killed too late"
    assert command.end() == 0, command.log.read_text()
    assert "(raylet)" not in command.log.read_text()
    assert_same_output(home, micro_home, stage)


def test_a_training_that_lost_a_node_ends_and_goes_on_in_a_whole_cluster(micro_home, cluster, tmp_path):
    whole = copy_of(micro_home, tmp_path / "whole", "train")
    undisturbed = Command(whole, "local", {}, "--select", *TRAIN)
    assert undisturbed.end() == 0, undisturbed.log.read_text()

    home = copy_of(micro_home, tmp_path / "home", "train")
    command = start(home, cluster, *TRAIN)
    command.wait_for(lambda: checkpoints_of(home))
    cluster.living()[-1].kill()
    assert command.end(MINUTE) == 1, command.log.read_text()
    assert "train.workers: the cluster has no room for 2 processes" in command.assert_one_line()

    cluster.join()
    command = start(home, cluster, *TRAIN)
    assert command.end() == 0, command.log.read_text()
    assert_same_output(home, whole, "train")


def test_a_command_that_lost_the_head_ends_and_goes_on_with_a_new_one(micro_home, node_python, tmp_path):
    home, environment = copy_of(micro_home, tmp_path / "home", "filter"), token_in(tmp_path)
    with running(Cluster(node_python, environment)) as cluster:
        cluster.join(1)
        command = start(home, cluster, "filter")
        command.wait_for(lambda: parts_of(home, "filter"))
        cluster.nodes[0].freeze()  # it could finish before the head is missed, and the stage then ends well
        cluster.head.kill()
        assert command.end(MINUTE) == 1, command.log.read_text()
        line = command.assert_one_line()
        assert f"the Ray at '{cluster.address}' has lost its head" in line
        assert "run the same command again" in line
    with running(Cluster(node_python, environment)) as cluster:
        cluster.join(1)
        command = start(home, cluster, "filter")
        assert command.end() == 0, command.log.read_text()
    assert_same_output(home, micro_home, "filter")


def parts_of(home: Path, stage: str) -> list[Path]:
    """The receipts of the finished parts of an output in the making."""
    return list((home / stage).glob("*/**/parts/*.json"))


def checkpoints_of(home: Path) -> list[Path]:
    """Of the network's training, those that are whole."""
    return [path for path in home.glob("train/*/scratch/checkpoints/*") if path.name.isdigit()]


def pool_workers(node: Node) -> int:
    return sum("MapWorker" in title for title in node.workers())
