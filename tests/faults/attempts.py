"""Runs one stage again and again, each time with another fault point set, in a process of its own.

    python attempts.py [--force] HOME STAGE POINT... -> JSON: each attempt's exit status (-9: killed)

After the points comes one attempt without any. The libraries are imported once and the attempts forked from
there, which saves their import for each; stages that start Ray get a fresh process instead.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

RAY_STAGES = ("filter", "recaption", "shard")


def attempt(home: Path, stage: str, force: bool) -> None:
    """The stage as the command would run it."""
    from pipelines.config import saved_config
    from pipelines.execution.engine import Engine
    from pipelines.execution.progress import Progress
    from pipelines.pipeline import Pipeline

    config = saved_config(home)
    assert config is not None
    engine = Engine(workers=1)
    try:
        Pipeline(config, home, engine, Progress(quiet=True)).run_one(stage, force=force)
    finally:
        engine.shutdown()


def forked(home: Path, stage: str, point: str, force: bool) -> int:
    """Exit status of an attempt in a child of this process."""
    child = os.fork()
    if child == 0:
        os.environ["STRAIGHTSHOT_FAULT"] = point
        attempt(home, stage, force)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def spawned(home: Path, stage: str, point: str, force: bool) -> int:
    """Exit status of an attempt in a fresh process."""
    program = [sys.executable, __file__, "--once", *(["--force"] if force else []), str(home), stage]
    return subprocess.run(program, env={**os.environ, "STRAIGHTSHOT_FAULT": point}, check=False).returncode


def main(home: Path, stage: str, points: list[str], force: bool) -> None:
    if stage not in RAY_STAGES:
        import accelerate
        import mlflow
        import open_clip
        import torch
        import transformers

        _ = accelerate, mlflow, open_clip, torch, transformers
    run = spawned if stage in RAY_STAGES else forked
    sys.stdout.write(json.dumps([run(home, stage, point, force) for point in [*points, ""]]) + "\n")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    forced = "--force" in sys.argv
    if "--once" in sys.argv:
        attempt(Path(words[0]), words[1], forced)
    else:
        main(Path(words[0]), words[1], words[2:], forced)
