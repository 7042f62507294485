"""`size` of a request, and `--size` of the command: those that the model was trained at, and others."""

import json

import pytest
from PIL import Image

from components.errors import InputError
from components.generation.generator import Generator
from components.generation.model_folder import CARD
from components.image_size import ImageSize
from components.provenance.png import png_writer
from dags.cli.generate import generate
from pipelines.serving.requests import BadRequest, ImagesRequest, work_of
from pipelines.serving.settings import Limits
from tests.small_model import write_small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of 16x16, where patches are of 8 pixels, and of 24x8."""
    folder = write_small_model(tmp_path_factory.mktemp("sizes") / "model", upsampler=False)
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, "sizes": ["16x16", "24x8"]}))
    return folder


@pytest.mark.parametrize(
    ("size", "expected"), [(None, "16x16"), ("auto", "16x16"), ("16x16", "16x16"), ("24x8", "24x8")]
)
def test_a_request_names_one_of_the_sizes_and_shares_batches_with_its_like(folder, size, expected):
    generator = Generator.load(folder, device="cpu")
    work, _ = work_of(ImagesRequest(prompt="a star", size=size), generator, Limits())
    assert work.size == ImageSize.parse(expected) and work.kind[-1] == work.size


@pytest.mark.parametrize("size", ["8x24", "32x32", "16", "16x16x16", ""])
def test_a_request_for_another_size_is_refused_by_the_names_of_those_there_are(folder, size):
    generator = Generator.load(folder, device="cpu")
    with pytest.raises(BadRequest, match=f"size is {size}; this model generates 16x16, 24x8"):
        work_of(ImagesRequest(prompt="a star", size=size), generator, Limits())


def test_the_command_writes_any_size_and_says_which_is_untrained(folder, tmp_path):
    settings = {"model": str(folder), "count": 2, "seed": 0, "steps": None, "guidance": None, "sampler": {}}
    writer = png_writer(False, None)
    for size, side, note in ((None, (16, 16), False), ("24x8", (24, 8), False), ("8x24", (8, 24), True)):
        files = generate(tmp_path, ["a star"], tmp_path, **settings, size=size, upsample=False, writer=writer)
        assert [Image.open(image.path).size for image in files.images] == [side] * 2
        assert bool(files.note) == note
    assert files.note == "8x24 is no size that this model was trained at, which are 16x16, 24x8"
    assert Image.open(files.sheet).size == (64 + 4 + 64, 192)
    with pytest.raises(InputError, match="size '24' is none; write WIDTHxHEIGHT"):
        generate(tmp_path, ["a star"], tmp_path, **settings, size="24", upsample=False, writer=writer)
