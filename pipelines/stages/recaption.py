"""recaption: a caption of each kind for every filtered record, the alt text kept beside them.

    HOME/recaption/<fingerprint>/captioned/part-00000.parquet, ..., rejects/part-00000.parquet, ...,
                                 reject_examples/part-00000.parquet, ...

Part n is the filter's part n. Captions are sampled (components/captioning/sampling.py), each by its record's
key, cleaned, checked and scored by the judge; a record with a caption that cannot be used is captioned again,
if the config says so, or rejected with a reason. The kinds are those of components/captioning/kinds.py.

The captioner is the annotators', or a server's (`recaption.server`), whose answers lie in HOME/cache/answers.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import SecretStr

from components.captioning.config import ServerConfig
from components.captioning.kinds import prompt_hash
from components.corpus.rejection import Rejection
from components.corpus.schemas import (
    FILTERED,
    captioned_schema,
    check_schema,
    head_column,
    provenance_fields,
)
from components.judge.heads import load_heads
from pipelines.errors import StageFailed
from pipelines.execution.resources import Resources
from pipelines.stage import Input, Stage, Work
from pipelines.stages.annotators import FITTED_PROMPTS, AnnotatorsConfig
from pipelines.stages.data.part_records import (
    CAPTIONED_FOLDER,
    FILTERED_FOLDER,
    Row,
    open_part,
    reject_row,
    write_table_part,
)
from pipelines.stages.data.recaption_config import RecaptionConfig
from pipelines.stages.data.reject_examples import Candidates, draw, examples_in_part
from pipelines.stages.model_runtime import (
    captioner_folder,
    judge_name,
    load_captioner,
    load_judge,
    worker_resources,
)
from pipelines.store.parts import Parts
from pipelines.store.receipts import PartReceipt, content_digest

if TYPE_CHECKING:
    from PIL import Image

    from components.captioning.record_captions import WritesCaptions
    from components.judge.judge import Features

NAME = "recaption"
ANSWERS = "cache/answers"  # under HOME: a server's
RETRIED, RESCUED, ASKED = "retried", "rescued", "requests"  # in receipts' info
LARGEST_SIDE = 1536  # pixels; a larger image is shrunk to it, so that a batch fits into memory


def run(work: Work) -> list[PartReceipt]:
    """One part out for each part of the filter."""
    filtered, annotators = work.input("filter"), work.input("annotators")
    paths, config = filtered.files(f"{FILTERED_FOLDER}/"), work.config
    assert filtered.receipt is not None
    load_heads(config.heads)  # what is wrong with one is said before any work
    _warn_of_unlearned_prompts(work, annotators)
    models = {"recaption.judge": config.judge}
    if config.server is None:
        models["recaption.captioner"] = config.captioner
    resources = worker_resources(work.engine.gpus(), models)
    with work.progress.task(work.stage, filtered.receipt.counts.kept, "records") as advance:
        finished = work.engine.map_parts(
            CaptionWorker,
            [
                {"name": path.stem, "path": str(path), "examples": examples_in_part(index, len(paths))}
                for index, path in enumerate(paths)
            ],
            setup={
                "parts": work.parts,
                "config": config,
                "captioner": _captioner(work, annotators, resources, len(paths)),
                "judge": judge_name(annotators),
            },
            on_done=lambda receipt: advance(receipt.counts.in_),
            resources=resources,
        )
    work.info.update(_totals(finished))
    if not any(receipt.counts.kept for receipt in finished):
        raise StageFailed(
            "recaption: no record has a usable caption; look at recaption's rejects and prompts"
        )
    return finished


def _totals(receipts: Iterable[PartReceipt]) -> dict[str, Any]:
    """What the parts counted beside kept and rejected records: captions written again, requests."""
    retried, rescued, asked = Counter[str](), 0, 0
    for receipt in receipts:
        retried.update(receipt.info.get(RETRIED, {}))
        rescued += receipt.info.get(RESCUED, 0)
        asked += receipt.info.get(ASKED, 0)
    return ({RETRIED: dict(sorted(retried.items())), RESCUED: rescued} if retried else {}) | (
        {ASKED: asked} if asked else {}
    )


def _warn_of_unlearned_prompts(work: Work, annotators: Input) -> None:
    """A captioner that was fitted on some prompts answers others badly, and nothing else would show it."""
    assert annotators.receipt is not None
    if work.config.server is not None:
        return
    learned = annotators.receipt.info.get(FITTED_PROMPTS)
    for kind in work.config.caption_kinds:
        if learned and kind.prompt not in learned:
            setting = f"{kind.name}_prompt"
            remedy = (
                f"fit it with --set annotators.{setting}=…"
                if setting in AnnotatorsConfig.model_fields
                else "take a pretrained one with --set annotators.captioner=…"
            )
            work.progress.say(
                f"recaption: the captioner was not fitted on the prompt '{kind.prompt}': look at its"
                f" captions in the report, or {remedy}"
            )


@dataclass(frozen=True)
class CaptionerSource:
    """Where a worker gets its captioner: from a folder, or from a server with its key and kept answers.

    name: what is written into the column `captioner`. workers: among how many a server is shared.
    """

    name: str
    folder: str = ""
    answers: Path = Path()
    api_key: SecretStr | None = None
    workers: int = 1


def _captioner(work: Work, annotators: Input, resources: Resources, tasks: int) -> CaptionerSource:
    server: ServerConfig | None = work.config.server
    if server is None:
        return CaptionerSource(captioner_name(annotators), captioner_folder(annotators))
    key = os.environ.get(server.api_key_variable)
    return CaptionerSource(
        server.model,
        answers=work.home / ANSWERS,
        api_key=SecretStr(key) if key else None,
        workers=work.engine.pool_size(resources, tasks),
    )


def captioner_name(annotators: Input) -> str:
    """What is written into the column `captioner`: the digest of its files' hashes, short."""
    assert annotators.receipt is not None
    files = [entry for entry in annotators.receipt.files if entry.path.startswith("captioner/")]
    return f"captioner-{content_digest(files)[:12]}"


@dataclass
class _Part:
    """The records of one part so far.

    examples: some rejects to be looked at.
    retried: how many were captioned again, by why; rescued: how many of them are kept.
    """

    examples: Candidates
    captioned: list[Row] = field(default_factory=list)
    rejects: list[Row] = field(default_factory=list)
    retried: Counter[str] = field(default_factory=Counter)
    rescued: int = 0

    def reject(self, record: Row, rejection: Rejection) -> None:
        self.rejects.append(reject_row(NAME, record, rejection))
        self.examples.offer(rejection.reason, record["key"], record["image"])

    def info(self, asked: int) -> dict[str, Any]:
        """For the part's receipt. asked: requests to a server."""
        retried = {RETRIED: dict(sorted(self.retried.items())), RESCUED: self.rescued} if self.retried else {}
        return retried | ({ASKED: asked} if asked else {})


class CaptionWorker:
    """Captions one part of the filter's output. captioner: where its captioner is. judge: its name."""

    def __init__(self, parts: Parts, config: RecaptionConfig, captioner: CaptionerSource, judge: str) -> None:
        import torch

        from components.captioning.record_captions import CaptionGates, RecordCaptioner

        torch.set_num_threads(1)  # a score's last bits depend on it; workers share the cores anyway
        self.parts, self.config, self.kinds = parts, config, config.caption_kinds
        self.provenance = {"captioner": captioner.name, "prompt_hash": prompt_hash(self.kinds)}
        self.captioner = _load(captioner, config)
        self.judge = load_judge(judge, config.judge, "recaption.judge")
        self.heads = load_heads(config.heads)
        gates = CaptionGates(config.caption_threshold, config.agreement_threshold, config.retries)
        self.captions = RecordCaptioner(self.captioner, self.judge, self.kinds, gates)

    def __call__(self, task: Any) -> PartReceipt:
        name: str = task["name"]
        if (finished := self.parts.finished(name)) is not None:
            return finished
        file = open_part(task["path"])
        carried = provenance_fields(file.schema_arrow.names)
        check_schema(file.schema_arrow, pa.schema([*FILTERED, *carried]), task["path"])
        part, asked = _Part(Candidates(task["examples"])), self.captioner.asked
        for batch in file.iter_batches(self.config.captioner.batch_size):  # few images are decoded at once
            self._caption(batch.to_pylist(), part)
        added = [*map(head_column, self.heads), *carried]
        schema = pa.schema([*captioned_schema(kind.name for kind in self.kinds), *added])
        table = pa.Table.from_pylist(part.captioned, schema=schema)
        info = part.info(self.captioner.asked - asked)
        shown = part.examples.rows(draw)
        return write_table_part(
            self.parts, name, CAPTIONED_FOLDER, table, part.rejects, examples=shown, info=info
        )

    def _caption(self, records: Sequence[Row], part: _Part) -> None:
        """Caption one batch of records; each is added to the part."""
        opened: list[tuple[Row, Image.Image]] = []
        for record in records:
            image = _open(record["image"])
            if isinstance(image, Rejection):
                part.reject(record, image)
            else:
                opened.append((record, image))
        if not opened:
            return
        features = self.judge.image_features([self.judge.prepare(image) for _, image in opened])
        scored = self._scored([record for record, _ in opened], features)
        rows: list[int] = []
        kept: list[Row] = []
        for row, outcome in enumerate(scored):
            if isinstance(outcome, Rejection):
                part.reject(opened[row][0], outcome)
            else:
                rows.append(row)
                kept.append(outcome)
        images = [opened[row][1] for row in rows]
        for record, written in zip(kept, self.captions.caption(kept, images, features[rows]), strict=True):
            if written.retried is not None:
                part.retried[written.retried.reason.value] += 1
                part.rescued += written.rejection is None
            if written.rejection is None:
                part.captioned.append({**record, **written.captions, **written.scores, **self.provenance})
            else:
                part.reject(record, written.rejection)

    def _scored(self, records: Sequence[Row], features: "Features") -> list[Row | Rejection]:
        """Each record with its heads' scores, or why one of them rejects it."""
        scores = {name: head(features) for name, head in self.heads.items()}
        scored: list[Row | Rejection] = []
        for row, record in enumerate(records):
            own = {name: float(of[row]) for name, of in scores.items()}
            rejections = (self.config.heads[name].rejection(name, score) for name, score in own.items())
            rejection = next((found for found in rejections if found is not None), None)
            columns = {head_column(name).name: score for name, score in own.items()}
            scored.append(rejection or {**record, **columns})
        return scored


def _load(source: CaptionerSource, config: RecaptionConfig) -> "WritesCaptions":
    if config.server is None:
        return load_captioner(
            source.folder, config.captioner, "recaption.captioner", sampling=config.sampling
        )
    from components.captioning.answers import Answers
    from components.captioning.server import ServerCaptioner

    return ServerCaptioner(
        config.server,
        source.api_key,
        answers=Answers(source.answers),
        seed=config.sampling.seed,
        workers=source.workers,
    )


def _open(data: bytes | None) -> "Image.Image | Rejection":
    """The image, no larger than a captioner looks at, or why there is none."""
    from components.corpus.images import ImageRejected, open_image
    from components.corpus.labelled import RULES

    try:
        image = open_image(data, RULES)
    except ImageRejected as error:
        return error.rejection
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return image


STAGE = Stage(name=NAME, version=3, config_type=RecaptionConfig, inputs=("filter", "annotators"), run=run)
