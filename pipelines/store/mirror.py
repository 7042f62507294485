"""HOME in a bucket: s3://BUCKET/PREFIX is the truth, and a local folder mirrors what this host needs of it.

Stages read and write local files, as they do anywhere. What they finish is put into the bucket, object by
object, the receipt last; what they read is fetched first. Locks, marks and receipts are the bucket's alone.
What only a resume on the same host needs (checkpoints) stays in the mirror.

A mirror lies under STRAIGHTSHOT_MIRRORS, by default ~/.cache/straightshot, and its path says which bucket it
mirrors: <mirrors>/s3-mirror/BUCKET/PREFIX. So a path alone tells workers in other processes where it belongs.
Nodes of a cluster must see the mirror under one path, as they must see a HOME on a disk.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from components.durable import Flushed, Written, nothing, remove, write_bytes
from pipelines.store.local import LocalStore
from pipelines.store.receipts import RECEIPT, FileEntry, wrong_with
from pipelines.store.s3 import S3Store
from pipelines.store.store import Store, Stored

MIRRORS_VARIABLE = "STRAIGHTSHOT_MIRRORS"
DEFAULT_MIRRORS = "~/.cache/straightshot"
MARK = "s3-mirror"
TRANSFERS = 8  # at the same time
OUTPUT_DEPTH = 3  # parts of the key of an output's receipt: stage, fingerprint, receipt.json
OWN_DEPTH = 2  # most parts of a key of HOME's own small files: registered/<name>.json


@dataclass(frozen=True)
class MirrorStore:
    """A folder of a bucket. What is written there lies in the local folder, too. Picklable."""

    local: LocalStore
    remote: S3Store

    def read(self, key: str) -> Stored | None:
        return self.remote.read(key)

    def write(
        self, key: str, fill: Callable[[Path], object], *, before_commit: Callable[[], None] = nothing
    ) -> Written:
        written = self.local.write(key, fill, before_commit=before_commit)
        self.remote.upload(self.local.root / key, key)
        return written

    def put(self, key: str, content: bytes, *, if_match: str | None) -> str | None:
        return self.remote.put(key, content, if_match=if_match)

    def delete(self, key: str, *, if_match: str) -> bool:
        return self.remote.delete(key, if_match=if_match)

    def keys(self, prefix: str) -> list[str]:
        return self.remote.keys(prefix)


def mirror_of(bucket: str, prefix: str) -> Path:
    """The local folder that mirrors s3://bucket/prefix."""
    mirrors = Path(os.environ.get(MIRRORS_VARIABLE) or DEFAULT_MIRRORS).expanduser().absolute()
    return mirrors.joinpath(MARK, bucket, *prefix.strip("/").split("/"))


def remote_of(folder: Path) -> S3Store | None:
    """What the folder mirrors; None for a folder that is no mirror's."""
    if MARK not in folder.parts:
        return None
    bucket, *prefix = folder.parts[folder.parts.index(MARK) + 1 :]
    return S3Store(bucket, "/".join(prefix))


def store_at(folder: Path, run_id: str = "", *, flushed: Flushed = "name") -> Store:
    """The store whose keys lie in that folder under HOME. run_id: marks the temporaries of one run.

    flushed: what this host's disk holds of what is written (durable.py).
    """
    local, remote = LocalStore(folder, run_id, flushed), remote_of(folder)
    return local if remote is None else MirrorStore(local, remote)


def fetch_files(base: Path, files: Iterable[FileEntry]) -> None:
    """Have these files of an output, or of a part of one, in the mirror as they are listed.

    Nothing to do in a HOME that is no mirror. Raises FileNotFoundError where the bucket has them
    not, OSError where it cannot be reached.
    """
    if (remote := remote_of(base)) is None:
        return

    def fetch(entry: FileEntry) -> None:
        path = base / entry.path
        if not entry.bytes:
            write_bytes(path, b"")  # an empty object stands for an absent one
        elif remote.download(entry.path, path).sha256 != entry.sha256:
            raise FileNotFoundError(f"{remote}/{entry.path} has not the hash in its receipt")

    with ThreadPoolExecutor(TRANSFERS) as pool:
        list(pool.map(fetch, [entry for entry in files if wrong_with(base / entry.path, entry)]))


def publish(base: Path, files: Iterable[FileEntry]) -> None:
    """Put these files of an output into the bucket. Nothing to do in a HOME that is no mirror."""
    if (remote := remote_of(base)) is None:
        return
    with ThreadPoolExecutor(TRANSFERS) as pool:
        list(pool.map(lambda entry: remote.upload(base / entry.path, entry.path), files))


def refresh(home: Path) -> None:
    """Have every receipt, and HOME's own small files, in the mirror as they are in the bucket.

    Whoever looks for outputs by their receipts on a disk finds them so. Nothing to do in a HOME that is no
    mirror. Raises OSError where the bucket cannot be reached.
    """
    if (remote := remote_of(home)) is None:
        return
    objects = {key: tag for key, (_, tag) in remote.sizes().items() if _mirrored(key)}

    def fetch(key: str) -> None:
        if _md5(home / key) != objects[key].strip('"'):
            remote.download(key, home / key)

    with ThreadPoolExecutor(TRANSFERS) as pool:
        list(pool.map(fetch, objects))
    for receipt in home.glob(f"*/*/{RECEIPT}"):
        if receipt.relative_to(home).as_posix() not in objects:
            remove(receipt)


def _mirrored(key: str) -> bool:
    parts = key.split("/")
    if len(parts) == OUTPUT_DEPTH:
        return parts[-1] == RECEIPT
    return len(parts) <= OWN_DEPTH and parts[-1].endswith((".json", ".yaml"))


def _md5(path: Path) -> str:
    """The e-tag of an object that was put at once, as a service without its own keys computes it."""
    try:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    except OSError:
        return ""
