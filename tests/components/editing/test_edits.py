"""Edits: the known part is Algorithm 4's, is put back exactly, and the image stays an image."""

import pytest
import torch

from components.editing.edits import (
    LUMA,
    Edit,
    colorization,
    inpainting,
    luma,
    stroke_guided,
    super_resolution,
)
from components.errors import InputError

SIDE, FACTOR = 8, 4


def image(seed: int, scale: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(3, SIDE, SIDE, generator=generator, dtype=torch.float64)


HOLE = torch.zeros(SIDE, SIDE, dtype=torch.bool)
HOLE[2:5, 1:7] = True
TRUTH = image(0).clamp(-1, 1)
EDITS: dict[str, Edit] = {
    "inpaint": inpainting(TRUTH, HOLE),
    "colorize": colorization(TRUTH),
    "upscale": super_resolution(torch.nn.functional.avg_pool2d(TRUTH, FACTOR), FACTOR),
}


def orthogonal(first: torch.Tensor) -> torch.Tensor:
    """An orthogonal matrix whose first row is along `first`."""
    basis = torch.eye(len(first), dtype=torch.float64)
    basis[:, 0] = first
    return torch.linalg.qr(basis).Q.T


def transform(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Algorithm 4's A over the flattened image, and which of its coordinates are known."""
    size = 3 * SIDE * SIDE
    if name == "inpaint":
        return torch.eye(size, dtype=torch.float64), ~HOLE.expand(3, -1, -1).flatten()
    if name == "colorize":
        colours = orthogonal(torch.tensor(LUMA, dtype=torch.float64))
        matrix = torch.kron(colours, torch.eye(SIDE * SIDE, dtype=torch.float64))
        return matrix, torch.arange(size) < SIDE * SIDE
    patch = orthogonal(torch.ones(FACTOR * FACTOR, dtype=torch.float64))
    rows = torch.arange(size).view(3, SIDE // FACTOR, FACTOR, SIDE // FACTOR, FACTOR)
    rows = rows.permute(0, 1, 3, 2, 4).reshape(-1, FACTOR * FACTOR)  # the numbers of each patch
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for at, of_patch in enumerate(rows):
        matrix[at * FACTOR**2 : (at + 1) * FACTOR**2, of_patch] = patch
    return matrix, torch.arange(size) % FACTOR**2 == 0


@pytest.mark.parametrize("name", EDITS)
def test_the_known_part_is_put_back_as_algorithm_4_does(name):
    edit, (a, known) = EDITS[name], transform(name)
    torch.testing.assert_close(a @ a.T, torch.eye(len(a), dtype=torch.float64))
    estimate = image(1, 0.05) + edit.start / 2  # no value leaves [-1, 1]
    expected = a.T @ torch.where(known, a @ TRUTH.flatten(), a @ estimate.flatten())
    assert expected.abs().max() < 1
    torch.testing.assert_close(edit.restore(estimate).flatten(), expected)
    assert edit.unknown_numbers == int((~known).sum())
    torch.testing.assert_close(edit.known(TRUTH).flatten(), a.T @ (known * (a @ TRUTH.flatten())))


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0])
def test_whatever_the_estimate_the_known_part_holds_within_the_range(name, scale):
    edit = EDITS[name]
    restored = edit.restore(image(2, scale))
    assert restored.abs().max() <= 1 + 1e-12
    torch.testing.assert_close(edit.known(restored), edit.known(TRUTH))
    if scale:
        assert not torch.allclose(edit.unknown(restored), edit.unknown(edit.start))


@pytest.mark.parametrize("name", EDITS)
def test_the_truth_stays_and_the_start_is_the_plainest_with_its_known_part(name):
    edit = EDITS[name]
    torch.testing.assert_close(edit.restore(TRUTH), TRUTH)
    torch.testing.assert_close(edit.known(edit.start), edit.known(TRUTH))
    torch.testing.assert_close(edit.restore(edit.start), edit.start)


def test_starts_are_the_mean_the_grey_and_flat_patches():
    hole = EDITS["inpaint"].start[:, HOLE]
    torch.testing.assert_close(hole, TRUTH[:, ~HOLE].mean(1, keepdim=True).expand_as(hole))
    grey = EDITS["colorize"].start
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[:1], luma(TRUTH))
    assert EDITS["upscale"].start.view(3, 2, 4, 2, 4).std((2, 4)).max() == 0


def test_strokes_are_kept_by_nothing_but_the_strength():
    strokes = stroke_guided(TRUTH, 0.4)
    assert strokes.strength == 0.4
    assert torch.equal(strokes.restore(image(3, 9.0)), image(3, 9.0))
    for strength in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="it must be above 0 and at most 1"):
            stroke_guided(TRUTH, strength)


def test_a_hole_that_is_nothing_or_everything_is_refused():
    with pytest.raises(InputError, match="nothing is to be filled"):
        inpainting(TRUTH, torch.zeros_like(HOLE))
    with pytest.raises(InputError, match="everything is to be filled"):
        inpainting(TRUTH, torch.ones_like(HOLE))
