"""What the modules of promotion start from."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def no_server() -> None:
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One HOME for the module; each test has a registered name of its own."""
    return tmp_path_factory.mktemp("home")
