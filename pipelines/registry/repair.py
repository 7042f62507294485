"""Damaged registered models: found by the hashes of their files, restored from the outputs they came from."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from components.durable import write_file
from pipelines.registry.model_registry import REGISTERED_NAME, Registry, registry_of
from pipelines.registry.model_version import ModelVersion
from pipelines.registry.packaging import (
    CODE,
    COMPONENTS,
    MODEL_IN_PACKAGE,
    SERVED_CODE,
    code_here,
    damaged_files,
    upload,
)
from pipelines.store.mirror import fetch_files
from pipelines.store.outputs import readable_receipt
from pipelines.store.receipts import MODEL, RECEIPT, sha256_file, wrong_with


@dataclass(frozen=True)
class Inspection:
    """One version, looked at. damaged: its files that were not as registered; restored: those that are again.

    advice: what to run for the others; empty where all is well.
    """

    version: ModelVersion
    damaged: tuple[str, ...]
    restored: tuple[str, ...] = ()
    advice: str = ""


def inspect(
    home: Path, uri: str | None = None, name: str = REGISTERED_NAME, *, repair: bool = False
) -> Iterator[Inspection]:
    """Hash every file of every version, the newest first. repair: restore what is damaged, too."""
    registry = registry_of(home, uri, name)
    with registry.tracker.answering():
        for version in registry.versions():
            damaged = _damaged(registry, version)
            if not damaged or not repair:
                yield Inspection(version, tuple(damaged), advice="--repair restores them" if damaged else "")
                continue
            _restore(registry, version, damaged, home)
            left = _damaged(registry, version)
            restored = tuple(path for path in damaged if path not in left)
            yield Inspection(version, tuple(damaged), restored, _advice(left, version) if left else "")


def _damaged(registry: Registry, version: ModelVersion) -> list[str]:
    """Of a remote version as its server has it now; a copy here that is not the same goes."""
    with tempfile.TemporaryDirectory() as folder:
        damaged = damaged_files(registry.package(version, Path(folder)), version.files)
    if registry.is_remote(version) and damaged_files(registry.package(version), version.files):
        shutil.rmtree(registry.package(version))
    return damaged


def _restore(registry: Registry, version: ModelVersion, damaged: Sequence[str], home: Path) -> None:
    """Put the files back whose content is at hand, and take away what was added."""
    package, remote = registry.package(version), registry.is_remote(version)
    with tempfile.TemporaryDirectory() as folder:
        copies = registry.package_copies(version, Path(folder))
        at_hand = {sha256_file(path): path for path in [*copies, SERVED_CODE]} | _made_here(home)
        for path in damaged:
            source = at_hand.get(version.files.get(path, ""))
            if path == CODE and code_here() == version.files.get(CODE):
                _put_code(registry, version)
            elif source is not None and remote:
                upload(registry.tracker, registry.location(version), source, path)
            elif source is not None:
                write_file(package / path, partial(shutil.copyfile, source))
            elif path not in version.files and not remote:
                (package / path).unlink()


def _made_here(home: Path) -> dict[str, Path]:
    """The files of the models under HOME, by their hashes."""
    files = {}
    for receipt_path in sorted(home.glob(f"distill/*/{RECEIPT}")):
        receipt = readable_receipt(receipt_path.parent)
        if receipt is None:
            continue
        with suppress(FileNotFoundError):  # some are gone from the bucket; the others may be what is wanted
            fetch_files(receipt_path.parent / MODEL, receipt.files_in(MODEL))
        for entry in receipt.files_in(MODEL):
            path = receipt_path.parent / MODEL / entry.path
            if not wrong_with(path, entry):
                files[entry.sha256] = path
    return files


def _put_code(registry: Registry, version: ModelVersion) -> None:
    """The code of this checkout, which is that of the version, into its package."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / COMPONENTS.name
        shutil.copytree(COMPONENTS, code, ignore=shutil.ignore_patterns("__pycache__"))
        if registry.is_remote(version):
            upload(registry.tracker, registry.location(version), code, f"{CODE}{COMPONENTS.name}")
            return
        place = registry.package(version) / CODE
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(Path(folder), place)


def _advice(left: Sequence[str], version: ModelVersion) -> str:
    if left == [CODE]:
        return "its code is of another commit: check that out and run the same command there"
    if any(path.startswith(MODEL_IN_PACKAGE) for path in left):
        return (
            "no output here has these files; `straightshot run --select +promote` makes the model again, of"
            f" snapshot {version.snapshot or 'unknown'}"
        )
    return "`straightshot run --select promote --force promote` registers the model again, as a new version"
