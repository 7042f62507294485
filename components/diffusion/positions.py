"""Where the patches of an image lie, whatever its height and width, in the frame of a square of the model's.

Two things are told apart. *How far* two patches are from each other is what RoPE turns by: coordinates are
centred and scaled by one factor along both sides, sqrt(area of the square / area of the image), so that
images of all resolutions have about one extent and lengths keep their proportion (SD3, Esser 2024, Section
5.3.2; Hunyuan-DiT's centralized interpolation). *Where in the frame* a patch is ("at bottom left") is what
the learned embeddings say: they are looked up at its fraction of the height and of the width (NaViT,
Dehghani 2023, Section 2.1), between two of the square's by linear interpolation, and never outside of them.
On the square itself both are the identity, to the bit.
"""

import math

import torch
from torch import Tensor


def coordinates(height: int, width: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of the rows and the columns of an image's patches, (height,) and (width,), in patches of the square.

    The square's own are 0 .. side - 1; any image has their centre, and side² as the area of its frame.
    """
    scale, centre = side / math.sqrt(height * width), (side - 1) / 2
    rows, columns = (
        (torch.arange(patches, device=device) - (patches - 1) / 2) * scale + centre
        for patches in (height, width)
    )
    return rows, columns


def rotations(
    length: int, height: int, width: int, side: int, head_dims: int, device: torch.device
) -> Tensor:
    """The rotation of each pair of a head's features at each token: unit complex, (L + height width, 1, d/2).

    A quarter of the pairs rotates with the row, a quarter with the column; the others, and the text, do not.
    height, width, side: of the image and of the square, in patches.
    """
    rotary_dims = head_dims // 8  # pairs for the rows, and as many for the columns
    angles = torch.zeros(length + height * width, head_dims // 2, device=device)
    frequencies = torch.pi * torch.exp2(-torch.arange(rotary_dims, device=device))
    rows, columns = coordinates(height, width, side, device)
    angles[length:, :rotary_dims] = rows.repeat_interleave(width)[:, None] * frequencies
    angles[length:, rotary_dims : 2 * rotary_dims] = columns.repeat(height)[:, None] * frequencies
    angles = angles[:, None]  # not of the complex numbers: ONNX's exporter has no such operator for them
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary embedding (Su 2021): x (B, N, h, d), as d / 2 complex numbers, times (N, 1, d / 2)."""
    pairs = torch.view_as_complex(in_single(x).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2)


def stretched(embeddings: Tensor, height: int, width: int) -> Tensor:
    """A square's embeddings (side², D), at height × width patches of the same frame: (height width, D)."""
    side = round(len(embeddings) ** 0.5)
    if height == width == side:
        return embeddings
    square = embeddings.unflatten(0, (side, side))
    for dim, patches in enumerate((height, width)):
        # Centres of patches, between those of the square; beyond the outermost ones the outermost are taken.
        places = (torch.arange(patches, device=square.device) + 0.5) * (side / patches) - 0.5
        places = places.clamp(0, side - 1)
        low = places.long()
        share = (places - low).view(-1, *[1] * (2 - dim))
        first, second = (_along(square, dim, at) for at in (low, (low + 1).clamp(max=side - 1)))
        square = torch.lerp(first, second, share.to(square.dtype))
    return square.flatten(0, 1)


def in_single(x: Tensor) -> Tensor:
    """In float32, or as it is where that is more precise."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _along(x: Tensor, dim: int, at: Tensor) -> Tensor:
    """The entries `at` of a dimension. Not index_select, whose gradient is summed in any order on a GPU."""
    return x[at] if dim == 0 else x[:, at]
