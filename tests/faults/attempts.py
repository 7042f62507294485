"""Runs one stage again and again, each time with another fault point set, in a process of its own.

    python attempts.py [--force] HOME STAGE POINT... -> JSON: how each attempt ended, see `Attempt`

After the points comes one attempt without any. What a stage imports is imported once and the attempts are
forked from there, which saves the imports of each; but for Ray, which every attempt imports and starts.
"""

import importlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.forks import STORES

TABLES = ("pandas", "pyarrow.parquet")
MODELS = ("open_clip", "torch._dynamo", "transformers")
IMPORTS = {  # of the stage's own process; the rest of the work is done by Ray's workers
    "annotators": (*TABLES, *MODELS),
    **dict.fromkeys(("filter", "recaption", "shard"), TABLES),
    **dict.fromkeys(("train", "distill", "evaluate", "promote"), ("accelerate", *MODELS, *STORES)),
}


@dataclass(frozen=True)
class Attempt:
    """status: its exit status, -9 if it was killed. finished_at: of the whole output it left; else None."""

    status: int
    finished_at: str | None


def run_stage(home: Path, stage: str, force: bool) -> None:
    """The stage as the command would run it."""
    from pipelines.config import saved_config
    from pipelines.execution.engine import Engine
    from pipelines.execution.progress import Progress
    from pipelines.pipeline import Pipeline

    config = saved_config(home)
    assert config is not None
    with Engine(workers=1) as engine:
        Pipeline(config, home, engine, Progress(quiet=True)).run_one(stage, force=force)


def forked(home: Path, stage: str, point: str, force: bool) -> int:
    """Exit status of an attempt in a child of this process."""
    child = os.fork()
    if child == 0:
        os.environ["STRAIGHTSHOT_FAULT"] = point
        run_stage(home, stage, force)
        os._exit(0)  # what it raises ends it as it ends any process, with status 1
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def finished_at(home: Path, stage: str) -> str | None:
    """When the stage's output was finished; None where none stands whole. All is hashed, nothing noted."""
    from pipelines.store.outputs import readable_receipt
    from pipelines.store.receipts import files_verify

    for folder in (home / stage).glob("*"):
        if folder.is_dir() and not folder.suffix and (receipt := readable_receipt(folder)) is not None:
            return receipt.finished_at if files_verify(folder, receipt.files) else None
    return None


def main(home: Path, stage: str, points: list[str], force: bool) -> None:
    for name in (*IMPORTS[stage], "pipelines.pipeline"):
        importlib.import_module(name)
    ends = []
    for point in [*points, ""]:
        status = forked(home, stage, point, force)
        ends.append(asdict(Attempt(status, finished_at(home, stage))))
    sys.stdout.write(json.dumps(ends) + "\n")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    main(Path(words[0]), words[1], words[2:], "--force" in sys.argv)
