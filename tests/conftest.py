"""Fixtures shared by every test: the real corpora beside the checkout, when they are there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def user_configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The user's configuration folder for these tests and what they start: the real one stays as it is."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("configuration"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora beside the checkout; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real corpora (../shared/data) are not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def micro_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> "subprocess.CompletedProcess[str]":
    """`straightshot run --preset micro` in a HOME of its own, once for all tests of all test processes.

    They leave the HOME as it is.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "micro"
    folder.mkdir(exist_ok=True)
    result = folder / "result.json"
    with FileLock(folder / "lock"):  # of several test processes the first one runs it, the others wait
        if not result.exists():
            result.write_text(json.dumps(_run_micro(folder / "home")))
    done = subprocess.CompletedProcess(**json.loads(result.read_text()))
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def _run_micro(home: Path) -> dict[str, object]:
    """The command in a process of its own; what it left, as JSON takes it."""
    command = [sys.executable, "-m", "dags.cli.app", "run", "--preset", "micro"]
    done = subprocess.run(
        [*command, "--home", str(home), "--debug"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    names = ("args", "returncode", "stdout", "stderr")
    return {name: getattr(done, name) for name in names}


@pytest.fixture(scope="session")
def micro_home(micro_run: "subprocess.CompletedProcess[str]") -> Path:
    """The HOME of `micro_run`."""
    return Path(micro_run.args[micro_run.args.index("--home") + 1])
