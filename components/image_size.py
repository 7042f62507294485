"""Heights and widths of images, written as everywhere: 40x24 is 40 pixels wide and 24 high."""

import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, PlainSerializer

from components.errors import InputError

WRITTEN = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")


class ImageSize(NamedTuple):
    """In the order of a tensor's last two dimensions; in text and JSON the width comes first."""

    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> "ImageSize":
        """Of WIDTHxHEIGHT, in pixels. Raises InputError for anything else."""
        found = WRITTEN.fullmatch(text)
        if found is None:
            raise InputError(f"size '{text}' is none; write WIDTHxHEIGHT in pixels, such as 40x24")
        return cls(height=int(found[2]), width=int(found[1]))

    @classmethod
    def square(cls, side: int) -> "ImageSize":
        return cls(side, side)

    @property
    def pixels(self) -> int:
        """Its area."""
        return self.height * self.width

    def times(self, factor: int) -> "ImageSize":
        return ImageSize(self.height * factor, self.width * factor)

    def divides_by(self, side: int) -> bool:
        """Whether squares of that side cover it evenly."""
        return self.height % side == self.width % side == 0

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def _parsed(value: Any) -> Any:
    return ImageSize.parse(value) if isinstance(value, str) else value


# As a field of a config or a card: a string there, an ImageSize here.
WrittenSize = Annotated[ImageSize, BeforeValidator(_parsed), PlainSerializer(str, return_type=str)]
