"""recaption: a caption of each kind for every filtered record, the alt text kept beside them.

    HOME/recaption/<fingerprint>/captioned/part-00000.parquet, ..., rejects/part-00000.parquet, ...

Part n is the filter's part n. Captions are sampled (components/captioning/sampling.py), each by its record's
key, cleaned, checked and scored by the judge; a record with a caption that cannot be used is rejected with a
reason. The kinds are those of components/captioning/kinds.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, field_validator

from components.captioning.cleaning import check_caption, clean_caption
from components.captioning.config import SamplingConfig
from components.captioning.kinds import CAPTION_KINDS, CaptionKind, prompt_hash
from components.corpus.rejection import Rejection
from components.corpus.schemas import FILTERED, Reason, captioned_schema, check_schema
from pipelines.errors import StageFailed
from pipelines.stage import Input, Stage, StageConfig, Work
from pipelines.stages.annotators import FITTED_PROMPTS, AnnotatorsConfig
from pipelines.stages.model_runtime import (
    CAPTIONER_RUNTIME,
    JUDGE_RUNTIME,
    PLACEMENT,
    ModelRuntime,
    captioner_folder,
    judge_name,
    load_captioner,
    load_judge,
    worker_resources,
)
from pipelines.stages.part_records import (
    CAPTIONED_FOLDER,
    FILTERED_FOLDER,
    Row,
    open_part,
    reject_row,
    write_table_part,
)
from pipelines.store.parts import Parts
from pipelines.store.receipts import PartReceipt, content_digest

if TYPE_CHECKING:
    from PIL import Image

NAME = "recaption"
LARGEST_SIDE = 1536  # pixels; a larger image is shrunk to it, so that a batch fits into memory


class KindConfig(BaseModel):
    """What the captioner is asked for, for one kind of caption."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: str = Field(min_length=1, description="the instruction")
    max_tokens: int = Field(ge=1, description="where a caption is cut, in tokens")
    min_words: int = Field(ge=0, description="fewest words with a letter in a usable caption")
    max_repetition: float = Field(
        ge=0, le=1, description="largest share of word triples that occurred before in a usable caption"
    )


class RecaptionConfig(StageConfig):
    """What the captioner is asked for, and which captions are good enough."""

    NOT_IN_FINGERPRINT: ClassVar[Mapping[str, Any]] = {"captioner": PLACEMENT, "judge": PLACEMENT}

    kinds: dict[str, KindConfig] = Field(
        default_factory=dict, validate_default=True, description="by name; what is not set is the table's"
    )
    sampling: SamplingConfig = SamplingConfig()
    captioner: ModelRuntime = CAPTIONER_RUNTIME
    judge: ModelRuntime = JUDGE_RUNTIME
    caption_threshold: float | None = Field(
        None, ge=-1, le=1, description="least cosine of image and each caption; it depends on the judge"
    )

    @field_validator("kinds", mode="before")
    @classmethod
    def _complete(cls, kinds: Any) -> Any:
        """Every kind of the table, with what the config sets of it."""
        if not isinstance(kinds, Mapping):
            return kinds
        for name in kinds:
            if name not in CAPTION_KINDS:
                raise ValueError(
                    f"no kind of caption is named '{name}'; there are {', '.join(CAPTION_KINDS)}, and"
                    " components/captioning/kinds.py is where to add one"
                )
        return {name: _completed(kinds.get(name, {}), kind) for name, kind in CAPTION_KINDS.items()}

    @property
    def caption_kinds(self) -> tuple[CaptionKind, ...]:
        """The kinds with this config's prompts and limits, in the table's order."""
        return tuple(replace(CAPTION_KINDS[name], **kind.model_dump()) for name, kind in self.kinds.items())


def run(work: Work) -> list[PartReceipt]:
    """One part out for each part of the filter."""
    filtered, annotators = work.input("filter"), work.input("annotators")
    paths, config = filtered.files(f"{FILTERED_FOLDER}/"), work.config
    assert filtered.receipt is not None
    _warn_of_unlearned_prompts(work, annotators)
    with work.progress.task(work.stage, filtered.receipt.counts.kept, "records") as advance:
        finished = work.engine.map_parts(
            CaptionWorker,
            [{"name": path.stem, "path": str(path)} for path in paths],
            setup={
                "parts": work.parts,
                "config": config,
                "captioner": captioner_folder(annotators),
                "captioner_name": captioner_name(annotators),
                "judge": judge_name(annotators),
            },
            on_done=lambda receipt: advance(receipt.counts.in_),
            resources=worker_resources(
                work.engine.gpus(),
                {"recaption.captioner": config.captioner, "recaption.judge": config.judge},
            ),
        )
    if not any(receipt.counts.kept for receipt in finished):
        raise StageFailed(
            "recaption: no record has a usable caption; look at recaption's rejects and prompts"
        )
    return finished


def _warn_of_unlearned_prompts(work: Work, annotators: Input) -> None:
    """A captioner that was fitted on some prompts answers others badly, and nothing else would show it."""
    assert annotators.receipt is not None
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


def captioner_name(annotators: Input) -> str:
    """What is written into the column `captioner`: the digest of its files' hashes, short."""
    assert annotators.receipt is not None
    files = [entry for entry in annotators.receipt.files if entry.path.startswith("captioner/")]
    return f"captioner-{content_digest(files)[:12]}"


@dataclass
class _Part:
    """The records of one part so far."""

    captioned: list[Row] = field(default_factory=list)
    rejects: list[Row] = field(default_factory=list)


class CaptionWorker:
    """Captions one part of the filter's output. captioner: its folder. captioner_name: for the column."""

    def __init__(
        self, parts: Parts, config: RecaptionConfig, captioner: str, captioner_name: str, judge: str
    ) -> None:
        import torch

        torch.set_num_threads(1)  # a score's last bits depend on it; workers share the cores anyway
        self.parts, self.config, self.kinds = parts, config, config.caption_kinds
        self.provenance = {"captioner": captioner_name, "prompt_hash": prompt_hash(self.kinds)}
        self.captioner = load_captioner(
            captioner, config.captioner, "recaption.captioner", sampling=config.sampling
        )
        self.judge = load_judge(judge, config.judge, "recaption.judge")

    def __call__(self, task: Any) -> PartReceipt:
        name: str = task["name"]
        if (finished := self.parts.finished(name)) is not None:
            return finished
        file = open_part(task["path"])
        check_schema(file.schema_arrow, FILTERED, task["path"])
        part = _Part()
        for batch in file.iter_batches(self.config.captioner.batch_size):  # few images are decoded at once
            self._caption(batch.to_pylist(), part)
        schema = captioned_schema(kind.name for kind in self.kinds)
        table = pa.Table.from_pylist(part.captioned, schema=schema)
        return write_table_part(self.parts, name, CAPTIONED_FOLDER, table, part.rejects)

    def _caption(self, records: Sequence[Row], part: _Part) -> None:
        """Caption one batch of records; each is added to the part."""
        opened: list[Row] = []
        images: list[Image.Image] = []
        for record in records:
            image = _open(record["image"])
            if isinstance(image, Rejection):
                part.rejects.append(reject_row(NAME, record, image))
            else:
                opened.append(record)
                images.append(image)
        prepared = [self.judge.prepare(image) for image in images]
        captions: dict[str, list[str]] = {}
        scores: dict[str, list[float]] = {}
        for kind in self.kinds:
            written = self.captioner.caption(images, kind, [record["key"] for record in opened])
            captions[kind.column] = [clean_caption(text) for text in written]
            scores[kind.score_column] = self.judge.score(prepared, captions[kind.column]).tolist()
        for row, record in enumerate(opened):
            its_captions = {column: texts[row] for column, texts in captions.items()}
            its_scores = {column: values[row] for column, values in scores.items()}
            rejection = self._check(its_captions, list(its_scores.values()))
            if rejection is None:
                part.captioned.append({**record, **its_captions, **its_scores, **self.provenance})
            else:
                part.rejects.append(reject_row(NAME, record, rejection))

    def _check(self, captions: Mapping[str, str], scores: Sequence[float]) -> Rejection | None:
        """Why a record's captions (by column) cannot be used; None if they can."""
        for kind in self.kinds:
            if (rejection := check_caption(captions[kind.column], kind)) is not None:
                return rejection
        threshold = self.config.caption_threshold
        if threshold is not None and min(scores) < threshold:
            return Rejection(
                Reason.CAPTION_SCORE, f"cosine {min(scores):.3f}, the threshold is {threshold:g}"
            )
        return None


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


def _completed(config: Any, kind: CaptionKind) -> Any:
    """What a config sets of a kind, and the table's values for the rest; pydantic checks the outcome."""
    if not isinstance(config, Mapping):
        return config
    return {name: getattr(kind, name) for name in KindConfig.model_fields} | dict(config)


STAGE = Stage(name=NAME, version=2, config_type=RecaptionConfig, inputs=("filter", "annotators"), run=run)
