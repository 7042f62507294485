"""A store in an S3 bucket: whole objects, and conditional puts (If-None-Match, If-Match) that AWS S3, MinIO,
SeaweedFS and others have.

Credentials, region and AWS_ENDPOINT_URL are taken as boto3 takes them, from the environment or ~/.aws.
"""

import functools
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.durable import Written, nothing, sha256_file, write_file
from pipelines.store.store import Stored

ABSENT = {"404", "NoSuchKey"}
REFUSED = {"412", "PreconditionFailed", "ConditionalRequestConflict", *ABSENT}
ATTEMPTS = 4  # at what may be repeated; a conditional put may not: its own first try would refuse the second
TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class S3Store:
    """The objects of a bucket whose keys begin with `prefix/`. Picklable.

    A service deletes without a condition, so an empty object stands for one that is absent.
    """

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def within(self, folder: str) -> "S3Store":
        """The objects under a folder."""
        return S3Store(self.bucket, self._key(folder))

    def read(self, key: str) -> Stored | None:
        with _os_errors(f"{self}/{key}", *ABSENT):
            found = _client().get_object(Bucket=self.bucket, Key=self._key(key))
            content = found["Body"].read()
            return Stored(content, found["ETag"], found["LastModified"].timestamp()) if content else None
        return None

    def write(
        self, key: str, fill: Callable[[Path], object], *, before_commit: Callable[[], None] = nothing
    ) -> Written:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "object"
            fill(path)
            written = Written(path.stat().st_size, sha256_file(path))
            before_commit()
            self.upload(path, key)
        return written

    def upload(self, path: Path, key: str) -> None:
        """Put a file there, whatever was there."""
        with _os_errors(f"{self}/{key}"):
            _client().upload_file(str(path), self.bucket, self._key(key))

    def download(self, key: str, path: Path) -> Written:
        """Write the object into a file, whole or not at all. Raises FileNotFoundError when there is none."""
        with _os_errors(f"{self}/{key}", *ABSENT):
            return write_file(
                path,
                lambda temporary: _client().download_file(self.bucket, self._key(key), str(temporary)),
                suffix=secrets.token_hex(4),
            )
        raise FileNotFoundError(f"{self}/{key}")

    def put(self, key: str, content: bytes, *, if_match: str | None) -> str | None:
        if if_match is not None:
            return self._put(key, content, IfMatch=if_match)
        if (tag := self._put(key, content, IfNoneMatch="*")) is not None:
            return tag
        tag = self._tag_of_empty(key)
        return self._put(key, content, IfMatch=tag) if tag is not None else None

    def delete(self, key: str, *, if_match: str) -> bool:
        return self._put(key, b"", IfMatch=if_match) is not None

    def keys(self, prefix: str) -> list[str]:
        start = self._key(prefix)
        found = _client_pages(self, Prefix=start, Delimiter="/")
        names = [item["Key"] for page in found for item in page.get("Contents", []) if item["Size"]]
        return sorted(prefix + name.removeprefix(start) for name in names)

    def sizes(self, prefix: str = "") -> dict[str, tuple[int, str]]:
        """Key -> (bytes, e-tag) of every object whose key starts with `prefix`, at any depth."""
        start = self._key(prefix)
        return {
            prefix + item["Key"].removeprefix(start): (item["Size"], item["ETag"])
            for page in _client_pages(self, Prefix=start)
            for item in page.get("Contents", [])
            if item["Size"]
        }

    def remove(self, prefix: str) -> None:
        """Delete every object whose key starts with `prefix`, at any depth."""
        with _os_errors(f"{self}/{prefix}"):
            for page in _client_pages(self, Prefix=self._key(prefix)):
                if found := [{"Key": item["Key"]} for item in page.get("Contents", [])]:
                    _client().delete_objects(Bucket=self.bucket, Delete={"Objects": found, "Quiet": True})

    def remove_empty(self, marked: str, *, older_than: float) -> None:
        """Delete what stands for absent objects and has `marked` in its key, which nobody uses again.

        older_than: seconds. One under a key that somebody may put again must stay: nothing deletes it by tag.
        """
        before = time.time() - older_than
        for page in _client_pages(self, Prefix=self._key("")):
            for item in page.get("Contents", []):
                if not item["Size"] and marked in item["Key"] and item["LastModified"].timestamp() < before:
                    with _os_errors(str(self)):
                        _client().delete_object(Bucket=self.bucket, Key=item["Key"])

    def copy(self, source: str, target: str) -> None:
        """Put what lies under one key under another, within the service."""
        with _os_errors(f"{self}/{source}"):
            where = {"Bucket": self.bucket, "Key": self._key(source)}
            _client().copy(where, self.bucket, self._key(target))

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _put(self, key: str, content: bytes, **condition: str) -> str | None:
        with _os_errors(f"{self}/{key}", *REFUSED):
            done = _client(attempts=1).put_object(
                Bucket=self.bucket, Key=self._key(key), Body=content, **condition
            )
            return str(done["ETag"])
        return None

    def _tag_of_empty(self, key: str) -> str | None:
        with _os_errors(f"{self}/{key}", *ABSENT):
            found = _client().head_object(Bucket=self.bucket, Key=self._key(key))
            return None if found["ContentLength"] else str(found["ETag"])
        return None


def _client_pages(store: S3Store, **request: str) -> Iterator[dict[str, Any]]:
    with _os_errors(f"{store}/{request['Prefix']}"):
        yield from _client().get_paginator("list_objects_v2").paginate(Bucket=store.bucket, **request)


@functools.cache
def _client(attempts: int = ATTEMPTS) -> Any:
    """One for each process; its clients may be used by several threads."""
    import boto3
    from botocore.config import Config

    retries: Any = {"total_max_attempts": attempts, "mode": "standard"}
    timeouts = {"connect_timeout": TIMEOUT_SECONDS, "read_timeout": TIMEOUT_SECONDS}
    return boto3.client("s3", config=Config(retries=retries, **timeouts))


@contextmanager
def _os_errors(what: str, *expected: str) -> Iterator[None]:
    """Raise what boto raises as OSError; errors with the codes `expected` end the block and nothing more."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        if str(error.response.get("Error", {}).get("Code")) not in expected:
            raise OSError(f"{what}: {error}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise OSError(f"{what}: {error}") from error
