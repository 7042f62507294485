"""filter: the raw corpus into records whose text and image are good, and a reason for every other one.

    HOME/filter/<fingerprint>/filtered/part-00000.parquet, ..., rejects/part-00000.parquet, ...

Where `filter.alt_text.policy` is to recaption for a reason, a text with that against it is dropped: the
record goes on with a null alt text, no language and no judge's score, under no threshold of the judge's; the
text and the reason lie in dropped_texts/part-00000.parquet, and the receipt counts them. Some rejects of each
reason lie in reject_examples/part-00000.parquet with a small image (data/reject_examples.py).

Part n is fragment n of the corpus as `open_corpus` plans it. Three steps: fragments are measured in parallel
(alt text, image, hashes, judge) into intermediate parts; what only the whole corpus decides (duplicates, the
judge's threshold) is decided here from their short columns, in corpus order; then each part is written for
good.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from components.config_field import added_field
from components.corpus.fragments import MIB, Fragment, RawRecord
from components.corpus.images import ImageRules
from components.corpus.schemas import FILTERED, PROVENANCE, provenance_fields, record_key
from components.filtering.alt_text import AltTextRules
from components.filtering.duplicates import DuplicateRules
from components.filtering.examine import Kept, Rejected, examine
from pipelines.errors import StageFailed
from pipelines.stage import SCRATCH, Input, Stage, StageConfig, Work
from pipelines.stages.data.duplicate_search import (
    EARLIER,
    EVALUATION,
    SearchSettings,
    plan_sources,
    search,
)
from pipelines.stages.data.evaluation_sets import image_parts, read_prompts
from pipelines.stages.data.finished_parts import NAME, FinishWorker
from pipelines.stages.data.guard import Attempts, Examine, RecordLimits, limited
from pipelines.stages.data.part_records import (
    DAMAGED,
    DROPPED_TEXTS,
    FILTERED_FOLDER,
    Row,
    combine,
    parquet_path,
    reject_row,
    write_table_part,
)
from pipelines.stages.data.reject_examples import Candidates, Draw, draw, examples_in_part
from pipelines.stages.data.search_results import SOURCES_FILE, write_sources
from pipelines.stages.fetch import NAME as FETCH
from pipelines.stages.fetch import corpus_uri
from pipelines.stages.model_runtime import (
    JUDGE_RUNTIME,
    PLACEMENT,
    ModelRuntime,
    judge_name,
    load_judge,
    worker_resources,
)
from pipelines.store.parts import Parts
from pipelines.store.receipts import PartReceipt

if TYPE_CHECKING:
    import torch

PARTS_WITHOUT_A_POOL = 32  # so many are written for good here: a pool takes longer to start
LONG_STREAM = 16  # fragments that one worker must read alone, from which there is a warning
BY_THE_JUDGE = ("judge_score", "embedding")  # columns that are measured for a whole fragment


class FilterConfig(StageConfig):
    """What a record must be to go on. The defaults suit the open web; a closed domain may loosen them."""

    NOT_IN_FINGERPRINT: ClassVar[Mapping[str, Any]] = {"judge": PLACEMENT}

    alt_text: AltTextRules = AltTextRules()
    image: ImageRules = ImageRules()
    duplicates: DuplicateRules = DuplicateRules()
    earlier_snapshots: tuple[str, ...] = added_field(
        (),
        description="snapshots, in order, whose kept images are not kept again; a snapshot among them is"
        " compared with those before it",
    )
    evaluation_images: tuple[str, ...] = added_field(
        (), description="corpora (folder:PATH, ...) of images whose copies are kept out"
    )
    evaluation_prompts: tuple[str, ...] = added_field(
        (), description="files of prompts; records with such an alt text are kept out"
    )
    judge_threshold: float | None = Field(
        default=None, ge=-1, le=1, description="least cosine of image and alt text; it depends on the judge"
    )
    judge_keep_fraction: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of the records, best scores first, that goes on (DataComp: 0.3)",
    )
    judge: ModelRuntime = JUDGE_RUNTIME
    record: RecordLimits = added_field(RecordLimits())
    rows_per_fragment: int = Field(
        default=512, ge=1, description="most records measured and written together"
    )
    fragment_bytes: int = Field(
        default=256 * MIB, ge=1, description="most bytes of images and texts in them, as stored"
    )

    def before(self, snapshot: str) -> "FilterConfig":
        """The config of a snapshot: one of the earlier ones is compared with those before it only."""
        names = self.earlier_snapshots
        if snapshot not in names:
            return self
        return self.model_copy(update={"earlier_snapshots": names[: names.index(snapshot)]})


def run(work: Work) -> list[PartReceipt]:
    """Measure the fragments, decide over all of them, write the parts."""
    from components.corpus.readers import open_corpus

    config: FilterConfig = work.config
    corpus = open_corpus(corpus_uri(_raw_corpus(work)), config.rows_per_fragment, config.fragment_bytes)
    _warn_of_long_streams(work, corpus.streams)
    _note_skipped(work, corpus.skipped)
    measured = work.parts.within(f"{SCRATCH}/measured")
    with work.progress.task(work.stage, corpus.rows, "records") as advance:
        receipts = work.engine.map_parts(
            MeasureWorker,
            [{"fragments": [fragment.to_dict() for fragment in stream]} for stream in corpus.streams],
            setup={
                "parts": measured,
                "config": config,
                "snapshot": work.snapshot,
                "judge": judge_name(work.input("annotators")),
                "fragments": len(corpus.fragments),
            },
            on_done=lambda receipt: advance(receipt.counts.in_),
            resources=worker_resources(work.engine.gpus(), {"filter.judge": config.judge}),
        )
    _note_damaged(work, receipts)
    names = [_part_name(fragment) for fragment in corpus.fragments]
    finished = _finish(work, measured, names)
    _check_something_is_left(finished)
    if dropped := sum((Counter(part.info.get(DROPPED_TEXTS, {})) for part in finished), Counter[str]()):
        work.info[DROPPED_TEXTS] = dict(sorted(dropped.items()))
    return finished


def key_of(record: RawRecord, snapshot: str) -> str:
    """The key by which a raw record is known from here on, kept or rejected."""
    return record_key(record.image or b"", f"{snapshot}:{record.url or ''}")


class MeasureWorker:
    """Measures the fragments of one stream: what is kept with its measures, the rest with its reasons.

    fragments: how many the corpus has.
    """

    def __init__(self, parts: Parts, config: FilterConfig, snapshot: str, judge: str, fragments: int) -> None:
        import torch

        torch.set_num_threads(1)  # a score's last bits depend on it; workers share the cores anyway
        self.parts, self.config, self.snapshot, self.fragments = parts, config, snapshot, fragments
        self.judge = load_judge(judge, config.judge, "filter.judge")
        self.attempts = Attempts(parts.path("attempts"), parts.run_id)

    def __call__(self, task: Any) -> PartReceipt:
        """One part for each fragment; those that are finished are not read again but on the way."""
        from components.corpus.readers import read_stream

        fragments = [Fragment.from_dict(fragment) for fragment in task["fragments"]]
        receipts = {fragment.index: self.parts.finished(_part_name(fragment)) for fragment in fragments}
        while fragments and receipts[fragments[0].index] is not None:
            fragments.pop(0)
        for fragment, records in read_stream(fragments) if fragments else ():
            if receipts[fragment.index] is None:
                examples = Candidates(examples_in_part(fragment.index, self.fragments))
                receipts[fragment.index] = self._attempt(_part_name(fragment), records, examples)
        finished = [receipt for receipt in receipts.values() if receipt is not None]
        return combine(finished[0].name, finished)

    def _attempt(self, name: str, records: Iterable[RawRecord], examples: Candidates) -> PartReceipt:
        """The same for one fragment; under guard where a worker died in it before."""
        limits = self.config.record
        alone = partial(
            examine,
            alt_text_rules=self.config.alt_text,
            image_rules=self.config.image,
            judge_side=self.judge.image_side,
        )
        guarded = self.attempts.begin(name)
        with limited(alone, limits, guarded) as examiner, limited(draw, limits, guarded) as drawer:
            receipt = self._measure(name, records, examiner, examples, drawer)
        self.attempts.end(name)
        return receipt

    def _measure(
        self, name: str, records: Iterable[RawRecord], examiner: Examine, examples: Candidates, drawer: Draw
    ) -> PartReceipt:
        damaged = Counter[str]()
        kept: list[Row] = []
        prepared: list[torch.Tensor] = []
        rejects: list[Row] = []
        dropped: list[Row] = []
        for record in records:
            key = key_of(record, self.snapshot)
            examined = examiner(record, key)
            if record.damaged is not None:
                damaged[record.damaged] += 1
            if isinstance(examined, Rejected):
                rejects.append(reject_row(NAME, vars(examined), examined.rejection))
                examples.offer(examined.rejection.reason, key, record.image)
                continue
            kept.append(_kept_row(examined))
            prepared.append(self.judge.prepare(examined.pixels))
            if examined.dropped is not None:
                raw = vars(examined) | {"alt_text": examined.raw_alt_text}
                dropped.append(reject_row(NAME, raw, examined.dropped))
        features = self.judge.image_features(prepared)
        for row, vector in zip(kept, features.astype(np.float16), strict=True):
            row["embedding"] = vector
        with_text = [number for number, row in enumerate(kept) if row["alt_text"] is not None]
        texts = self.judge.text_features([kept[number]["alt_text"] for number in with_text])
        scores = np.einsum("nd,nd->n", features[with_text], texts)
        for number, score in zip(with_text, scores.tolist(), strict=True):
            kept[number]["judge_score"] = score
        carried = provenance_fields({n for row in kept for n in PROVENANCE if row[n] is not None})
        table = pa.Table.from_pylist(kept, schema=pa.schema([*FILTERED, *carried]))
        info = {DAMAGED: dict(sorted(damaged.items()))} if damaged else {}
        shown = examples.rows(drawer)
        return write_table_part(self.parts, name, FILTERED_FOLDER, table, rejects, dropped, shown, info)


def _raw_corpus(work: Work) -> Input:
    """What was fetched where the corpus is a list of URLs, else the corpus."""
    return work.input(FETCH if FETCH in work.inputs else "corpus")


def _warn_of_long_streams(work: Work, streams: Sequence[Sequence[Fragment]]) -> None:
    """A row group or compressed tar is read by one worker, so that a large one leaves the others idle."""
    longest = max(streams, key=len)
    if len(longest) >= LONG_STREAM:
        rows = sum(fragment.rows for fragment in longest)
        work.progress.say(
            f"filter: {longest[0].path}: one worker alone reads {rows:,} records of it, one row group or"
            f" compressed tar; write it in smaller ones (of {work.config.rows_per_fragment} records) to share"
            " the work"
        )


def _note_skipped(work: Work, skipped: Mapping[str, int]) -> None:
    """What the corpus holds beside records goes into the receipt, and is said."""
    if skipped:
        work.info["skipped"] = dict(skipped)
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in skipped.items())
        work.progress.say(f"filter: not part of any record: {kinds}")


def _note_damaged(work: Work, receipts: Iterable[PartReceipt]) -> None:
    """What stands beside images and cannot be read goes into the receipt, and is said."""
    if damaged := combine(NAME, receipts).info.get(DAMAGED):
        work.info[DAMAGED] = damaged
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in damaged.items())
        work.progress.say(f"filter: damaged, so that records go without what it says: {kinds}")


def _finish(work: Work, measured: Parts, names: Sequence[str]) -> list[PartReceipt]:
    """Decide what only the whole corpus decides, then write the parts for good."""
    config: FilterConfig = work.config
    own = plan_sources([measured.path(parquet_path(FILTERED_FOLDER, name)) for name in names])
    earlier = [path for item in work.inputs.get("earlier", ()) for path in item.files(f"{FILTERED_FOLDER}/")]
    images = image_parts(work.engine, work.parts.within(f"{SCRATCH}/evaluation"), config.evaluation_images)
    sources = [*plan_sources(images, EVALUATION), *plan_sources(earlier, EARLIER), *own]
    found = work.parts.within(f"{SCRATCH}/duplicates")
    settings = SearchSettings(config.duplicates, config.judge_threshold, config.judge_keep_fraction)
    limits = search(work.engine, found, sources, settings)
    write_sources(found.path(SOURCES_FILE), sources)
    setup: dict[str, Any] = {
        "measured": measured,
        "parts": work.parts,
        "found": found,
        "limits": limits,
        "prompts": read_prompts(config.evaluation_prompts),
        "withdrawn": frozenset(_raw_corpus(work).withdrawn),
    }
    tasks = [
        {"name": name, "order": source.order, "examples": examples_in_part(index, len(names))}
        for index, (name, source) in enumerate(zip(names, own, strict=True))
    ]
    if len(tasks) <= PARTS_WITHOUT_A_POOL:
        finish = FinishWorker(**setup)
        return [finish(task) for task in tasks]
    return work.engine.map_parts(FinishWorker, tasks, setup=setup, on_done=lambda _: None)


def _part_name(fragment: Fragment) -> str:
    return f"part-{fragment.index:05d}"


def _kept_row(kept: Kept) -> Row:
    """A row of FILTERED and PROVENANCE, but for what the judge measures."""
    names = (*FILTERED.names, *PROVENANCE)
    return {name: getattr(kept, name) for name in names if name not in BY_THE_JUDGE}


def _check_something_is_left(receipts: Iterable[PartReceipt]) -> None:
    total = combine(NAME, receipts)
    if not total.counts.kept:
        frequent = Counter(total.reasons).most_common(3)
        reasons = ", ".join(f"{reason} {count}" for reason, count in frequent)
        raise StageFailed(
            f"filter: none of {total.counts.in_} records is left ({reasons}); loosen filter.* for them"
        )


STAGE = Stage(
    name=NAME,
    version=6,
    config_type=FilterConfig,
    inputs=("corpus", FETCH, "annotators"),  # one of the first two
    run=run,
)
