"""Captions that are written side by side: what the writers of prompt_editor.py and prompt_writer.py begin."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class CaptionSession(Protocol):
    """Each caption is a function of its own (prompt, seed), whatever is written beside it."""

    def __len__(self) -> int:
        """How many captions are not done."""

    def add(self, key: Any, prompt: str, seed: int) -> None:
        """Let a caption be written beside the others. key: names it in what `advance` returns."""

    def advance(self) -> dict[Any, str]:
        """Go on by one step; the captions that it ended, "" where there is none."""

    def retain(self, is_wanted: Callable[[Any], bool]) -> None:
        """Give up the captions whose key is not wanted."""


def write_all(session: CaptionSession, prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """One caption per prompt, sampled with its seed."""
    for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        session.add(row, prompt, seed)
    captions: dict[int, str] = {}
    while len(session):
        captions |= session.advance()
    return [captions[row] for row in range(len(prompts))]
