"""What a server answered, kept by request: a stage that is run again asks nothing twice.

    <folder>/<2 hex digits>/<owner>/<digest of the request>.json

An owner is the sha256 of an image's bytes, so that a takedown of the image finds what was said of it. A file
is whole or not there; one that cannot be read counts as none, and the request is made again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.durable import remove, write_bytes, write_once


@dataclass(frozen=True)
class Answer:
    """A server's answer: its text, whether that was cut at the token limit, and its refusal, if it is one."""

    text: str
    cut: bool = False
    refusal: str | None = None


def request_digest(body: Mapping[str, Any]) -> str:
    """sha256 (hex) of a request's body."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Answers:
    """The answers in a folder, which any number of processes read and add to."""

    folder: Path

    def find(self, owner: str, digest: str) -> Answer | None:
        """The answer to that request, if there is one."""
        try:
            return Answer(**json.loads(self._path(owner, digest).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def keep(self, owner: str, digest: str, answer: Answer) -> Answer:
        """Add an answer; returns the one that counts: of two that came at once, the first to be whole."""
        path = self._path(owner, digest)
        content = json.dumps(asdict(answer), ensure_ascii=False).encode("utf-8", "surrogatepass")
        if not write_once(path, content):
            if (earlier := self.find(owner, digest)) is not None:
                return earlier
            write_bytes(path, content)  # what lies there cannot be read
        return answer

    def forget(self, owners: Iterable[str]) -> None:
        """Remove what was said of these images."""
        for owner in owners:
            remove(self._owned(owner))

    def _owned(self, owner: str) -> Path:
        return self.folder / owner[:2] / owner

    def _path(self, owner: str, digest: str) -> Path:
        return self._owned(owner) / f"{digest}.json"
