"""The sample grid: one row a prompt, one column a model and its steps, the same seed along a row.

For a file that stands alone (samples.png, MLflow, the README); the report lays out its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from components.errors import InputError

PAPER, INK, MUTED = "#ffffff", "#151a23", "#5b6574"
ACCENTS = {"teacher": "#3355cc", "undistilled": "#6b7f95", "student": "#cc4a10"}
GAP = 8  # pixels between cells
TEXT_SIZE = 14  # pixels
LINE = 18  # pixels from one line of text to the next
PROMPT_WIDTH = 220  # pixels given to the prompt at the left of its row


@dataclass(frozen=True)
class GridColumn:
    """One model at one number of steps: an image for each prompt of the grid."""

    model: str  # teacher | undistilled | student
    steps: int
    images: npt.NDArray[np.uint8]  # (N, H, W, 3)
    subtitle: str | None = None  # in place of the steps

    @property
    def title(self) -> str:
        return self.subtitle or f"{self.steps} step" + "s" * (self.steps != 1)


def draw_grid(prompts: Sequence[str], columns: Sequence[GridColumn], cell: int = 96) -> Image.Image:
    """A labelled RGB grid; images are scaled to `cell` pixels by whole pixels where that fits.

    Raises InputError where a column has not one image for each prompt.
    """
    for column in columns:
        if len(column.images) != len(prompts):
            raise InputError(
                f"{column.model} at {column.title}: {len(column.images)} images for {len(prompts)} prompts"
            )
    head = 2 * LINE + GAP
    width = GAP + PROMPT_WIDTH + len(columns) * (cell + GAP)
    sheet = Image.new("RGB", (width, head + GAP + len(prompts) * (cell + GAP)), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_SIZE)
    for index, column in enumerate(columns):
        x = GAP + PROMPT_WIDTH + index * (cell + GAP)
        accent = ACCENTS.get(column.model, INK)
        pen.text((x, GAP), column.model, fill=accent, font=font)
        pen.text((x, GAP + LINE), column.title, fill=MUTED, font=font)
        for row, pixels in enumerate(column.images):
            sheet.paste(_scaled(pixels, cell), (x, head + GAP + row * (cell + GAP)))
    for row, prompt in enumerate(prompts):
        lines = _wrapped(prompt, font, PROMPT_WIDTH - 2 * GAP, most=cell // LINE)
        top = head + GAP + row * (cell + GAP) + (cell - len(lines) * LINE) // 2
        for number, text in enumerate(lines):
            pen.text((GAP, top + number * LINE), text, fill=INK, font=font)
    return sheet


def _scaled(pixels: npt.NDArray[np.uint8], cell: int) -> Image.Image:
    """Small images keep hard pixels, so that a sample is seen as it is; large ones are reduced smoothly."""
    image = Image.fromarray(pixels)
    if max(image.size) <= cell:
        return image.resize((cell, cell), Image.Resampling.NEAREST)
    return image.resize((cell, cell), Image.Resampling.LANCZOS)


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, most: int
) -> list[str]:
    """Lines of `text` at most `width` pixels wide, at most `most` of them, the last cut with an ellipsis."""
    lines: list[str] = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1] + "…"]
    while any(font.getlength(line) > width for line in lines):
        lines = [line if font.getlength(line) <= width else line[:-2] + "…" for line in lines]
    return lines
