"""A model folder as others read it: a pipeline of diffusers, or a graph of ONNX."""

from pathlib import Path
from typing import Literal

from components.durable import write_folder
from components.errors import InputError
from components.generation.model_folder import load_model

Format = Literal["diffusers", "onnx"]


def export_model(folder: Path, to: Format, out: Path) -> None:
    """Write the model in `folder` to `out`, whole or not at all. Its prompt upsampler stays behind.

    Raises InputError, one line, where `out` has something in it, the folder is no model, or the format cannot
    hold this one.
    """
    from components.exporting.diffusers_format import write_diffusers
    from components.exporting.onnx_format import require_onnx, write_onnx

    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; name a folder with -o that is empty or not there yet")
    if to == "onnx":
        require_onnx()
    model = load_model(folder, upsampler=False)
    with write_folder(out) as temporary:
        (write_diffusers if to == "diffusers" else write_onnx)(model, temporary)
