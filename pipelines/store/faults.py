"""Named fault points: where the tests (and an operator's drill) may kill the process.

`STRAIGHTSHOT_FAULT=filter.part.before_rename:3` makes the third pass of a process through that point
SIGKILL it. Unset, a fault point costs one dictionary look-up.
"""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.training.checkpoints import Checkpoints

FAULT_VARIABLE = "STRAIGHTSHOT_FAULT"
_passes: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """Kill this process if the environment names this point and this is its k-th pass."""
    wanted, _, k = os.environ.get(FAULT_VARIABLE, "").partition(":")
    if wanted != name:
        return
    _passes[name] += 1
    if _passes[name] == int(k or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def checkpoints_at(folder: Path, name: str, *, keep: int = 1, background: bool = False) -> "Checkpoints":
    """A training's checkpoints under `folder`, with the fault point `<name>.checkpoint.before_rename`."""
    from components.training.checkpoints import BackgroundCheckpoints, Checkpoints

    kind = BackgroundCheckpoints if background else Checkpoints
    return kind(folder, lambda: fault_point(f"{name}.checkpoint.before_rename"), keep=keep)
