"""Evaluation sets that the corpus must not repeat: images, and prompts, by path.

Images are any corpus (`folder:PATH`, `parquet:PATH`, `webdataset:PATH`): their signatures become parts that
the search for duplicates reads before the corpus. Prompts are a file of them: one a line, or JSON lines,
CSV or TSV with a column `prompt`.
"""

import csv
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from components.corpus.schemas import FILTERED
from pipelines.errors import ConfigError
from pipelines.execution.engine import Engine
from pipelines.stages.data.duplicate_search import SIGNATURE
from pipelines.store.parts import Parts
from pipelines.store.receipts import PartReceipt

COLUMN = "prompt"
_SCHEMA = pa.schema([FILTERED.field(name) for name in SIGNATURE])
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def image_parts(engine: Engine, parts: Parts, uris: Iterable[str]) -> list[Path]:
    """Parts with the signatures of the sets' images, in order. Raises InputError for what is no corpus."""
    from components.corpus.readers import open_corpus

    tasks = []
    for number, uri in enumerate(uris):
        for stream, fragments in enumerate(open_corpus(uri).streams):
            listed = [fragment.to_dict() for fragment in fragments]
            tasks.append({"name": f"set-{number:03d}-{stream:05d}", "uri": uri, "fragments": listed})
    receipts = engine.map_parts(SignatureWorker, tasks, setup={"parts": parts}, on_done=lambda _: None)
    return [parts.path(file.path) for receipt in receipts for file in receipt.files]


def read_prompts(paths: Iterable[str]) -> frozenset[str]:
    """The prompts of these files, as `same_text` compares them. Raises ConfigError for an unreadable file."""
    prompts: set[str] = set()
    for path in paths:
        try:
            prompts |= {same_text(prompt) for prompt in _prompts_of(UPath(path))}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"filter.evaluation_prompts: {path}: {type(error).__name__}: {error}; give a text file of one"
                f" prompt a line, or JSON lines, CSV or TSV with a column '{COLUMN}'"
            ) from error
    return frozenset(prompts - {""})


def same_text(text: str | None) -> str:
    """A text without what does not make it another one: case, spaces, the punctuation at its ends."""
    return " ".join((text or "").casefold().split()).strip(" .!?\"'")


class SignatureWorker:
    """Measures the images of one stream of an evaluation set."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def __call__(self, task: Any) -> PartReceipt:
        import hashlib

        from components.corpus.fragments import Fragment
        from components.corpus.images import ImageRejected, open_reduced
        from components.corpus.labelled import RULES
        from components.corpus.readers import read_stream
        from components.filtering.signature import SHARP_SIDE, signature_of

        if (finished := self.parts.finished(task["name"])) is not None:
            return finished
        rows = []
        fragments = [Fragment.from_dict(fragment) for fragment in task["fragments"]]
        records = (record for _, records in read_stream(fragments) for record in records)
        for number, record in enumerate(records):
            try:
                signature = signature_of(open_reduced(record.image, RULES, SHARP_SIDE).pixels)
            except ImageRejected:
                continue  # nothing in a corpus can be a copy of what cannot be opened
            name = f"{record.url or number} of {task['uri']}"
            digest = hashlib.sha256(record.image or b"").hexdigest()
            rows.append({"key": name, "sha256": digest, **vars(signature)})
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        return self.parts.write(task["name"], {f"{task['name']}.parquet": partial(pq.write_table, table)})


def _prompts_of(path: UPath) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if (delimiter := _DELIMITERS.get(path.suffix.lower())) is not None:
            rows = csv.DictReader(file, delimiter=delimiter)
            names = {name.casefold(): name for name in rows.fieldnames or ()}
            return [row[names[COLUMN]] or "" for row in rows]
        if path.suffix.lower() in (".jsonl", ".json"):
            return [str(json.loads(line)[COLUMN]) for line in file if line.strip()]
        return list(file)
