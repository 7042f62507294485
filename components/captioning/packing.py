"""Both captions of an image in one sequence, for fit.py: the image is encoded once, the answers are two.

    image tokens | short prompt, short caption | long prompt, long caption

The answers do not attend to each other and have the positions that they would have alone, so the loss is that
of two sequences, at little more than half the work.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100  # a label that is no target: images, prompts, padding
IMAGE_SEGMENT, PADDING = 0, -1  # segments besides those of the answers, which count from 1


@dataclass(frozen=True)
class Packed:
    """One image's sequence, as lists of one length. positions: of the rotary embedding."""

    tokens: list[int]
    labels: list[int]
    positions: list[int]
    segments: list[int]


@dataclass(frozen=True)
class PackedBatch:
    """tokens, labels, positions (B, L); attention (B, 1, L, L), added to the scores before the softmax."""

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    attention: Tensor


def pack(image: Sequence[int], answers: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Packed:
    """The sequence of one image.

    image: its tokens. answers: (prompt, caption) as tokens; the caption is the target.
    """
    tokens, labels = list(image), [IGNORED] * len(image)
    positions, segments = list(range(len(image))), [IMAGE_SEGMENT] * len(image)
    for number, (prompt, caption) in enumerate(answers, start=1):
        length = len(prompt) + len(caption)
        tokens += [*prompt, *caption]
        labels += [IGNORED] * len(prompt) + list(caption)
        positions += range(len(image), len(image) + length)
        segments += [number] * length
    return Packed(tokens, labels, positions, segments)


def collate(rows: Sequence[Packed], pad: int) -> PackedBatch:
    """Rows of one batch, padded on the right to the longest."""
    length = max(len(row.tokens) for row in rows)

    def padded(lists: Iterable[list[int]], filler: int) -> Tensor:
        return torch.tensor([row + [filler] * (length - len(row)) for row in lists])

    segments = padded((row.segments for row in rows), PADDING)
    same = segments[:, :, None] == segments[:, None, :]
    attended = (same | (segments[:, None, :] == IMAGE_SEGMENT)) & torch.ones(
        length, length, dtype=torch.bool
    ).tril()
    attention = torch.zeros(attended.shape).masked_fill(~attended, torch.finfo(torch.bfloat16).min)
    return PackedBatch(
        tokens=padded((row.tokens for row in rows), pad),
        labels=padded((row.labels for row in rows), IGNORED),
        positions=padded((row.positions for row in rows), 0),
        attention=attention[:, None],
    )
