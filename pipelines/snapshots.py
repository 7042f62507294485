"""Which corpus a snapshot's name means: HOME/registered/<name>.json, written by its first run.

Command, page, backfill, schedule and sensor read it, so that all of them make a snapshot of the same corpus.
Once an output was made of it, a name keeps its URI and its content: another corpus, or the same file with
other bytes in it, is refused (until then, as after half an upload that failed, the record is replaced). So a
corpus that grows gets a new name for each state of it. A corpus that was moved as it is: edit `corpus` in its
record; the digest is still compared.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.errors import ConfigError
from pipelines.store.mirror import store_at
from pipelines.store.provenance import now

FOLDER = "registered"
SUFFIX = ".json"


@dataclass(frozen=True)
class Snapshot:
    """A registered snapshot. corpus: its URI (toy:N too); digest: of the corpus's content; at: UTC."""

    name: str
    corpus: str
    digest: str
    at: str


def name_fault(name: str) -> str | None:
    """What is wrong with a snapshot's name: it is part of paths and of Dagster's partition keys."""
    if name and name[0] != "." and all(letter.isalnum() or letter in "-_." for letter in name):
        return None
    return "a snapshot's name is letters, digits, '-', '_' and '.', such as 2026-11-20"


def registered(home: Path, name: str) -> Snapshot | None:
    """The record of a name; None when it never ran. Raises ConfigError for a record that cannot be read."""
    stored = store_at(home / FOLDER).read(f"{name}{SUFFIX}")
    if stored is None:
        return None
    try:
        fields = json.loads(stored.content)
        return Snapshot(name, str(fields["corpus"]), str(fields["digest"]), str(fields["at"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{home / FOLDER / name}{SUFFIX}: damaged, not a snapshot's record; put it back from a copy, or"
            f" remove it and run snapshot '{name}' again with its corpus"
        ) from error


def all_registered(home: Path) -> Iterator[Snapshot]:
    """Every registered snapshot, in name order."""
    for key in store_at(home / FOLDER).keys(""):
        if key.endswith(SUFFIX) and (snapshot := registered(home, key.removesuffix(SUFFIX))) is not None:
            yield snapshot


def register(home: Path, name: str, corpus: str, digest: str, *, replace: bool = False) -> None:
    """Record what the name means, for good; the first of two processes wins.

    replace: also if it means something else so far. Raises ConfigError for another corpus.
    """
    store, key = store_at(home / FOLDER), f"{name}{SUFFIX}"
    stored = store.read(key) if replace else None
    recorded = registered(home, name)
    if recorded is None or (stored and (recorded.corpus, recorded.digest) != (corpus, digest)):
        content = json.dumps(asdict(Snapshot(name, corpus, digest, now())), indent=1).encode()
        store.put(key, content, if_match=stored.tag if stored else None)
        recorded = registered(home, name)
    assert recorded is not None, "records are never removed"
    refuse_other_corpus(recorded, corpus, digest)


def refuse_other_corpus(snapshot: Snapshot, corpus: str, digest: str | None = None) -> None:
    """Raise ConfigError unless the corpus is the recorded one; with a digest, unless its content is, too."""
    if corpus != snapshot.corpus:
        raise ConfigError(
            f"--corpus {corpus}: snapshot '{snapshot.name}' is {snapshot.corpus} since {snapshot.at[:10]};"
            f" give this corpus another name with --snapshot NAME, or go on with that one by --snapshot"
            f" {snapshot.name} without --corpus"
        )
    if digest is not None and digest != snapshot.digest:
        raise ConfigError(
            f"--corpus {corpus}: its content changed since it was recorded as snapshot '{snapshot.name}'"
            f" ({snapshot.digest[:12]} on {snapshot.at[:10]}, now {digest[:12]}); give the new state another"
            " name with --snapshot NAME"
        )
