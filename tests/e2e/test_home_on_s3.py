"""The whole DAG with HOME, its corpus and its labelled set in a bucket: the same bytes as on a disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.graph import STAGES
from pipelines.store.mirror import MIRRORS_VARIABLE
from pipelines.store.outputs import readable_receipt
from pipelines.store.receipts import RECEIPT


def straightshot(mirrors: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The command on a host of its own: its mirror is there, and MLflow's database stands for a server."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        MIRRORS_VARIABLE: str(mirrors),
        "MLFLOW_TRACKING_URI": f"sqlite:///{mirrors.parent / 'mlflow.db'}",
    }
    command = [sys.executable, "-m", "dags.cli.app", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def digests(home: Path) -> dict[str, str]:
    found = {}
    for stage in STAGES:
        (path,) = (home / stage.name).glob(f"*/{RECEIPT}")
        receipt = readable_receipt(path.parent)
        assert receipt is not None
        found[stage.name] = receipt.digest
    return found


@pytest.mark.cluster
def test_every_stage_works_there_and_another_host_goes_on(s3, tmp_path, micro_home):
    url, first, second = f"{s3}/runs", tmp_path / "first", tmp_path / "second"
    straightshot(first, "run", "--preset", "micro", "--home", url, "--select", "+train")
    done = straightshot(second, "run", "--preset", "micro", "--home", url)
    assert "3 of 8 stages ran" in done.stdout  # distill, evaluate, promote

    rows = json.loads(straightshot(first, "status", "--home", url, "--json").stdout)
    assert [row["state"] for row in rows] == ["fresh"] * len(STAGES)
    (home,) = first.glob("s3-mirror/*/*/runs")
    assert digests(home) == digests(micro_home)
    out = tmp_path / "images"
    straightshot(first, "generate", "a red circle", "--home", url, "-o", str(out))
    assert len(list(out.glob("*.png"))) == 1
