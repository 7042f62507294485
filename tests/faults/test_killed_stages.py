"""SIGKILL at any moment and the same command again gives the same bytes: every stage, at its fault points.

Each stage starts from the finished outputs before it, is killed at one point after the other, each time
further on, or fails because its workers are, and is then left to finish. Its output must be the one of a run
that was never killed.

The first case runs with every other test; the long series is marked `faults` (`pytest -m faults`).
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.graph import upstream
from pipelines.store.outputs import load_receipt
from pipelines.store.receipts import Receipt
from tests.faults.attempts import Attempt

SOURCES = Path(__file__).parents[2] / "pipelines"
KILLED, FAILED, FINISHED = -9, 1, 0
PART = ("part.before_rename", "part.before_receipt", "part_receipt.before_rename")
END = "receipt.before_rename"
MOVE = ("before_intent", "after_intent", "between_aliases", "before_done")
SWAP = ("swap.before_exchange", "swap.before_removal")
# stage, and how the attempts end at its fault points in turn. Where the work is done by Ray's workers, a
# killed one is started again a few times: killed at every first part (:1) the stage fails, killed now and
# then it finishes. Parts that a stage's own process writes are written alike by all: three show it.
SHORT = [("recaption", {"part_receipt.before_rename:2": FINISHED})]
LONG = [
    (
        "annotators",
        {
            "checkpoint.before_rename:1": FAILED,
            **dict.fromkeys(("folder.before_rename:1", "folder.before_rename:2", END), KILLED),
        },
    ),
    ("filter", {"part.before_rename:1": FAILED, END: KILLED}),
    ("shard", {"part.before_receipt:1": FAILED, END: KILLED}),
    (
        "train",
        dict.fromkeys(
            ("checkpoint.before_rename:1", "checkpoint.before_rename:2", "folder.before_rename", *PART, END),
            KILLED,
        ),
    ),
    ("distill", dict.fromkeys(("checkpoint.before_rename:1", "folder.before_rename", END), KILLED)),
    ("evaluate", dict.fromkeys((*(f"{point}:2" for point in PART), END), KILLED)),
    ("promote", dict.fromkeys(("before_version", *PART, *MOVE, END), KILLED)),
]
FORCED = [("recaption", (END, *SWAP)), ("train", ("checkpoint.before_rename:1", END, *SWAP))]
ELSEWHERE = {
    "swap.between_renames": "tests/pipelines/test_stage_kills.py",  # where names cannot be exchanged
    "before_mark": "tests/pipelines/retention/test_takedown.py",
    **dict.fromkeys(
        ("before_receipt", "before_rename", "before_removal"), "tests/pipelines/retention/test_collection.py"
    ),
}


@pytest.mark.parametrize(
    ("stage", "ends"), [*SHORT, *(pytest.param(*case, marks=pytest.mark.faults) for case in LONG)]
)
def test_a_killed_stage_finishes_to_the_same_bytes(micro_home, tmp_path, stage, ends):
    home = copy_of(micro_home, tmp_path / "home", stage)
    attempts = attempts_at(home, stage, tuple(ends))
    assert {point: attempt.status for point, attempt in attempts.items()} == {**ends, "": FINISHED}
    whole = {point: attempt.finished_at is not None for point, attempt in attempts.items()}
    assert whole == {point: end == FINISHED for point, end in ends.items()} | {"": True}
    assert_same_output(home, micro_home, stage)


@pytest.mark.faults
@pytest.mark.parametrize(("stage", "points"), FORCED)
def test_a_forced_stage_killed_anywhere_ends_with_one_whole_output(micro_home, tmp_path, stage, points):
    """After each kill one whole output stands: the old one until the two were exchanged, then the new one."""
    home = copy_of(micro_home, tmp_path / "home", stage)
    shutil.copytree(micro_home / stage, home / stage)
    first = load_receipt(output(home, stage))
    assert first is not None
    *attempts, last = attempts_at(home, stage, points, force=True).values()
    assert [attempt.status for attempt in attempts] == [KILLED] * len(points)
    *before, swapped = (attempt.finished_at for attempt in attempts)
    assert before == [first.finished_at] * len(before)
    assert first.finished_at < swapped < last.finished_at
    assert_same_output(home, micro_home, stage)
    assert len([path for path in (home / stage).iterdir() if path.is_dir()]) == 1


def test_every_fault_point_in_the_code_is_in_a_series():
    text = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    points = re.findall(
        r'fault_point(?:\(|, )f?"(?:\{[\w.]+\}|promote|rollback|gc|withdraw)\.([\w.]+)"', text
    )
    assert len(points) == len(re.findall(r"fault_point(?:\(|, )f?\"", text))  # the pattern reads all of them
    cases = [*(case[1] for case in (*SHORT, *LONG)), *(points for _, points in FORCED)]
    killed_at = {point.partition(":")[0] for case in cases for point in case}
    assert set(points) == killed_at | set(ELSEWHERE)
    for point, path in ELSEWHERE.items():
        assert point in (SOURCES.parent / path).read_text()


def attempts_at(
    home: Path, stage: str, points: tuple[str, ...], *, force: bool = False
) -> dict[str, Attempt]:
    """Point -> how the attempt that meets it ended; "" is the last, undisturbed one."""
    names = [f"{stage}.{point}" for point in points]
    options = ["--force"] if force else []
    program = [sys.executable, "-m", "tests.faults.attempts", *options, home, stage, *names]
    done = subprocess.run(program, cwd=SOURCES.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    attempts = [Attempt(**end) for end in json.loads(done.stdout.splitlines()[-1])]
    assert attempts[-1].status == FINISHED, done.stderr[-2000:]
    return dict(zip([*points, ""], attempts, strict=True))


def assert_same_output(home: Path, whole_home: Path, stage: str) -> None:
    """Both runs' outputs of a stage hold the same, and nothing half-written is left."""
    killed, whole = output(home, stage), output(whole_home, stage)
    receipt, expected = load_receipt(killed), load_receipt(whole)
    assert receipt is not None and expected is not None
    assert receipt.fingerprint == expected.fingerprint
    assert content(receipt) == content(expected)
    assert (receipt.counts, receipt.reasons) == (expected.counts, expected.reasons)
    assert names(killed) == names(whole)


def content(receipt: Receipt) -> dict[str, str]:
    """Path -> sha256 of an output's files, but for the timings, which no two runs share."""
    return {entry.path: entry.sha256 for entry in receipt.files if not entry.timing}


def copy_of(source: Path, home: Path, stage: str) -> Path:
    """A HOME with the config and every output that the stage needs, and without the stage's own."""
    home.mkdir()
    shutil.copy(source / "run.json", home)
    for name in ("corpus", *upstream(stage) - {"fetch"}):  # which is there for a list of URLs alone
        shutil.copytree(source / name, home / name)
    return home


def output(home: Path, stage: str) -> Path:
    """The stage's one output under HOME; what a forced run makes beside it is none yet."""
    paths = [path for path in (home / stage).iterdir() if (path / "receipt.json").exists()]
    (out,) = [path for path in paths if not path.suffix]
    return out


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
