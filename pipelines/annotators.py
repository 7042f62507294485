"""annotators: the judge and the captioner that the data stages ask.

    HOME/annotators/<fingerprint>/judge/, captioner/, annotators.json

Fitted on the labelled set, or pretrained ones by id or path: these are resolved to a revision, their files
laid into the output and hashed by the receipt, so that what was used is pinned.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from components.captioning.config import CaptionerFitConfig
from components.captioning.styles import LONG_PROMPT, SHORT_PROMPT
from components.filtering.judge_config import JudgeFitConfig
from pipelines.faults import fault_point
from pipelines.receipts import Counts, PartReceipt
from pipelines.stage import Stage, StageConfig, Work

FIT = "fit"  # in place of a pretrained model's id or path
JUDGE, CAPTIONER, SUMMARY = "judge", "captioner", "annotators.json"
LOCAL = "local-dir:"


class AnnotatorsConfig(StageConfig):
    """Where judge and captioner come from."""

    seed: int = Field(0, ge=0)
    labelled: str = Field(
        "toy", description="Parquet file of images with true captions, or the toy web's own"
    )
    holdout_fraction: float = Field(
        0.02, gt=0, lt=1, description="share of it that is measured on, not learned"
    )
    captioner: str = Field(FIT, description="'fit', or the id or folder of an image-text-to-text model")
    captioner_revision: str | None = Field(
        None, description="of a pretrained captioner; resolved to a commit"
    )
    judge: str = Field(FIT, description="'fit', or an open_clip name, hf-hub:ID or folder")
    judge_pretrained: str | None = Field(None, description="pretrained tag of an open_clip name")
    short_prompt: str = Field(SHORT_PROMPT, description="instruction that the short captions answer")
    long_prompt: str = Field(LONG_PROMPT, description="instruction that the long captions answer")
    captioner_fit: CaptionerFitConfig = CaptionerFitConfig()
    judge_fit: JudgeFitConfig = JudgeFitConfig()


def run(work: Work) -> list[PartReceipt]:
    """The judge, the captioner, and a summary of both."""
    from components.filtering.labelled import read_labelled

    config: AnnotatorsConfig = work.config
    records = read_labelled(work.input("labelled").path, config.holdout_fraction)
    _make(work, JUDGE, lambda folder: _judge(work, records, folder))
    _make(work, CAPTIONER, lambda folder: _captioner(work, records, folder))
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
    return [work.adopt(JUDGE), work.adopt(CAPTIONER), report]


def _make(work: Work, name: str, fill: Callable[[Path], None]) -> None:
    """Fill the folder `name` unless a killed run has finished it: it is renamed into place when whole."""
    if not (work.out / name).exists():
        with work.folder(name) as folder:
            fill(folder)


def _judge(work: Work, records: Any, folder: Path) -> None:
    config: AnnotatorsConfig = work.config
    if config.judge != FIT:
        _pin_judge(config.judge, config.judge_pretrained, folder)
        return
    from components.filtering.judge_fit import fit_judge

    with work.progress.task("judge", config.judge_fit.training.images, "images") as advance:
        fit_judge(
            records.train,
            folder,
            config.judge_fit,
            seed=config.seed,
            checkpoints=_checkpoints(work, JUDGE),
            on_batch=lambda images, loss: advance(images, f"loss {loss:.3f}"),
        )


def _captioner(work: Work, records: Any, folder: Path) -> None:
    config: AnnotatorsConfig = work.config
    if config.captioner != FIT:
        _pin_captioner(config.captioner, config.captioner_revision, folder)
        return
    from components.captioning.fit import fit_captioner

    with work.progress.task("captioner", config.captioner_fit.training.images, "images") as advance:
        fit_captioner(
            records.train,
            folder,
            config.captioner_fit,
            prompts=(config.short_prompt, config.long_prompt),
            seed=config.seed,
            checkpoints=_checkpoints(work, CAPTIONER),
            on_batch=lambda images, loss: advance(images, f"loss {loss:.3f}"),
        )


def _checkpoints(work: Work, name: str) -> Any:
    from components.training.checkpoints import Checkpoints

    return Checkpoints(
        work.scratch / name, before_rename=lambda: fault_point("annotators.checkpoint.before_rename")
    )


def _pin_captioner(model: str, revision: str | None, folder: Path) -> None:
    """Lay a pretrained captioner's files into `folder`; an id is resolved to its commit first."""
    source = Path(model)
    if not source.is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            source = Path(snapshot_download(model, revision=revision))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise ValueError(
                f"annotators.captioner '{model}' is neither a folder nor a model that the hub gives"
                f" ({str(error).strip().splitlines()[0]}); give a folder"
            ) from error
    _lay(source, folder)
    from components.captioning.captioner import Captioner

    Captioner.load(str(folder))  # a folder that is no captioner fails here, not in a worker


def _pin_judge(model: str, pretrained: str | None, folder: Path) -> None:
    """Lay a pretrained judge's files into `folder`, or save a named one as open_clip's local-dir: form."""
    from components.filtering.judge import Judge

    source = Path(model.removeprefix(LOCAL))
    if source.is_dir():
        _lay(source, folder)
    elif model.startswith("hf-hub:"):
        from huggingface_hub import snapshot_download

        _lay(Path(snapshot_download(model.removeprefix("hf-hub:"))), folder)
    else:
        _save_named_judge(model, pretrained, folder)
    Judge.load(f"{LOCAL}{folder}")


def _save_named_judge(model: str, pretrained: str | None, folder: Path) -> None:
    import open_clip
    from safetensors.torch import save_file

    from components.filtering.judge import Judge

    judge = Judge.load(model, pretrained)
    save_file(judge.model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = open_clip.get_pretrained_cfg(model, pretrained) if pretrained else {}
    kept = {key: preprocess[key] for key in ("mean", "std", "interpolation") if key in preprocess}
    document = {"model_cfg": open_clip.get_model_config(model), "preprocess_cfg": kept}
    (folder / "open_clip_config.json").write_text(json.dumps(document, indent=1) + "\n")


def _lay(source: Path, folder: Path) -> None:
    """Every file of `source` under `folder`: linked where the file system can, else copied."""
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path.resolve(), target)
        except OSError:
            shutil.copy2(path, target)


def _summary(work: Work, records: Any) -> dict[str, Any]:
    """What was made, and how many captions of held-out images come out word for word."""
    from components.captioning.captioner import Captioner

    config: AnnotatorsConfig = work.config
    summary: dict[str, Any] = {
        "judge": config.judge,
        "captioner": config.captioner,
        "labelled": len(records.train),
        "held_out": len(records.held_out),
    }
    if records.held_out and config.captioner == FIT:
        captioner = Captioner.load(str(work.out / CAPTIONER))
        pictures = [record.open() for record in records.held_out]
        for name, prompt, truth in (
            ("short", config.short_prompt, [r.caption_short for r in records.held_out]),
            ("long", config.long_prompt, [r.caption_long for r in records.held_out]),
        ):
            said = captioner.caption(pictures, prompt, max_new_tokens=config.judge_fit.context * 2)
            exact = sum(a.strip() == b for a, b in zip(said, truth, strict=True))
            summary[f"{name}_word_for_word"] = round(exact / len(truth), 4)
    return summary


STAGE = Stage(name="annotators", version=1, config_type=AnnotatorsConfig, inputs=("labelled",), run=run)
