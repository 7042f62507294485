"""fetch: a list of URLs into a corpus of their images, and a reason for every row that has none.

    HOME/fetch/<fingerprint>/fetched/part-00000-00000.parquet, ..., rejects/part-00000-00000.parquet, ...

Only where the corpus is `urls:PATH`; the filter then reads what is fetched in its place. The web does not
answer twice alike, so later stages depend on the digest of what came, not on the list's.

The list is split into groups by host, so that the limits of a host hold over all workers; part m of group n
has the group's URLs m * rows_per_part and following, in the list's order. Each URL is journalled as soon as
it is done: a killed stage asks for none of them again.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason, record_key
from components.errors import one_line
from components.fetching.rules import FetchRules
from pipelines.errors import StageFailed
from pipelines.execution.worker_progress import ProgressWriter, followed
from pipelines.stage import SCRATCH, Input, Stage, StageConfig, Work
from pipelines.stages.data.part_records import (
    REJECTS_FOLDER,
    ROWS_PER_PAGE,
    Row,
    combine,
    parquet_path,
    reject_row,
    rejects_file,
    write_part,
)
from pipelines.store.mirror import store_at
from pipelines.store.parts import Parts
from pipelines.store.receipts import PARTS, PartReceipt

if TYPE_CHECKING:
    from components.fetching.crawl import WantedUrl
    from components.fetching.fetcher import Fetched, Fetcher
    from components.fetching.journal import Journal
    from components.fetching.outage import Outage

NAME = "fetch"
URLS = "urls"  # the kind of a corpus that is to be fetched
FETCHED_FOLDER = "fetched"
LISTS, JOURNALS, EVENTS = "lists", "journals", "events"  # folders under the scratch
OPEN_PARTS = 4  # of a worker at the same time, so that slow hosts of one do not hold up the next
BATCH_BYTES = 32 * 2**20  # of images in a row group, which one worker of the filter reads
BATCH_ROWS = 256  # most rows of one
SHOWN_URL = 100  # characters of a URL in an error
REPEATED = Rejection(Reason.FETCH_DUPLICATE, "a row before it has the same URL and text")


class FetchConfig(FetchRules, StageConfig):
    """How URLs are asked for, and how the list names them."""

    # How it is asked changes who answers, as the hour does; `--force fetch` asks again.
    NOT_IN_FINGERPRINT: ClassVar[Mapping[str, Any]] = dict.fromkeys(
        (
            *("contact", "connections", "connections_per_host", "host_delay", "max_crawl_delay", "tries"),
            *("connect_timeout", "read_timeout", "total_timeout", "backoff", "max_backoff"),
        ),
        True,
    )

    url_column: str = Field(default="url", description="the list's column of URLs")
    alt_text_column: str = Field(default="alt_text", description="the list's column of alt texts")
    rows_per_part: int = Field(default=1024, ge=1, description="most URLs fetched and written together")


def is_urls(corpus: str) -> bool:
    """Whether a corpus is a list of URLs, which this stage fetches."""
    return corpus.partition(":")[0] == URLS


def corpus_uri(corpus: Input) -> str:
    """Where the images of the filter's corpus lie: what was fetched, or the corpus itself."""
    return f"parquet:{corpus.path / FETCHED_FOLDER}" if corpus.name == NAME else corpus.location


def run(work: Work) -> list[PartReceipt]:
    """Split the list, then fetch its groups."""
    rows = _split(work)
    with (
        work.progress.task(work.stage, sum(rows), "URLs") as advance,
        followed(work.scratch / EVENTS, advance, "images"),
    ):
        receipts = work.engine.map_parts(
            FetchWorker,
            [{"group": number} for number, count in enumerate(rows) if count],
            setup={
                "parts": work.parts,
                "scratch": work.scratch,
                "config": work.config,
                "snapshot": work.snapshot,
                "run_id": work.run_id,
            },
            on_done=lambda receipt: None,
        )
    _check_something_came(work, receipts)
    return receipts


class FetchWorker:
    """Fetches the URLs of one group at a time, part by part."""

    def __init__(self, parts: Parts, scratch: Path, config: FetchConfig, snapshot: str, run_id: str) -> None:
        self.parts, self.scratch, self.config, self.snapshot = parts, scratch, config, snapshot
        self.run_id = run_id

    def __call__(self, task: Any) -> PartReceipt:
        """One part for each of `rows_per_part` URLs; those that are finished are not asked for again."""
        from components.fetching.crawl import NetworkLost, wanted_urls
        from components.fetching.url_list import ALT_TEXT, URL, group_path

        group: int = task["group"]
        table = pq.read_table(group_path(self.scratch / LISTS, group))
        wanted = wanted_urls(table[URL].to_pylist(), table[ALT_TEXT].to_pylist())
        size = self.config.rows_per_part
        parts = {
            f"part-{group:05d}-{start // size:05d}": wanted[start : start + size]
            for start in range(0, len(wanted), size)
        }
        report = ProgressWriter(self.scratch / EVENTS, f"{self.run_id}-{group:05d}")
        try:
            receipts = asyncio.run(self._fetch_parts(parts, table, report))
        except NetworkLost as error:
            raise StageFailed(
                f"fetch: {error}; is the network there? The same command goes on from here"
            ) from error
        report.flush()
        return combine(f"group-{group:05d}", receipts)

    async def _fetch_parts(
        self, parts: Mapping[str, Sequence["WantedUrl"]], table: pa.Table, report: ProgressWriter
    ) -> list[PartReceipt]:
        from components.fetching.crawl import run_all
        from components.fetching.fetcher import Fetcher
        from components.fetching.outage import Outage

        receipts = {name: self.parts.finished(name) for name in parts}
        for receipt in receipts.values():
            if receipt is not None:
                report.count(receipt.counts.in_, receipt.counts.kept)
        outage, opened = Outage(), asyncio.Semaphore(OPEN_PARTS)

        async def one(name: str, fetcher: "Fetcher") -> None:
            async with opened:
                receipts[name] = await self._fetch_part(name, parts[name], table, fetcher, outage, report)

        async with Fetcher(self.config) as fetcher:
            await run_all(one(name, fetcher) for name, receipt in receipts.items() if receipt is None)
        return [receipt for receipt in receipts.values() if receipt is not None]

    async def _fetch_part(
        self,
        name: str,
        wanted: Sequence["WantedUrl"],
        table: pa.Table,
        fetcher: "Fetcher",
        outage: "Outage",
        report: ProgressWriter,
    ) -> PartReceipt:
        from components.fetching.crawl import fetch_all
        from components.fetching.journal import Journal

        journal = Journal(self.scratch / JOURNALS / f"{name}.sqlite")
        for number in journal.numbers():
            report.count(_rows(wanted[number]), 0)

        def on_done(one: "WantedUrl", fetched: "Fetched") -> None:
            report.count(_rows(one), len(one.rows) if fetched.image is not None else 0)

        try:
            await fetch_all(fetcher, wanted, journal, outage, on_done)
        except BaseException:
            journal.close()
            raise
        receipt = await asyncio.to_thread(self._write, name, wanted, table, journal)
        journal.remove()
        return receipt

    def _write(
        self, name: str, wanted: Sequence["WantedUrl"], table: pa.Table, journal: "Journal"
    ) -> PartReceipt:
        """The finished part, from its journal: no more than a row group of images is in memory."""
        kept, rejects = 0, list[Row]()
        for number, fetched in journal.entries():
            one, why = wanted[number], fetched.rejection
            if why is None:
                kept += len(one.rows)
            else:
                rejects += [self._reject(table, row, why) for row in one.rows]
            rejects += [self._reject(table, row, REPEATED) for row in one.repeated]

        def write(path: Path) -> None:
            schema = _schema(table)
            compression = {name: "none" if name == "image" else "zstd" for name in schema.names}
            with pq.ParquetWriter(
                path, schema, compression=compression, write_batch_size=ROWS_PER_PAGE
            ) as writer:
                for batch in _batches(wanted, journal):
                    writer.write_table(self._table(table, batch, schema))

        files = {parquet_path(FETCHED_FOLDER, name): write} | rejects_file(name, rejects)
        return write_part(self.parts, name, files, kept=kept, rejects=rejects)

    def _reject(self, table: pa.Table, row: int, why: Rejection) -> Row:
        url, alt_text = (table[name][row].as_py() for name in ("url", "alt_text"))
        return reject_row(NAME, {"key": self._key(b"", url), "alt_text": alt_text, "url": url}, why)

    def _key(self, image: bytes, url: str | None) -> str:
        """The key by which the filter will know the record."""
        return record_key(image, f"{self.snapshot}:{url or ''}")

    def _table(self, table: pa.Table, batch: Sequence[tuple[int, bytes]], schema: pa.Schema) -> pa.Table:
        listed = table.take([row for row, _ in batch])
        images = [image for _, image in batch]
        own: dict[str, list[Any]] = {
            "key": list(map(self._key, images, listed["url"].to_pylist())),
            "sha256": [hashlib.sha256(image).hexdigest() for image in images],
            "image": images,
        }
        arrays = [
            pa.array(own[field.name], field.type) if field.name in own else listed[field.name]
            for field in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)


def _split(work: Work) -> list[int]:
    """The list in groups by host, under the scratch, where a resume finds it. Returns the rows of each."""
    from components.fetching.url_list import group_path, open_url_list, split_by_host

    config: FetchConfig = work.config
    urls = open_url_list(work.input("corpus").location, config.url_column, config.alt_text_column)
    groups, folder = urls.groups(), work.scratch / LISTS
    if not folder.is_dir():
        with work.folder(f"{SCRATCH}/{LISTS}") as unfinished:
            split_by_host(urls, unfinished, groups)
    rows = [pq.read_metadata(group_path(folder, number)).num_rows for number in range(groups)]
    if not any(rows):
        raise StageFailed(f"fetch: {urls.uri} has no rows; check the list")
    return rows


def _rows(wanted: "WantedUrl") -> int:
    return len(wanted.rows) + len(wanted.repeated)


def _schema(table: pa.Table) -> pa.Schema:
    """Of what is fetched: the image, its hash and the record's key before the list's own columns."""
    own = [("key", pa.string()), ("sha256", pa.string()), ("image", pa.binary())]
    return pa.schema([*own, *table.schema])


def _batches(wanted: Sequence["WantedUrl"], journal: "Journal") -> Iterator[list[tuple[int, bytes]]]:
    """(row, image) of the rows that have one, in row groups."""
    batch: list[tuple[int, bytes]] = []
    filled = 0
    for number, fetched in journal.entries():
        for row in wanted[number].rows if fetched.image is not None else ():
            assert fetched.image is not None
            batch.append((row, fetched.image))
            filled += len(fetched.image)
            if len(batch) >= BATCH_ROWS or filled >= BATCH_BYTES:
                yield batch
                batch, filled = [], 0
    if batch:
        yield batch


def _check_something_came(work: Work, receipts: Sequence[PartReceipt]) -> None:
    """Raise StageFailed where no image came; then the next run asks for all of them again."""
    total = combine(NAME, receipts)
    if total.counts.kept:
        return
    paths = [entry.path for receipt in receipts for entry in receipt.files]
    example = _first_reject(work.out, paths)
    store = store_at(work.out, work.run_id)
    for key in store.keys(f"{PARTS}/"):
        if (stored := store.read(key)) is not None:
            store.delete(key, if_match=stored.tag)
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in Counter(total.reasons).most_common(3))
    unanswered = total.reasons.get(Reason.FETCH_UNREACHABLE, 0) + total.reasons.get(Reason.FETCH_TIMEOUT, 0)
    hint = "; is the network there?" if 2 * unanswered > total.counts.in_ else "."
    raise StageFailed(
        f"fetch: none of {total.counts.in_:,} URLs gave an image ({reasons}), such as {example}{hint} The"
        " same command asks again"
    )


def _first_reject(out: Path, paths: Iterable[str]) -> str:
    for path in paths:
        if path.startswith(f"{REJECTS_FOLDER}/"):
            for row in pq.read_table(out / path).slice(0, 1).to_pylist():
                return f"{one_line(row['url'], SHOWN_URL)}: {row['detail']}"
    return "none"


STAGE = Stage(name=NAME, version=1, config_type=FetchConfig, inputs=("corpus",), run=run)
