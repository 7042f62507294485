"""Pretrained annotators, pinned: their files are copied into the output, an id is resolved to its commit.

A model that is no captioner or no judge fails here, in one line, not in a worker later.
"""

import json
import shutil
from pathlib import Path

from components.conditioning.hub import find_model
from components.errors import InputError

LOCAL, HUB = "local-dir:", "hf-hub:"  # how open_clip names a folder, and a model on the hub


def pin_captioner(model: str, revision: str | None, folder: Path) -> str | None:
    """Copy a captioner, given by folder or hub id, into `folder`; returns the commit of an id.

    Raises InputError where there is none.
    """
    from components.captioning.captioner import Captioner

    source, commit = find_model(f"annotators.captioner '{model}'", model, revision)
    _copy(source, folder)
    Captioner.load(str(folder))
    return commit


def pin_judge(model: str, pretrained: str | None, folder: Path) -> str | None:
    """Copy a judge, given by folder or hf-hub:ID[@REVISION], into `folder`, or save one of open_clip's names
    with its tag or weights there as local-dir: loads it. Returns the commit of an id.

    Raises InputError where there is none.
    """
    from components.judge.judge import Judge

    source, commit = Path(model.removeprefix(LOCAL)), None
    if source.is_dir():
        _copy(source, folder)
    elif model.startswith(LOCAL) or source.is_absolute() or model.startswith("."):
        raise InputError(f"annotators.judge '{model}': no such folder; give one that open_clip saved")
    elif model.startswith(HUB):
        name, _, revision = model.removeprefix(HUB).partition("@")
        source, commit = find_model(f"annotators.judge '{model}'", name, revision or None)
        _copy(source, folder)
    else:
        _save_named(model, pretrained, folder)
    Judge.load(f"{LOCAL}{folder}")
    return commit


def _save_named(model: str, pretrained: str | None, folder: Path) -> None:
    import open_clip
    from safetensors.torch import save_file

    from components.judge.judge import Judge

    judge = Judge.load(model, pretrained)
    weights = {name: tensor.contiguous().clone() for name, tensor in judge.model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    if hasattr(judge.tokenizer, "save_pretrained"):  # open_clip's own needs no files
        judge.tokenizer.save_pretrained(folder)
    settings = judge.model.visual.preprocess_cfg  # of the images, wherever it was configured
    preprocess = {
        key: settings[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in settings
    }
    document = {"model_cfg": open_clip.get_model_config(model), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document, indent=1) + "\n")


def _copy(source: Path, folder: Path) -> None:
    """Copy every file of `source` under `folder`. A link would change with its source, which we pin."""
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
