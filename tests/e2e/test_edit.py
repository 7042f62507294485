"""`straightshot edit`: pictures from pictures, by the champion, and how well."""

import json

import numpy as np
import pytest
from PIL import Image

from components.provenance.png import EDITED_BY_A_MODEL

EDITS = ("inpaint", "colorize", "upscale", "sketch")


@pytest.fixture
def files(tmp_path):
    """An image, a mask and a small image, as a user has them."""
    side = 32
    rows, columns = np.mgrid[:side, :side]
    pixels = np.full((side, side, 3), (240, 240, 240), np.uint8)
    pixels[(rows - 20) ** 2 + (columns - 9) ** 2 < 40] = (200, 30, 30)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.fromarray(np.uint8(255 * (columns >= 16))).save(tmp_path / "mask.png")
    Image.fromarray(pixels[::4, ::4]).save(tmp_path / "small.png")
    return tmp_path


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_is_written_signed_and_keeps_what_was_known(straightshot, micro_home, files, kind):
    source = files / ("small.png" if kind == "upscale" else "image.png")
    mask = ["--mask", files / "mask.png"] if kind == "inpaint" else []
    words = [
        "edit",
        kind,
        source,
        "a red circle",
        *mask,
        "-o",
        files / "out",
        "-n",
        "2",
        "--home",
        micro_home,
    ]
    result = straightshot(*words)
    assert result.status == 0, result.err
    names = ["a-red-circle-000.png", "a-red-circle-001.png", "sheet.png"]
    assert sorted(path.name for path in (files / "out").iterdir()) == names
    assert [line.split()[0] for line in result.out.splitlines()] == [str(files / "out" / n) for n in names]
    made = []
    for name in names[:2]:
        with Image.open(files / "out" / name) as image:
            assert image.info["edit"] == kind and image.info["prompt"] == "a red circle"
            assert EDITED_BY_A_MODEL in image.info["XML:com.adobe.xmp"]
            made.append(np.asarray(image))
        verified = straightshot("verify", files / "out" / name)
        assert verified.status == 0 and "from another image" in verified.out
    given = np.asarray(Image.open(source))
    assert not np.array_equal(made[0], made[1])
    for image in made:
        assert image.shape == (32, 32, 3)
        if kind == "inpaint":
            assert np.array_equal(image[:, :16], given[:, :16])
        elif kind == "colorize":
            greys = [np.asarray(Image.fromarray(a).convert("L"), int) for a in (image, given)]
            assert np.abs(greys[0] - greys[1]).max() <= 1
        elif kind == "upscale":
            assert np.abs(image.reshape(8, 4, 8, 4, 3).mean((1, 3)) - given).max() <= 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inpaint", "image.png", "a star"], "image.png: what is to be filled? Give --mask"),
        (["inpaint", "image.png", "a star", "--mask", "small.png"], "small.png is 8x8 pixels"),
        (["colorize", "mask.jpg", "a star"], "mask.jpg cannot be read"),
        (["upscale", "image.png", "a star"], "give one whose shorter side is 16, 8, 4, 2, 1 pixels"),
        (["sketch", "image.png", "a star", "--strength", "2"], "strength is 2; it must be above 0"),
        (["sketch", "image.png", "a star", "--steps", "0"], "steps is 0"),
        (["sketch", "image.png"], "PROMPT"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    straightshot, micro_home, files, monkeypatch, words, message
):
    monkeypatch.chdir(files)
    result = straightshot("edit", *words, "--home", micro_home)
    assert (result.status, result.out, len(result.err.splitlines())) == (2, "", 1)
    assert message in result.err
    assert not (files / "out").exists()


def test_editing_is_measured_on_held_out_images(straightshot, micro_home, tmp_path):
    options = ["--images", "4", "--steps", "1", "--home", micro_home, "--picture", tmp_path / "edits.png"]
    result = straightshot("edit", "measure", *options, "--json")
    assert result.status == 0, result.err
    measured = json.loads(result.out)
    assert measured["images"] == 4
    rows = {(row["edit"], row["method"]): row for row in measured["rows"]}
    assert {edit for edit, _ in rows} == set(EDITS) and len(rows) == 8
    assert all(row["rmse"]["low"] <= row["rmse"]["mean"] <= row["rmse"]["high"] for row in rows.values())
    with Image.open(tmp_path / "edits.png") as picture:
        assert picture.width > picture.height > 4 * 64
    result = straightshot("edit", "measure", *options[:-2])
    assert result.status == 0
    assert "bilinear" in result.out and "4 held-out images with their own long captions" in result.out


def test_there_is_nothing_to_measure_with_before_the_first_run(straightshot, tmp_path):
    result = straightshot("edit", "measure", "--home", tmp_path)
    assert result.status == 2
    assert "there was no run" in result.err and len(result.err.splitlines()) == 1
