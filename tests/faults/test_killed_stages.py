"""SIGKILL at any moment and the same command again gives the same bytes: every stage, at its fault points.

Each stage starts from the finished outputs before it, is killed at one point after the other, each time
further on, and is then left to finish. Its output must be the one of a run that was never killed.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.graph import upstream
from pipelines.stage import load_receipt
from pipelines.store.receipts import Receipt

KILLED, FAILED = -9, 1
PART = ("part.before_rename", "part.before_receipt", "part_receipt.before_rename")
END = "receipt.before_rename"
# stage, its fault points in turn, and how the attempts end. Where the work is done by Ray's workers, a killed
# one is started again a few times: killed at every first part (:1) the stage fails, killed now and then it
# finishes.
CASES = [
    ("annotators", ("checkpoint.before_rename:1",), FAILED),
    ("annotators", ("folder.before_rename:1", "folder.before_rename:2", *PART, END), KILLED),
    ("filter", ("part.before_rename:1",), FAILED),
    ("filter", (END,), KILLED),
    ("recaption", ("part_receipt.before_rename:2",), 0),
    ("recaption", (END,), KILLED),
    ("shard", ("part.before_receipt:1",), FAILED),
    ("shard", (END,), KILLED),
    ("train", ("checkpoint.before_rename:1", "checkpoint.before_rename:2", "folder.before_rename"), KILLED),
    ("train", (*PART, END), KILLED),
    ("distill", ("checkpoint.before_rename:1", "folder.before_rename", *PART, END), KILLED),
    ("evaluate", (*(f"{point}:2" for point in PART), END), KILLED),
    (
        "promote",
        ("before_version", *PART, "before_champion", "before_log", "history.before_rename", END),
        KILLED,
    ),
]


@pytest.mark.parametrize(("stage", "points", "ends"), CASES)
def test_a_killed_stage_finishes_to_the_same_bytes(micro_home, tmp_path, stage, points, ends):
    home = copy_of(micro_home, tmp_path / "home", stage)
    named = [f"{stage}.{point}" for point in points]
    program = [sys.executable, Path(__file__).with_name("attempts.py"), home, stage, *named]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    statuses = dict(zip([*named, "finish"], json.loads(done.stdout.splitlines()[-1]), strict=True))
    assert statuses == {**dict.fromkeys(named, ends), "finish": 0}, done.stderr[-2000:]

    killed, whole = output(home, stage), output(micro_home, stage)
    receipt, wanted = load_receipt(killed), load_receipt(whole)
    assert receipt is not None and wanted is not None
    assert receipt.fingerprint == wanted.fingerprint
    assert content(killed, receipt) == content(whole, wanted)
    assert (receipt.counts, receipt.reasons) == (wanted.counts, wanted.reasons)
    assert names(killed) == names(whole)  # nothing half-written is left


def content(folder: Path, receipt: Receipt) -> dict[str, object]:
    """Path -> sha256 of an output's files; of metrics.json what it says, but for how long drawing took."""
    found: dict[str, object] = {entry.path: entry.sha256 for entry in receipt.files}
    if "metrics.json" in found:
        metrics = json.loads((folder / "metrics.json").read_text())
        for entry in (*metrics["teacher"].values(), *metrics["student"].values()):
            assert entry.pop("seconds_per_image") > 0
        found["metrics.json"] = metrics
    return found


def copy_of(source: Path, home: Path, stage: str) -> Path:
    """A HOME with the config and every output that the stage needs, and without the stage's own."""
    home.mkdir()
    shutil.copy(source / "run.json", home)
    for name in ("corpus", *upstream(stage)):
        shutil.copytree(source / name, home / name)
    return home


def output(home: Path, stage: str) -> Path:
    (found,) = [path for path in (home / stage).iterdir() if (path / "receipt.json").exists()]
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
