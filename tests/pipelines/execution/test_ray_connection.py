"""Which Ray is used, what a wrong token of a cluster gives, that one without tokens is refused, and that a
cluster gets this project's code.

The clusters are real ones on loopback; see tests/ray_cluster.py.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.errors import ConfigError
from pipelines.execution.engine import Engine
from pipelines.execution.ray_connection import ray_address
from tests.ray_cluster import Cluster, libraries_only, running, token_in, without

REPOSITORY = Path(__file__).parents[3]
REFUSED_SECONDS = 15.0  # Ray alone takes 20 to report it
PACKAGES = ("components", "pipelines", "dags")

DRIVER = """\
import sys
from pipelines.execution.engine import Engine
from pipelines.store.receipts import Counts, PartReceipt

class Located:
    def __call__(self, task):
        import components, pipelines.presets
        assert (pipelines.presets.preset_path("micro")).is_file()  # data files come along
        counts = Counts.model_validate({"in": 1, "kept": 1})
        return PartReceipt(name=components.__file__, files=(), counts=counts)

engine = Engine(sys.argv[1])
for receipt in engine.map_parts(Located, [{}, {}], setup={}, on_done=lambda receipt: None):
    print(receipt.name)
"""
ONE_TASK = """\
import sys
from pipelines.execution.engine import Engine
print(Engine(sys.argv[1], insecure="insecure" in sys.argv[2:]).check())
"""


def test_what_the_user_names_goes_before_the_environment_and_the_environment_before_the_preset(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "cluster:6379")
    assert ray_address("local", explicit=True) == "local"
    assert ray_address("local", explicit=False) == "cluster:6379"
    assert Engine().address == "cluster:6379"
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert ray_address("auto", explicit=False) == "auto"
    assert Engine().address == "local"


@pytest.mark.parametrize("address", ["ray://head:10001", "ray://", "http://head:8265"])
def test_an_address_without_ray_data_is_refused_with_what_to_use_instead(monkeypatch, address):
    with pytest.raises(ConfigError, match=r"--ray: .*:// has no Ray Data; use HOST:PORT") as refused:
        load_config("micro", ray=address)
    assert "\n" not in str(refused.value)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS '.*': .* use HOST:PORT"):
        Engine().start()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "localhost:x"])
def test_a_ray_that_is_not_there_is_a_config_error(address):
    with pytest.raises(ConfigError, match="no Ray at"):
        Engine(address).start()


def test_a_local_ray_that_cannot_start_gives_the_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 30)))
    with pytest.raises(ConfigError, match=r"^Ray does not start on this machine: .*path length"):
        Engine("local").start()


def test_a_word_that_is_no_address_lists_what_is():
    with pytest.raises(ConfigError, match="use local, auto or HOST:PORT"):
        load_config("micro", ["ray=nowhere"])


@pytest.fixture(scope="module")
def node_python(tmp_path_factory) -> Path:
    return libraries_only(tmp_path_factory.mktemp("node") / "venv")


@pytest.fixture(scope="module")
def cluster(node_python, tmp_path_factory):
    with running(Cluster(node_python, token_in(tmp_path_factory.mktemp("token")), cpus=2)) as cluster:
        yield cluster


def drive(
    cluster: Cluster, folder: Path, *words: str, script: str = DRIVER, unset: str = "", **token: str
) -> "subprocess.CompletedProcess[str]":
    """A script in a folder that is not the project's, so that only `runtime_env` can bring the code."""
    environment = {**without("RAY_AUTH_TOKEN"), "PYTHONPATH": str(REPOSITORY), **cluster.environment, **token}
    environment.pop(unset, None)
    command = [sys.executable, "-c", script, cluster.address, *words]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.cluster
def test_a_node_that_has_only_the_libraries_gets_the_code_with_the_connection(node_python, cluster, tmp_path):
    script = f"import importlib.util, ray, torch; print(*map(importlib.util.find_spec, {PACKAGES}))"
    node = {"env": without("PYTHONPATH"), "cwd": tmp_path, "capture_output": True, "text": True}
    found = subprocess.run([node_python, "-c", script], **node, check=True)
    assert found.stdout.split() == ["None"] * len(PACKAGES)

    done = drive(cluster, tmp_path, unset="RAY_AUTH_MODE")  # the token is sent unasked, with an address too
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = set(done.stdout.split())
    assert "runtime_resources" in file and not Path(file).is_relative_to(REPOSITORY)


@pytest.mark.cluster
@pytest.mark.parametrize("token", ["wrong", "missing", "none"])
def test_a_token_that_the_cluster_refuses_is_one_line_that_says_what_to_set(cluster, tmp_path, token):
    (tmp_path / "wrong").write_text("wrong" * 8)
    wrong = (
        {"RAY_AUTH_MODE": "disabled"} if token == "none" else {"RAY_AUTH_TOKEN_PATH": str(tmp_path / token)}
    )
    started = time.monotonic()
    done = drive(cluster, tmp_path, **wrong)
    assert time.monotonic() - started < REFUSED_SECONDS
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"pipelines.errors.ConfigError: the Ray at '{cluster.address}' refuses"), (
        done.stderr
    )
    assert "RAY_AUTH_TOKEN_PATH to the cluster's token" in last


@pytest.mark.cluster
def test_a_cluster_that_asks_for_no_token_is_refused_unless_insecure_is_said(node_python, tmp_path):
    with running(Cluster(node_python, {"RAY_AUTH_MODE": "disabled"}, cpus=2)) as node:
        refused = drive(node, tmp_path, script=ONE_TASK, unset="RAY_AUTH_MODE").stderr.splitlines()[-1]
        assert f"ConfigError: the Ray at '{node.address}' asks for no token" in refused
        assert "RAY_AUTH_MODE=token" in refused and "--insecure" in refused
        done = drive(node, tmp_path, "insecure", script=ONE_TASK, unset="RAY_AUTH_MODE")
        assert done.stdout.startswith(f"{node.address}: a task ran"), done.stderr[-3000:]


def test_a_ray_of_this_process_without_tokens_is_refused(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", "from pipelines.execution.engine import Engine; Engine('local').start()"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "the Ray at 'local' asks for no token" in done.stderr.splitlines()[-1]
