"""What a report page shows, as plain data.

Everything but the title may be absent: the page then says which stage has not run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from components.evaluation.results import Metrics
from components.reporting.plots import LossCurve
from components.studies.table import StudyTable


@dataclass(frozen=True)
class StageRow:
    """One stage, from its receipt."""

    stage: str
    seconds: float
    peak_rss_mb: float
    fingerprint: str
    records_in: int | None = None  # None where a stage handles no records
    kept: int | None = None
    rejected: int | None = None
    errored: int | None = None
    rejects: Mapping[str, int] = field(default_factory=dict)  # reason -> records
    dropped_texts: Mapping[str, int] = field(default_factory=dict)  # reason -> kept records without alt text


@dataclass(frozen=True)
class AltExample:
    """A kept record and its cleaned alt text."""

    image: bytes | None  # encoded, as in the corpus
    alt_text: str | None
    url: str | None = None
    judge_score: float | None = None


@dataclass(frozen=True)
class RejectedRecord:
    """A record that did not go on, its alt text cleaned.

    thumbnail: as it was stored; problem: why there is none. original: the thumbnail of what it is a copy of.
    """

    thumbnail: bytes | None
    alt_text: str | None
    url: str | None = None
    detail: str | None = None
    problem: str = ""
    original: bytes | None = None


@dataclass(frozen=True)
class RejectedRecords:
    """How many records a stage rejected for a reason, and some of them."""

    stage: str
    reason: str
    records: int
    examples: tuple[RejectedRecord, ...] = ()


@dataclass(frozen=True)
class ScoredCaption:
    """One caption of an image: its kind, and the judge's cosine of image and text."""

    kind: str
    text: str
    score: float | None = None


@dataclass(frozen=True)
class CaptionExample:
    """An image with its captions as they are shown: the alt text first, then those that were written."""

    image: bytes
    captions: tuple[ScoredCaption, ...]

    @property
    def description(self) -> str:
        """For a reader who does not see the image: the first caption that was written."""
        return self.captions[1 if len(self.captions) > 1 else 0].text


@dataclass(frozen=True)
class CaptionTruth:
    """How many of the captions of a kind are true in every word, and how many leave out nothing (0..1)."""

    kind: str
    entirely_true: float | None
    complete: float | None


@dataclass(frozen=True)
class GeneratedCell:
    """One generated image."""

    model: str  # teacher | undistilled | student
    steps: int
    image: bytes
    correct: bool | None = None  # the scorer's verdict; None where nothing scores it


@dataclass(frozen=True)
class PromptSample:
    """One held-out prompt and what each model generated for it from the same seed."""

    prompt: str
    cells: tuple[GeneratedCell, ...]
    kind: str | None = None  # the prompt's form, or GenEval's category
    caption: str | None = None  # what it was generated from, where that is not the prompt itself


@dataclass(frozen=True)
class JudgedImage:
    """One image with the scorer's exact verdict, and what it was generated from.

    how: what became of the prompt ("upsampled", "as it is", …), as generation names it.
    """

    prompt: str
    image: bytes
    correct: bool
    form: str | None = None
    caption: str | None = None  # where it is not the prompt itself
    how: str | None = None


@dataclass(frozen=True)
class JudgedImages:
    """Right and wrong images of one model, generated in one way."""

    title: str
    right: tuple[JudgedImage, ...]
    wrong: tuple[JudgedImage, ...]


@dataclass(frozen=True)
class ModelGroup:
    """Registered models that were measured by one protocol; their numbers are text."""

    title: str
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ModelHistory:
    """Every promotion and refusal, grouped by the protocol of its numbers."""

    columns: tuple[str, ...]
    legend: str
    groups: tuple[ModelGroup, ...]


@dataclass(frozen=True)
class GateCheck:
    """One check of the gate, with its numbers in `text`; passed is None where it could not be made."""

    text: str
    passed: bool | None


@dataclass(frozen=True)
class GateVerdict:
    """The gate's verdict on the student."""

    promoted: bool
    version: str | None = None  # in the registry
    checks: tuple[GateCheck, ...] = ()


@dataclass(frozen=True)
class ReportData:
    """A run, ready to be rendered."""

    corpus: str
    preset: str
    snapshot: str
    home: str
    finished: str  # as shown, e.g. 2026-11-21 09:12 UTC
    stages: tuple[StageRow, ...] = ()
    kept: tuple[AltExample, ...] = ()
    rejected: tuple[RejectedRecords, ...] = ()
    captions: tuple[CaptionExample, ...] = ()
    losses: tuple[LossCurve, ...] = ()
    caption_truth: tuple[CaptionTruth, ...] = ()
    samples: tuple[PromptSample, ...] = ()
    judged: tuple[JudgedImages, ...] = ()
    history: ModelHistory | None = None
    studies: tuple[StudyTable, ...] = ()
    metrics: Metrics | None = None
    problems: tuple[str, ...] = ()  # one line each: files that could not be read
    promotion: GateVerdict | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)  # name -> version
    digests: Mapping[str, str] = field(default_factory=dict)  # what -> sha256 of its content
    config: str = ""  # the run's config, as YAML
    commands: tuple[tuple[str, str], ...] = ()  # (command, what it does): what to try next
