"""Images from prompts, as files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.registry.model_registry import resolve

if TYPE_CHECKING:
    from PIL import Image

    from components.image_size import ImageSize
    from components.provenance.png import PngWriter
    from components.upsampling.prompt_upsampler import UpsampledPrompt

SHEET_SIDE = 192  # pixels of the longer side of an image on the sheet: the models here generate 32 to 64
SHEET = "sheet.png"


@dataclass(frozen=True)
class GeneratedFile:
    """An image's path, its prompt, and what it was generated from."""

    path: Path
    prompt: "UpsampledPrompt"


@dataclass(frozen=True)
class GeneratedFiles:
    """What was written. sheet: of several images; note: what to know of them, if anything."""

    images: list[GeneratedFile]
    sheet: Path | None = None
    note: str | None = None


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
    sampler: Mapping[str, Any],
    size: str | None,
    upsample: bool,
    writer: "PngWriter",
) -> GeneratedFiles:
    """Generate `count` images of each prompt with `model` and write them to `out`.

    steps: network evaluations; guidance: guidance scale; sampler: settings of its SamplerConfig, None where
    not given; size: WIDTHxHEIGHT; by default the model's own. upsample: generate from what the model's
    upsampler makes of a prompt; each file holds its prompt and its caption as text. The same arguments give
    the same pixels and texts; the signature of `writer` holds its time. Several come with a sheet that shows
    them all, enlarged. The note names a size that the model was not trained at.
    """
    from PIL import Image

    from components.generation.generator import Generator
    from components.image_size import ImageSize
    from components.upsampling.prompt_upsampler import unchanged

    folder = resolve(model, home)
    repeated = [prompt for prompt in prompts for _ in range(count)]
    generator = Generator.load(folder)
    sampling = generator.sampler.overridden(**sampler)
    shape = ImageSize.parse(size) if size is not None else generator.sizes[0]
    settings: dict[str, Any] = {"steps": steps, "guidance": guidance, "sampler": sampling, "size": shape}
    generator.generate([], **settings)  # bad settings fail before any work
    upsampled = generator.upsample(repeated, seed=seed) if upsample else unchanged(repeated)
    captions = [prompt.caption for prompt in upsampled]
    pixels = generator.generate(captions, seed=seed, **settings)
    images = [Image.fromarray(array) for array in pixels]
    columns = count if len(prompts) > 1 else min(len(images), 8)
    files = write_images(out, images, upsampled, {"model": model, "seed": str(seed)}, columns, writer)
    return replace(files, note=_note(shape, generator.sizes))


def _note(size: "ImageSize", trained: Sequence["ImageSize"]) -> str | None:
    """Of a size that is none of the model's."""
    if size in trained:
        return None
    return f"{size} is no size that this model was trained at, which are {', '.join(map(str, trained))}"


def write_images(
    out: Path,
    images: Sequence["Image.Image"],
    prompts: Sequence["UpsampledPrompt"],
    texts: Mapping[str, str],
    columns: int,
    writer: "PngWriter",
    *,
    edited: bytes | None = None,
) -> GeneratedFiles:
    """Write an image of each prompt to `out`, and a sheet of `columns` where there are several.

    texts: what else each file says, its model among them. edited: the file that they were made from, if any.
    """
    model = texts["model"]
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for number, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
        own = {"prompt": prompt.prompt, "caption": prompt.caption, "upsampling": prompt.how}
        own |= {**texts, "number": str(number)}
        path = out / f"{_slug(prompt.prompt)}-{number:03d}.png"
        path.write_bytes(writer.encode(image, own, model, edited=edited))
        files.append(GeneratedFile(path, prompt))
    if len(images) < 2:
        return GeneratedFiles(files)
    sheet = writer.encode(_sheet(images, columns), {"model": model}, model, edited=edited)
    (out / SHEET).write_bytes(sheet)
    return GeneratedFiles(files, out / SHEET)


def _sheet(images: Sequence["Image.Image"], columns: int) -> "Image.Image":
    """All images, enlarged without smoothing, a row per prompt."""
    from PIL import Image

    gap = 4
    rows = -(-len(images) // columns)
    longer = max(images[0].size)
    width, height = (round(SHEET_SIDE * side / longer) for side in images[0].size)
    across, down = width + gap, height + gap
    sheet = Image.new("RGB", (columns * across - gap, rows * down - gap), "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        large = image.resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(large, (column * across, row * down))
    return sheet


def _slug(prompt: str) -> str:
    """A file name's worth of a prompt."""
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")
    return slug[:48].rstrip("-") or "image"
