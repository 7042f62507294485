"""`straightshot generate`: pictures from prompts, as files."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.registry.model_registry import resolve

if TYPE_CHECKING:
    from PIL import Image

SHEET_SIDE = 192  # pixels of one picture on the sheet: the models here draw 32 to 64
SHEET = "sheet.png"


def generate(
    home: Path,
    prompts: Sequence[str],
    out: Path,
    *,
    model: str,
    count: int,
    seed: int,
    steps: int | None,
    guidance: float | None,
    upsample: bool,
) -> list[Path]:
    """Draw `count` pictures of each prompt with `model` and write them to `out`; returns their paths.

    upsample: draw what the model's upsampler makes of the prompts; each file says what was drawn. The same
    arguments draw the same pictures. Several come with a sheet that shows them all, enlarged.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from components.generation.generator import Generator

    folder = resolve(model, home)
    every = [prompt for prompt in prompts for _ in range(count)]
    generator = Generator.load(folder)
    generator.generate([], steps=steps, guidance=guidance)  # what cannot be drawn is told before any work
    captions = generator.captions(every, seed=seed) if upsample else every
    pixels = generator.generate(captions, steps=steps, seed=seed, guidance=guidance, upsample=False)
    images = [Image.fromarray(one) for one in pixels]
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (prompt, caption, image) in enumerate(zip(every, captions, images, strict=True)):
        about = PngInfo()
        told = {"prompt": prompt, "caption": caption, "model": model, "seed": seed, "number": number}
        for key, value in told.items():
            about.add_itxt(key, str(value))
        path = out / f"{_slug(prompt)}-{number:03d}.png"
        image.save(path, pnginfo=about)
        paths.append(path)
    if len(images) > 1:
        _sheet(images, count if len(prompts) > 1 else min(len(images), 8)).save(out / SHEET)
        paths.append(out / SHEET)
    return paths


def _sheet(images: Sequence["Image.Image"], columns: int) -> "Image.Image":
    """All pictures, enlarged without smoothing, a row per prompt."""
    from PIL import Image

    gap = 4
    rows = -(-len(images) // columns)
    step = SHEET_SIDE + gap
    sheet = Image.new("RGB", (columns * step - gap, rows * step - gap), "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        large = image.resize((SHEET_SIDE, SHEET_SIDE), Image.Resampling.NEAREST)
        sheet.paste(large, (column * step, row * step))
    return sheet


def _slug(prompt: str) -> str:
    """A file name's worth of a prompt."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")
    return words[:48].rstrip("-") or "picture"
