"""Files and folders that are whole or not there, also after a power cut.

Everything is written beside its place as `<name>.tmp-<suffix>`, flushed to the disk and renamed; then the
folder that names it is flushed. The store (pipelines/store) writes HOME through these functions, and what
components write themselves (checkpoints, the toy web, the report) goes through them too.
"""

import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

TEMPORARY = ".tmp-"  # in the name of whatever is not whole yet
Flushed = Literal["name", "bytes", "nothing"]
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2(2)


@dataclass(frozen=True)
class Written:
    """A file that was written: its size in bytes and its sha256 in hex."""

    bytes: int
    sha256: str


def nothing() -> None:
    """The default of `before_rename`."""


def write_file(
    path: Path,
    fill: Callable[[Path], object],
    *,
    suffix: str = "",
    before_rename: Callable[[], None] = nothing,
    flushed: Flushed = "name",
) -> Written:
    """Have `fill` write a temporary file, then rename it to `path`.

    Readers of `path` see the old file or the new one, whole. suffix: ends the temporary's name; random by
    default. before_rename: called when the new file is whole and still unnamed (fault points). flushed: what
    the disk is to hold on return: the file and its name; the bytes, for who flushes the folder later; or
    nothing, for who checks the file's hash before it is used.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, suffix)
    try:
        fill(temporary)
        if flushed != "nothing":
            flush(temporary)
        written = Written(temporary.stat().st_size, sha256_file(temporary))
        before_rename()
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if flushed == "name":
        flush(path.parent)
    return written


def write_bytes(path: Path, content: bytes, *, before_rename: Callable[[], None] = nothing) -> Written:
    """Write `content` to `path`, whole or not at all."""
    return write_file(path, lambda temporary: temporary.write_bytes(content), before_rename=before_rename)


def write_once(path: Path, content: bytes, *, mode: int = 0o666) -> bool:
    """Write `content` to `path` unless something is there; whether it was written. mode: of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "")
    try:
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
            file.write(content)
        flush(temporary)
        os.link(temporary, path)  # unlike a rename it leaves one that is there
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)
    return True


def write_text(path: Path, text: str) -> Written:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    return write_bytes(path, text.encode())


@contextmanager
def write_folder(
    path: Path, *, suffix: str = "", before_rename: Callable[[], None] = nothing
) -> Iterator[Path]:
    """Yield an empty folder to fill; on leaving, flush every file in it and rename it to `path`.

    A folder that is already at `path` is removed just before the rename. An error in the block leaves `path`
    as it was.
    """
    temporary = _beside(path, suffix)
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with the same suffix
    temporary.mkdir(parents=True)
    try:
        yield temporary
        flush_folder(temporary)
        before_rename()
        remove(path)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush(path.parent)


def rename(source: Path, target: Path) -> None:
    """Rename a whole folder to a name that is free, durably. Raises OSError when `target` is taken."""
    source.rename(target)
    flush(target.parent)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two names of one folder in one step; False where the system or file system cannot.

    Linux's renameat2 with RENAME_EXCHANGE: there is no moment at which either name is absent. NFS has none.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library without it (glibc before 2.28)
        return False
    if renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE):
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            return False
        raise OSError(code, os.strerror(code), str(first))
    flush(first.parent)
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; nothing there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path, *, older_than: float = 0.0, recursive: bool = True) -> None:
    """Remove what killed processes left half-written under `folder`.

    older_than: seconds; younger temporaries stay, since a living process may be writing them.
    """
    temporaries = folder.rglob(f"*{TEMPORARY}*") if recursive else folder.glob(f"*{TEMPORARY}*")
    before = time.time() - older_than
    for stale in sorted(temporaries, reverse=True):
        with suppress(FileNotFoundError):  # another process sweeps too
            if not older_than or stale.stat().st_mtime < before:
                remove(stale)


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Have the disk hold every file and name under `folder`."""
    for path in sorted(folder.rglob("*")):
        flush(path)
    flush(folder)


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}{TEMPORARY}{suffix or secrets.token_hex(4)}")
