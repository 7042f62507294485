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

from pipelines.graph import STAGES, upstream
from pipelines.stage import load_receipt

KILLED, FAILED = -9, 1
PART = ("part.before_rename", "part.before_receipt", "part_receipt.before_rename")
END = ("receipt.before_rename",)
POINTS = {
    "annotators": ("folder.before_rename:1", "folder.before_rename:2", *PART, *END),
    "filter": ("part.before_rename:3", *END),
    "recaption": ("part_receipt.before_rename:2", *END),
    "shard": (*PART, *END),
    "train": (
        "checkpoint.before_rename:1",
        "checkpoint.before_rename:2",
        "folder.before_rename",
        *PART,
        *END,
    ),
    "distill": ("checkpoint.before_rename:1", "folder.before_rename", *PART, *END),
    "evaluate": ("part.before_rename:2", "part.before_receipt:2", "part_receipt.before_rename:2", *END),
    "promote": ("before_version", *PART, "before_champion", "before_log", "history.before_rename", *END),
}


@pytest.mark.parametrize("stage", [stage.name for stage in STAGES])
def test_a_killed_stage_finishes_to_the_same_bytes(micro_home, tmp_path, stage):
    home = copy_of(micro_home, tmp_path / "home", stage)
    points = [f"{stage}.{point}" for point in POINTS[stage]]
    program = [sys.executable, Path(__file__).with_name("attempts.py"), home, stage, *points]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    statuses = dict(zip([*points, "finish"], json.loads(done.stdout.splitlines()[-1]), strict=True))
    assert statuses.pop("finish") == 0, done.stderr[-2000:]
    # A worker that is killed is started again a few times: then the stage may even finish.
    workers = {p for p in points if stage in ("filter", "recaption", "shard") and ".part" in p}
    assert {p: s for p, s in statuses.items() if p not in workers} == {
        p: KILLED for p in points if p not in workers
    }
    assert {statuses[p] for p in workers} <= {0, FAILED, KILLED}

    killed, whole = output(home, stage), output(micro_home, stage)
    assert killed.name == whole.name
    receipt, wanted = load_receipt(killed), load_receipt(whole)
    assert receipt is not None and wanted is not None
    assert {entry.path: entry.sha256 for entry in receipt.files} == {
        entry.path: entry.sha256 for entry in wanted.files
    }
    assert receipt.digest == wanted.digest
    assert (receipt.counts, receipt.reasons) == (wanted.counts, wanted.reasons)
    assert names(killed) == names(whole)  # nothing half-written is left


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
