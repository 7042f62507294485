"""Positions of images of any height and width, against closed forms; and a network on all of them."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

from components.conditioning.text import TextTokens
from components.diffusion.dit import DiT, DiTConfig
from components.diffusion.positions import coordinates, rotate, rotations, stretched

CPU = torch.device("cpu")
GRIDS = [(8, 8), (10, 6), (6, 10), (4, 16), (16, 16), (5, 7), (1, 1)]  # of patches, in the frame of 8 × 8


def test_on_the_square_positions_are_what_they_are_without_other_sizes():
    rows, columns = coordinates(8, 8, 8, CPU)
    assert rows.tolist() == columns.tolist() == list(range(8))
    embeddings = torch.randn(64, 5)
    assert stretched(embeddings, 8, 8) is embeddings


@pytest.mark.parametrize(("height", "width"), GRIDS)
def test_images_of_all_sizes_share_a_centre_and_an_area_and_keep_their_proportion(height, width):
    rows, columns = coordinates(height, width, 8, CPU)
    for places in (rows, columns):
        torch.testing.assert_close(places + places.flip(0), torch.full_like(places, 7.0))
    scale = 8 / (height * width) ** 0.5
    for places in (rows, columns):
        torch.testing.assert_close(places.diff(), torch.full((len(places) - 1,), scale))
    assert (height * scale) * (width * scale) == pytest.approx(64)


def test_a_patch_lies_in_the_middle_of_the_four_that_it_is_at_twice_the_resolution():
    fine, _ = coordinates(16, 16, 8, CPU)
    assert torch.equal(fine.view(8, 2).mean(1), torch.arange(8.0))


def test_attention_depends_on_the_distance_alone_in_images_of_every_shape():
    """q · k of two patches is the same wherever they are, and in whichever image of that area."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 32, generator=generator, dtype=torch.float64)
    by_distance: dict[tuple[int, int], list[float]] = {}
    for height, width in ((8, 8), (4, 16), (16, 4)):
        rotation = rotations(0, height, width, 8, 32, CPU).to(torch.complex128)
        turned = [rotate(x.expand(1, height * width, 1, 32), rotation)[0, :, 0] for x in (q, k)]
        scores = turned[0] @ turned[1].T
        for at in range(height * width):
            for to in range(height * width):
                distance = (to // width - at // width, to % width - at % width)
                by_distance.setdefault(distance, []).append(scores[at, to].item())
    assert len(by_distance[0, 0]) == 3 * 64
    assert all(max(values) - min(values) < 1e-4 for values in by_distance.values())
    assert max(map(max, by_distance.values())) - min(map(min, by_distance.values())) > 1


@pytest.mark.parametrize(("height", "width"), GRIDS)
def test_embeddings_are_looked_up_at_the_fraction_of_the_frame(height, width):
    """As PyTorch resizes images, bilinearly."""
    embeddings = torch.randn(64, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    image = embeddings.T.reshape(1, 5, 8, 8)
    expected = F.interpolate(image, (height, width), mode="bilinear", align_corners=False)
    found = stretched(embeddings, height, width)
    torch.testing.assert_close(found, expected[0].flatten(1).T, atol=1e-5, rtol=1e-5)


def network(**changes) -> tuple[DiT, TextTokens]:
    config = {"image_size": 16, "patch": 2, "width": 32, "depth": 1, "heads": 2, "vocabulary": 9, **changes}
    torch.manual_seed(0)
    model = DiT(DiTConfig(**config))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    ids = torch.tensor([[1, 5, 0]])
    return model, TextTokens(ids, ids > 0)


def test_one_network_takes_every_size_and_turns_with_rows_and_columns_told_apart():
    model, text = network()
    t = torch.ones(1)
    for height, width in GRIDS:
        x_t = torch.randn(1, 3, 2 * height, 2 * width)
        assert model(x_t, t, text).shape == x_t.shape
    wide = torch.randn(1, 3, 12, 20)
    assert (model(wide.transpose(2, 3), t, text).transpose(2, 3) - model(wide, t, text)).abs().max() > 1e-3
    gradient = torch.autograd.grad(model(wide, t, text).square().sum(), model.image_positions)[0]
    assert (gradient.abs().sum(1) > 0).all()  # every embedding of the square learns from a wide image


def test_each_size_is_compiled_once_at_most():
    model, text = network()
    counter, t = CompileCounter(), torch.ones(1)
    model.compile(backend=counter)
    sizes = [(16, 16), (20, 12), (12, 20)]
    with torch.no_grad():
        for height, width in sizes * 2:
            model(torch.randn(1, 3, height, width), t, text)
    assert 1 <= counter.frame_count <= len(sizes)
