"""Images from images and prompts, as files."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dags.cli.generate import GeneratedFiles, write_images
from pipelines.registry.model_registry import resolve

if TYPE_CHECKING:
    from components.editing.edits import Edit
    from components.provenance.png import PngWriter


def edit(
    home: Path,
    image: Path,
    prompt: str,
    out: Path,
    *,
    kind: str,
    make: "Callable[[int], Edit]",
    model: str,
    count: int,
    seed: int,
    steps: int | None,
    upsample: bool,
    writer: "PngWriter",
) -> GeneratedFiles:
    """Edit `image` to `prompt` with `model`, `count` times from other noise, and write the results to `out`.

    kind: such as inpaint; the files say so. make(side): the edit, at the model's side in pixels. steps:
    network evaluations, by default the edit's own. The rest, and what is written, is as `generate` has it;
    the files' manifests name the image that was edited.
    """
    from PIL import Image

    from components.editing.editor import Editor
    from components.editing.inputs import read_file
    from components.generation.generator import Generator
    from components.randomness import sample_seeds
    from components.upsampling.prompt_upsampler import unchanged

    source = read_file(image)
    generator = Generator.load(resolve(model, home))
    editor, one = Editor(generator.model), make(generator.image_size)
    editor.edit([], [], [], steps=steps)  # bad settings fail before any work
    prompts = [prompt] * count
    upsampled = generator.upsample(prompts, seed=seed) if upsample else unchanged(prompts)
    captions = [each.caption for each in upsampled]
    pixels = editor.edit([one] * count, captions, sample_seeds(seed, count), steps=steps)
    images = [Image.fromarray(array) for array in pixels]
    texts = {"edit": kind, "model": model, "seed": str(seed)}
    return write_images(out, images, upsampled, texts, min(count, 8), writer, edited=source)
