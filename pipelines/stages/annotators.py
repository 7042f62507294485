"""annotators: the judge and the captioner that the data stages use.

    HOME/annotators/<fingerprint>/judge/, captioner/, annotators.json

Fitted on the labelled set, at the same time; or pretrained ones by id or path: these are resolved to a
revision, their files copied into the output and hashed by the receipt, so that what was used is pinned.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from components.captioning.cleaning import clean_caption
from components.captioning.config import FIT, GREEDY, NONE, CaptionerFitConfig, SamplingConfig
from components.captioning.kinds import LONG, LONG_PROMPT, SHORT, SHORT_PROMPT
from components.corpus.schemas import record_key
from components.judge.config import JudgeFitConfig
from pipelines.execution.parallel_jobs import Job, run_together
from pipelines.execution.worker_events import Event, EventWriter
from pipelines.stage import Stage, StageConfig, Work
from pipelines.store.faults import checkpoints_at
from pipelines.store.receipts import Counts, PartReceipt

if TYPE_CHECKING:
    from components.corpus.labelled import LabelledImage, LabelledSet

JUDGE, CAPTIONER, SUMMARY = "judge", "captioner", "annotators.json"
COMMIT = "pinned-commit.txt"  # in the folder of a model that was named by its id
FITTED = "made"  # what a fit saves, under its scratch folder
CAPTION_TRUTH = "caption_truth"  # in the info, of a toy web: kind -> shares of captions of held-out images
FITTED_PROMPTS = "taught_prompts"  # in the receipt's info: the prompts that a fitted captioner was trained on


class AnnotatorsConfig(StageConfig):
    """Where judge and captioner come from."""

    seed: int = Field(0, ge=0)
    labelled: str = Field(
        "toy", description="Parquet file of images with true captions, or the toy web's own"
    )
    holdout_fraction: float = Field(
        0.02, gt=0, lt=1, description="share of it that is measured on, not trained on"
    )
    captioner: str = Field(
        FIT,
        description="'fit', the id or folder of an image-text-to-text model, or 'none': a server captions",
    )
    captioner_revision: str | None = Field(
        None, description="of a pretrained captioner; resolved to a commit"
    )
    judge: str = Field(FIT, description="'fit', or an open_clip name, hf-hub:ID or folder")
    judge_pretrained: str | None = Field(None, description="pretrained tag of an open_clip name")
    short_prompt: str = Field(SHORT_PROMPT, description="instruction that the short captions answer")
    long_prompt: str = Field(LONG_PROMPT, description="instruction that the long captions answer")
    captioner_fit: CaptionerFitConfig = CaptionerFitConfig()
    judge_fit: JudgeFitConfig = JudgeFitConfig()

    @property
    def fitted(self) -> tuple[str, ...]:
        """Which of the two are fitted; with none, no labelled set is read."""
        return tuple(name for name in (JUDGE, CAPTIONER) if getattr(self, name) == FIT)

    @property
    def made(self) -> tuple[str, ...]:
        """Which of the two are in the output."""
        return (JUDGE,) if self.captioner == NONE else (JUDGE, CAPTIONER)


def run(work: Work) -> list[PartReceipt]:
    """The judge, the captioner, and a summary of both."""
    config: AnnotatorsConfig = work.config
    records = _labelled(work)
    for name in config.made:
        if name not in config.fitted:
            _pin(work, name)
    _fit_together(work)
    summary = _summary(work, records)
    work.info.update(summary)
    counts = {
        "in": records.records,
        "kept": len(records.train) + len(records.held_out),
        "rejected": sum(records.skipped.values()),
    }
    text = json.dumps(summary, indent=1) + "\n"
    report = work.parts.write(
        "summary",
        {SUMMARY: lambda path: path.write_text(text)},
        counts=Counts.model_validate(counts),
        reasons=records.skipped,
    )
    return [*map(work.adopt, config.made), report]


def _labelled(work: Work) -> "LabelledSet":
    from components.corpus.labelled import LabelledSet, read_labelled

    config: AnnotatorsConfig = work.config
    if not config.fitted:
        return LabelledSet((), (), {})
    return read_labelled(work.input("labelled").location, config.holdout_fraction)


def _pin(work: Work, name: str) -> None:
    """Have a pretrained model in the folder `name`, with the commit of its id in a file beside it."""
    from pipelines.stages.data.pretrained import pin_captioner, pin_judge

    config: AnnotatorsConfig = work.config
    if (work.out / name).exists():
        return
    with work.folder(name) as folder:
        if name == JUDGE:
            commit = pin_judge(config.judge, config.judge_pretrained, folder)
        else:
            commit = pin_captioner(config.captioner, config.captioner_revision, folder)
        if commit is not None:
            (folder / COMMIT).write_text(f"{commit}\n")


def _fit_together(work: Work) -> None:
    """Fit at the same time what the config has fitted and is not there yet; each is renamed once whole."""
    config: AnnotatorsConfig = work.config
    trainings = {JUDGE: config.judge_fit.training, CAPTIONER: config.captioner_fit.training}
    names = [name for name in config.fitted if not (work.out / name).exists()]
    jobs, progress = [], {}
    with work.progress.tasks([(name, trainings[name].images, "images") for name in names]) as advances:
        for name, advance in zip(names, advances, strict=True):
            fit = partial(_fit, name, config, work.input("labelled").location, work.scratch / name)
            jobs.append(Job(name, fit, trainings[name].cpu_threads))
            progress[name] = _FitProgress(advance)

        def done(name: str) -> None:
            with work.folder(name) as folder:
                shutil.copytree(work.scratch / name / FITTED, folder, dirs_exist_ok=True)

        channel = work.scratch / f"events-{work.run_id}"
        run_together(
            work.engine, jobs, channel, on_event=lambda name, event: progress[name](event), on_done=done
        )


def _summary(work: Work, records: "LabelledSet") -> dict[str, Any]:
    """The models, and how good a fitted captioner's captions of held-out images are."""
    config: AnnotatorsConfig = work.config
    summary: dict[str, Any] = {
        "judge": config.judge,
        "captioner": config.captioner,
        "labelled": len(records.train),
        "held_out": len(records.held_out),
        "judge_revision": None,
        "captioner_revision": None,
    }
    for name in (JUDGE, CAPTIONER):
        if (path := work.out / name / COMMIT).exists():
            summary[f"{name}_revision"] = path.read_text().strip()
    if config.captioner == FIT:
        summary[FITTED_PROMPTS] = [config.short_prompt, config.long_prompt]
        summary |= held_out_quality(config, work.out / CAPTIONER, records.held_out)
    return summary


def held_out_quality(
    config: AnnotatorsConfig, captioner: Path, held_out: Sequence["LabelledImage"]
) -> dict[str, Any]:
    """Which share of the captions of held-out images, written as recaption does, is true and complete.

    Where the truth is not known, in any labelled set but the toy web's: which share is the given caption word
    for word, greedily; a true caption that is phrased otherwise does not count there.
    """
    from components.captioning.captioner import Captioner
    from components.toyworld.caption_truth import measure_truth
    from components.toyworld.scene import Scene

    if not held_out:
        return {}
    scenes = [Scene.from_dict(json.loads(record.scene)) for record in held_out if record.scene]
    known = len(scenes) == len(held_out)
    model = Captioner.load(str(captioner), sampling=SamplingConfig() if known else GREEDY)
    images = [record.open() for record in held_out]
    keys = [record_key(record.image, "") for record in held_out]
    truths, word_for_word = {}, {}
    for number, (kind, prompt) in enumerate(((SHORT, config.short_prompt), (LONG, config.long_prompt))):
        written = model.caption(images, replace(kind, prompt=prompt), keys)
        captions = [clean_caption(text) for text in written]
        if known:
            truth = measure_truth(zip(captions, scenes, strict=True))
            truths[kind.name] = {"entirely_true": round(truth.entirely_true, 4)}
            if kind is LONG:  # a short caption leaves things open by design
                truths[kind.name]["complete"] = round(truth.complete, 4)
        else:
            same = [text == held_out[row].captions[number] for row, text in enumerate(captions)]
            word_for_word[f"{kind.name}_word_for_word"] = round(sum(same) / len(same), 4)
    return {CAPTION_TRUTH: truths} if known else word_for_word


class _FitProgress:
    """Displays one fit as it goes; a fit that was killed starts at zero again."""

    def __init__(self, advance: Any) -> None:
        self.advance, self.displayed = advance, 0

    def __call__(self, event: Event) -> None:
        images = event.get("images", -self.displayed)
        self.displayed += images
        self.advance(images, f"loss {event['loss']:.3f}" if "loss" in event else "")


def _fit(name: str, config: AnnotatorsConfig, labelled: str, scratch: Path, events: EventWriter) -> None:
    """In a worker: fit the judge or the captioner into the scratch folder."""
    from components.captioning.fit import fit_captioner
    from components.corpus.labelled import read_labelled
    from components.judge.fit import fit_judge

    prompts = (config.short_prompt, config.long_prompt)
    fit = {
        JUDGE: partial(fit_judge, config=config.judge_fit),
        CAPTIONER: partial(fit_captioner, config=config.captioner_fit, prompts=prompts),
    }[name]
    fit(
        read_labelled(labelled, config.holdout_fraction).train,
        _emptied(scratch / FITTED),
        seed=config.seed,
        checkpoints=checkpoints_at(scratch / "checkpoints", "annotators"),
        on_batch=lambda images, loss: events.write(images=images, loss=loss),
    )


def _emptied(folder: Path) -> Path:
    """The folder, without the files of a killed fit."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


STAGE = Stage(name="annotators", version=4, config_type=AnnotatorsConfig, inputs=("labelled",), run=run)
