"""Fixtures shared by every test: the real corpora beside the checkout, when they are there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora beside the checkout; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real corpora (../shared/data) are not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def micro_run(tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    """`straightshot run --preset micro` in a HOME of its own, once for all tests; they leave it as it is."""
    home = tmp_path_factory.mktemp("micro") / "home"
    command = [
        sys.executable,
        "-m",
        "dags.cli.app",
        "run",
        "--preset",
        "micro",
        "--home",
        str(home),
        "--debug",
    ]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.fixture(scope="session")
def micro_home(micro_run: "subprocess.CompletedProcess[str]") -> Path:
    """The HOME of `micro_run`."""
    return Path(micro_run.args[micro_run.args.index("--home") + 1])
