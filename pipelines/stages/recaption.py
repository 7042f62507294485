"""recaption: a short and a long caption for every filtered record, the alt text kept beside them.

    HOME/recaption/<fingerprint>/captioned/part-00000.parquet, ..., rejects/part-00000.parquet, ...

Part n is the filter's part n. Captions are greedy, cleaned, checked and scored by the judge; a record with a
caption that cannot be used is rejected with a reason.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import Field

from components.captioning.cleaning import check_caption, clean_caption
from components.captioning.kinds import LONG, LONG_PROMPT, SHORT, SHORT_PROMPT, CaptionKind, prompt_hash
from components.corpus.rejection import Rejection
from components.corpus.schemas import CAPTIONED, FILTERED, REJECTS, Reason, check_schema
from pipelines.errors import StageFailed
from pipelines.stage import Input, Stage, StageConfig, Work
from pipelines.stages.annotators import FITTED_PROMPTS
from pipelines.stages.model_runtime import (
    CAPTIONER_RUNTIME,
    JUDGE_RUNTIME,
    ModelRuntime,
    load_captioner,
    load_judge,
)
from pipelines.store.receipts import Counts, PartReceipt, Parts

CAPTIONED_FOLDER, REJECTS_FOLDER, FILTERED_FOLDER = "captioned", "rejects", "filtered"
LARGEST_SIDE = 1536  # pixels; a larger picture is shrunk to it, so that a batch fits into memory
COMPRESSION = {name: "none" if name == "image" else "zstd" for name in CAPTIONED.names}  # images are packed


class RecaptionConfig(StageConfig):
    """What the captioner is asked, and which answers are good enough."""

    short_prompt: str = Field(SHORT_PROMPT, min_length=1, description="instruction for the short caption")
    long_prompt: str = Field(LONG_PROMPT, min_length=1, description="instruction for the long caption")
    short_tokens: int = Field(SHORT.max_tokens, ge=1, description="where a short caption is cut, in tokens")
    long_tokens: int = Field(LONG.max_tokens, ge=1, description="where a long caption is cut, in tokens")
    captioner: ModelRuntime = CAPTIONER_RUNTIME
    judge: ModelRuntime = JUDGE_RUNTIME
    caption_threshold: float | None = Field(
        None, ge=-1, le=1, description="least cosine of image and each caption; it depends on the judge"
    )

    @property
    def styles(self) -> tuple[CaptionKind, CaptionKind]:
        return (
            CaptionKind(SHORT.name, self.short_prompt, self.short_tokens),
            CaptionKind(LONG.name, self.long_prompt, self.long_tokens),
        )


def run(work: Work) -> list[PartReceipt]:
    """One part out for each part of the filter."""
    filtered, annotators = work.input("filter"), work.input("annotators")
    paths = filtered.files(f"{FILTERED_FOLDER}/")
    assert filtered.receipt is not None
    _warn_of_untaught_prompts(work, annotators)
    with work.progress.task(work.stage, filtered.receipt.counts.kept, "records") as advance:
        finished = work.engine.map_parts(
            CaptionWorker,
            [{"name": path.stem, "path": str(path)} for path in paths],
            setup={
                "parts": work.parts,
                "config": work.config,
                "annotators": annotators.location,
                "captioner": captioner_name(annotators),
            },
            on_done=lambda receipt: advance(receipt.counts.in_),
        )
    if not any(receipt.counts.kept for receipt in finished):
        raise StageFailed(
            "recaption: no record has a usable caption; look at recaption's rejects and prompts"
        )
    return finished


def _warn_of_untaught_prompts(work: Work, annotators: Input) -> None:
    """A captioner that was fitted on two prompts answers others badly, and nothing else would say so."""
    assert annotators.receipt is not None
    taught = annotators.receipt.info.get(FITTED_PROMPTS)
    for style in work.config.styles:
        if taught and style.prompt not in taught:
            work.progress.say(
                f"recaption: the captioner was not fitted on the prompt '{style.prompt}': look at its"
                f" captions in the report, or fit it with --set annotators.{style.name}_prompt=…"
            )


def captioner_name(annotators: Input) -> str:
    """What is written into the column `captioner`: the digest of its files' hashes, short."""
    from pipelines.store.receipts import content_digest

    assert annotators.receipt is not None
    files = [entry for entry in annotators.receipt.files if entry.path.startswith("captioner/")]
    return f"captioner-{content_digest(files)[:12]}"


class CaptionWorker:
    """Captions one part of the filter's output."""

    def __init__(self, parts: Parts, config: RecaptionConfig, annotators: str, captioner: str) -> None:
        import torch

        torch.set_num_threads(1)  # a score's last bits depend on it; workers share the cores anyway
        self.parts, self.config, self.name = parts, config, captioner
        folder = Path(annotators)
        self.captioner = load_captioner(str(folder / "captioner"), config.captioner, "recaption.captioner")
        self.judge = load_judge(f"local-dir:{folder / 'judge'}", config.judge, "recaption.judge")

    def __call__(self, task: Any) -> PartReceipt:
        name: str = task["name"]
        if (finished := self.parts.finished(name)) is not None:
            return finished
        file = pq.ParquetFile(task["path"])
        check_schema(file.schema_arrow, FILTERED, task["path"])
        captioned: list[dict[str, Any]] = []
        refused: list[dict[str, Any]] = []
        for batch in file.iter_batches(
            self.config.captioner.batch_size
        ):  # so few pictures are decoded at once
            self._caption(batch.to_pylist(), captioned, refused)
        return _write(self.parts, name, captioned, refused)

    def _caption(
        self, given: Sequence[dict[str, Any]], captioned: list[dict[str, Any]], refused: list[dict[str, Any]]
    ) -> None:
        """Caption one batch of records; each is added to `captioned` or to `refused`."""
        rows, pictures = [], []
        for row in given:
            opened = _open(row["image"])
            if isinstance(opened, Rejection):
                refused.append(_reject_row(row, opened))
            else:
                rows.append(row)
                pictures.append(opened)
        prepared = [self.judge.prepare(picture) for picture in pictures]
        said: dict[str, list[str]] = {}
        scores: dict[str, Any] = {}
        for style in self.config.styles:
            answers = self.captioner.caption(pictures, style)
            said[style.name] = [clean_caption(answer) for answer in answers]
            scores[style.name] = self.judge.score(prepared, said[style.name]).tolist()
        extra = {"captioner": self.name, "prompt_hash": prompt_hash(self.config.styles)}
        for i, row in enumerate(rows):
            captions = {f"caption_{name}": texts[i] for name, texts in said.items()}
            marks = {f"score_{name}": values[i] for name, values in scores.items()}
            why = self._check(list(captions.values()), list(marks.values()))
            if why is None:
                captioned.append({**row, **captions, **marks, **extra})
            else:
                refused.append(_reject_row(row, why))

    def _check(self, captions: Sequence[str], scores: Sequence[float]) -> Rejection | None:
        """Why a record's captions cannot be used; None if they can."""
        for caption in captions:
            if (why := check_caption(caption)) is not None:
                return why
        floor = self.config.caption_threshold
        if floor is not None and min(scores) < floor:
            return Rejection(Reason.CAPTION_SCORE, f"cosine {min(scores):.3f}, the floor is {floor:g}")
        return None


def _open(data: bytes | None) -> Image.Image | Rejection:
    """The picture, no larger than a captioner looks at, or why there is none."""
    from components.corpus.images import ImageRejected, open_image
    from components.corpus.labelled import RULES

    try:
        picture = open_image(data, RULES)
    except ImageRejected as error:
        return error.rejection
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return picture


def _reject_row(row: dict[str, Any], why: Rejection) -> dict[str, Any]:
    known = {name: row[name] for name in ("key", "alt_text", "url")}
    return {**known, "stage": "recaption", "reason": why.reason.value, "detail": why.detail}


def _write(
    parts: Parts, name: str, captioned: list[dict[str, Any]], refused: list[dict[str, Any]]
) -> PartReceipt:
    """Commit a part's two files; its counts add up by construction."""
    reasons = Counter(row["reason"] for row in refused)
    counts = {"in": len(captioned) + len(refused), "kept": len(captioned), "rejected": len(refused)}
    kept = pa.Table.from_pylist(captioned, schema=CAPTIONED)
    rejects = pa.Table.from_pylist(refused, schema=REJECTS)
    return parts.write(
        name,
        {
            f"{CAPTIONED_FOLDER}/{name}.parquet": partial(pq.write_table, kept, compression=COMPRESSION),
            f"{REJECTS_FOLDER}/{name}.parquet": partial(pq.write_table, rejects, compression="zstd"),
        },
        counts=Counts.model_validate(counts),
        reasons=dict(sorted(reasons.items())),
    )


STAGE = Stage(
    name="recaption", version=1, config_type=RecaptionConfig, inputs=("filter", "annotators"), run=run
)
