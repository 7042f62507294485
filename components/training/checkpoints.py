"""Checkpoints of the training loop: whole or not there, verified before they are trusted.

A checkpoint is a folder `<images_seen>` with the states and a `checkpoint.json` of their hashes, written
beside its place and renamed; the one before it is removed only afterwards. (Accelerate's own save_state
deletes the old one first and loads an incomplete one.)
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

STATE, MANIFEST = "state.pt", "checkpoint.json"


class Checkpoints:
    """The checkpoints under one folder. `before_rename` is called when one is whole but unnamed (faults)."""

    def __init__(self, folder: Path, before_rename: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self.before_rename = before_rename

    def save(self, images_seen: int, state: dict[str, Any]) -> None:
        """Write the state at `images_seen`, then drop older ones."""
        final = self.folder / f"{images_seen:012d}"
        temporary = final.with_name(f"{final.name}.tmp-{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with our id
        temporary.mkdir(parents=True)
        torch.save(state, temporary / STATE)
        manifest = {"images_seen": images_seen, "sha256": _sha256(temporary / STATE)}
        (temporary / MANIFEST).write_text(json.dumps(manifest))
        for path in (temporary / STATE, temporary / MANIFEST, temporary):
            _fsync(path)
        self.before_rename()
        if final.exists():  # damaged, or latest() would have gone on from it
            shutil.rmtree(final)
        temporary.replace(final)
        _fsync(self.folder)
        for old in self._folders():
            if old < final:  # a worker that outlives its run for a second must not remove the next run's
                shutil.rmtree(old)

    def latest(self) -> dict[str, Any] | None:
        """The newest state whose hash verifies; None to start from the beginning."""
        for folder in reversed(self._folders()):
            if _verifies(folder):
                state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
                return state
        return None

    def images_seen(self) -> int:
        """Of the newest checkpoint whose hash verifies; 0 when there is none."""
        return next((int(folder.name) for folder in reversed(self._folders()) if _verifies(folder)), 0)

    def _folders(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("*") if p.name.isdigit())


def _verifies(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return bool(manifest["sha256"] == _sha256(folder / STATE))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):  # torn, or not ours
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
