"""Reads a model of diffusers from a folder, and nothing else that may lie there."""

import json
from pathlib import Path
from typing import Any

import torch

from components.errors import REASON_LENGTH, InputError, one_line

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model"  # as diffusers names them
PROVENANCE = "_name_or_path"  # diffusers' note of where a model was loaded from: not what it is
FAULTS = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError)  # of what is in a folder


def read_diffusers_model(folder: Path, kind: str, dtype: torch.dtype, what: str) -> Any:
    """The frozen module in a folder, every weight of it from its safetensors.

    kind: how the names of the classes that are taken begin. what: the model as messages name it. Raises
    InputError, one line, where there is none such.
    """
    try:
        return _read(folder, kind, dtype)
    except FAULTS as error:
        reason = one_line(error, REASON_LENGTH)
        raise InputError(
            f"{what} cannot be loaded ({reason}); give a folder or a hub id of a {kind} of diffusers"
        ) from error


def _read(folder: Path, kind: str, dtype: torch.dtype) -> Any:
    import diffusers

    name = str(json.loads((folder / CONFIG).read_bytes()).get("_class_name"))
    found = getattr(diffusers, name, None) if name.startswith(kind) else None
    if found is None:
        raise ValueError(f"its {CONFIG} names no {kind} but '{name}'")
    model, info = found.from_pretrained(
        str(folder), use_safetensors=True, torch_dtype=dtype, output_loading_info=True
    )
    if info["missing_keys"] or info["mismatched_keys"]:
        names = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
        raise ValueError(f"its checkpoint lacks {len(names)} of the weights, such as {min(names)}")
    return model.eval().requires_grad_(False)
