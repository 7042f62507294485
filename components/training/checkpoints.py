"""Checkpoints of the training loop: whole or not there, verified before they are trusted.

A checkpoint is a folder `<images_seen>` with the states and a `checkpoint.json` of their hashes, written
beside its place and renamed; older ones are removed only afterwards. (Accelerate's own save_state deletes the
old one first and loads an incomplete one.)
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from components.durable import sha256_file, write_folder
from components.errors import InputError

STATE, MANIFEST = "state.pt", "checkpoint.json"


class Checkpoints:
    """The checkpoints under one folder, the newest `keep` of them.

    `before_rename` is called when one is whole but unnamed (faults).
    """

    def __init__(
        self, folder: Path, before_rename: Callable[[], None] = lambda: None, *, keep: int = 1
    ) -> None:
        self.folder, self.before_rename, self.keep = folder, before_rename, keep

    def save(self, images_seen: int, state: dict[str, Any]) -> None:
        """Write the state at `images_seen`, then drop the oldest beyond those to keep."""
        final = self.folder / f"{images_seen:012d}"  # one that is there is damaged: latest() passed it over
        with write_folder(final, suffix=str(os.getpid()), before_rename=self.before_rename) as folder:
            torch.save(state, folder / STATE)
            manifest = {"images_seen": images_seen, "sha256": sha256_file(folder / STATE)}
            (folder / MANIFEST).write_text(json.dumps(manifest))
        # Older ones only: a worker that outlives its run for a second must not remove the next run's.
        older = [folder for folder in reversed(self._folders()) if folder < final]
        for folder in older[self.keep - 1 :]:
            shutil.rmtree(folder)

    def wait(self) -> None:
        """Until what was saved is on the disk: here it is."""

    def latest(self) -> dict[str, Any] | None:
        """The newest state whose hash verifies; None to start from the beginning.

        Raises InputError for one that is no state of a training: nothing in it is executed.
        """
        for folder in reversed(self._folders()):
            if _verifies(folder):
                return _read(folder / STATE)
        return None

    def images_seen(self) -> int:
        """Of the newest checkpoint whose hash verifies; 0 when there is none."""
        return next((int(folder.name) for folder in reversed(self._folders()) if _verifies(folder)), 0)

    def _folders(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("*") if p.name.isdigit())


class BackgroundCheckpoints(Checkpoints):
    """Checkpoints that are written while the training goes on, from a copy of the state in memory.

    One at a time: the next one, and `wait`, wait for the one before, and raise what it raised.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._thread = ThreadPoolExecutor(1)  # the interpreter waits for it at its end
        self._writing: Future[None] | None = None

    def save(self, images_seen: int, state: dict[str, Any]) -> None:
        """Copy the state to the CPU's memory; a thread does the rest."""
        self.wait()
        copied = tree_map_only(torch.Tensor, lambda tensor: tensor.detach().to("cpu", copy=True), state)
        self._writing = self._thread.submit(super().save, images_seen, copied)

    def wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def _read(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise InputError(
            f"{path} is no checkpoint of a training: it holds something else than tensors, numbers and texts,"
            " of which nothing was executed; remove its folder to go on from the one before"
        ) from error
    return state


def _verifies(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return bool(manifest["sha256"] == sha256_file(folder / STATE))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):  # torn, or not ours
        return False
