"""Duplicates: copies are found however they were made, pictures of one design are told apart."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from components.corpus.images import ImageRejected, ImageRules, open_image
from components.filtering.duplicates import DuplicateRules, Images, copies_in_cell, survivors
from components.filtering.hash_search import cells_of, find_centres, propose
from components.filtering.signature import signature_of, unpack
from components.toyworld.layout import draw_scene
from components.toyworld.render import render

RULES = DuplicateRules()
WORDS = "harbour market garden silver river mountain letter window orange table paper music travel".split()


def images_of(pictures: list[Image.Image]) -> Images:
    signatures = [signature_of(picture) for picture in pictures]
    return Images(
        np.arange(len(pictures)),
        unpack([signature.phash for signature in signatures]),
        [signature.thumbnail for signature in signatures],
        [signature.content_box for signature in signatures],
        np.empty((len(pictures), 0), np.float32),
    )


def repeats(pictures: list[Image.Image], rules: DuplicateRules = RULES) -> dict[int, int]:
    """What repeats which earlier picture."""
    rows, firsts = survivors(copies_in_cell(images_of(pictures), rules))
    return dict(zip(rows.tolist(), firsts.tolist(), strict=True))


def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def chart(number: int) -> Image.Image:
    rng, image = np.random.default_rng(number), Image.new("RGB", (480, 360), "white")
    draw = ImageDraw.Draw(image)
    draw.line([(40, 10), (40, 330), (470, 330)], fill="black", width=2)
    walk = np.cumsum(rng.normal(size=40))
    height = 40 + 260 * (walk - walk.min()) / np.ptp(walk)
    draw.line(list(zip(np.linspace(45, 465, 40).tolist(), height.tolist(), strict=True)), "#1f77b4", 2)
    return image


def title_card(number: int) -> Image.Image:
    image = Image.new("RGB", (480, 270), "#203040")
    draw = ImageDraw.Draw(image)
    title = " ".join(np.random.default_rng(number).choice(WORDS, 2)).title()
    draw.text((240, 110), title, fill="white", font=font(40), anchor="mm")
    draw.text((240, 180), f"Part {number}", fill="#cccccc", font=font(36), anchor="mm")
    return image


def plate(number: int) -> Image.Image:
    image = Image.new("RGB", (400, 200), "#f4f4f0")
    draw = ImageDraw.Draw(image)
    draw.rectangle([8, 8, 392, 192], outline="black", width=6)
    draw.text((200, 100), f"{number:04d}", fill="black", font=font(90), anchor="mm")
    return image


def page(number: int) -> Image.Image:
    rng, image = np.random.default_rng(number), Image.new("RGB", (450, 600), "white")
    draw = ImageDraw.Draw(image)
    for y in range(40, 560, 20):
        draw.text((40, y), " ".join(rng.choice(WORDS, 8)), fill="black", font=font(12))
    return image


def table(number: int) -> Image.Image:
    """One grid, other words and numbers."""
    rng, image = np.random.default_rng(400 + number), Image.new("RGB", (520, 380), "white")
    draw = ImageDraw.Draw(image)
    for row in range(9):
        for column in range(5):
            x, y = 10 + 100 * column, 10 + 40 * row
            text = f"{rng.normal() * 100:.1f}" if column else str(rng.choice(WORDS))
            draw.rectangle([x, y, x + 100, y + 40], outline="#888888")
            draw.text((x + 50, y + 20), text, fill="black", font=font(15), anchor="mm")
    return image


def photo(number: int) -> Image.Image:
    """Clouds with things in them."""
    rng, side = np.random.default_rng(100 + number), 256
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    planes = [np.fft.irfft2(np.exp(2j * np.pi * rng.random(frequency.shape)) / frequency**1.3) for _ in "rgb"]
    pixels = np.stack([128 + 50 * (plane - plane.mean()) / plane.std() for plane in planes], -1)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    for x, y, width, height in rng.integers(20, 180, (4, 4)).tolist():
        colour = tuple(rng.integers(0, 256, 3).tolist())
        ImageDraw.Draw(image).ellipse([x, y, x + width, y + height], fill=colour)
    return image


def toy(number: int) -> Image.Image:
    return render(draw_scene(np.random.default_rng(number)), 96)


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((round(0.05 * width), round(0.03 * height), round(0.96 * width), round(0.95 * height)))


def bordered(image: Image.Image) -> Image.Image:
    width, height = image.size
    framed = Image.new("RGB", (round(1.1 * width), round(1.1 * height)), "black")
    framed.paste(image, (round(0.05 * width), round(0.05 * height)))
    return framed


def over(image: Image.Image, layer: Image.Image) -> Image.Image:
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def watermarked(image: Image.Image) -> Image.Image:
    layer = Image.new("RGBA", image.size)
    width, height = image.size
    text, at = "SAMPLE", (width / 2, height / 2)
    ImageDraw.Draw(layer).text(at, text, fill=(255, 255, 255, 110), font=font(width // 6), anchor="mm")
    return over(image, layer)


def tiled(image: Image.Image) -> Image.Image:
    """Rows of a faint text, slanted."""
    width, height = image.size
    layer, size = Image.new("RGBA", (2 * width, 2 * height)), width // 12
    for y in range(0, 2 * height, 4 * size):
        for x in range(0, 2 * width, 8 * size):
            ImageDraw.Draw(layer).text((x, y), "stock images", fill=(60, 60, 60, 100), font=font(size))
    box = (width // 2, height // 2, width // 2 + width, height // 2 + height)
    return over(image, layer.rotate(30).crop(box))


def captioned(image: Image.Image) -> Image.Image:
    """An opaque strip with text, over the lowest tenth."""
    width, height = image.size
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    draw.rectangle([0, 0.9 * height, width, height], fill=(20, 60, 160, 255))
    at = (width / 2, 0.95 * height)
    draw.text(at, "www.pictures.example", fill="white", font=font(height // 14), anchor="mm")
    return over(image, layer)


def encoded_again(image: Image.Image, kind: str = "JPEG", quality: int = 60) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return Image.open(buffer).convert("RGB")


COPIES = {
    "crop": cropped,
    "border": bordered,
    "watermark": watermarked,
    "tiled watermark": tiled,
    "caption": captioned,
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "encoded": lambda image: encoded_again(image, "WEBP"),
    "resized": lambda image: image.resize((image.width * 2 // 3, image.height * 2 // 3)),
}


@pytest.mark.parametrize("draw", [chart, title_card, plate, page, table])
def test_pictures_of_one_design_are_told_apart(draw):
    assert repeats([draw(number) for number in range(1, 25)]) == {}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_among_other_pictures(kind):
    originals = [*map(photo, range(10)), *map(toy, range(10))]
    copies = [encoded_again(COPIES[kind](image), quality=85) for image in originals]
    found = repeats([*originals, *copies])
    assert set(found.items()) <= {(20 + number, number) for number in range(20)}
    assert len(found) >= 18


@pytest.mark.parametrize("mark", [watermarked, tiled, captioned])
@pytest.mark.parametrize("draw", [title_card, table, photo])
def test_the_same_mark_does_not_make_copies_of_other_pictures(draw, mark):
    assert repeats([mark(draw(number)) for number in range(1, 17)]) == {}


def test_copies_in_the_emoji_web(shared_data: Path):
    """Every copy is found; of look-alike glyphs (skin tones!) a handful is lost."""
    table = pq.read_table(shared_data / "emoji" / "web.parquet", columns=["image", "url"])[:300]
    pictures, names = [], []
    for image, url in zip(table["image"].to_pylist(), table["url"].to_pylist(), strict=True):
        try:
            pictures.append(open_image(image, ImageRules()))
        except ImageRejected:
            continue
        names.append(Path(url).stem)
    copies = {row for row, name in enumerate(names) if name in names[:row]}
    found = set(repeats(pictures))
    assert copies
    assert copies <= found
    assert len(found - copies) <= 2


def test_a_mirrored_image_is_a_copy_by_option_only():
    pictures = [photo(1), photo(2), photo(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    assert repeats(pictures) == {}
    assert repeats(pictures, DuplicateRules(mirrored=True)) == {2: 0}


def test_of_many_copies_the_first_survives_however_many_there_are():
    pictures = [photo(1), *(encoded_again(photo(1), quality=60 + number) for number in range(20)), photo(2)]
    assert repeats(pictures) == dict.fromkeys(range(1, 21), 0)


def test_copies_of_copies_name_the_first():
    pairs = np.array([[5, 9], [2, 5], [-7, 4], [4, 4]])
    rows, firsts = survivors(pairs)
    assert dict(zip(rows.tolist(), firsts.tolist(), strict=True)) == {4: -7, 5: 2, 9: 2}


def test_embeddings_that_differ_refuse_what_the_pixels_would_take():
    images = images_of([photo(1), encoded_again(photo(1))])
    for cosine, pairs in ((0.9, 1), (0.1, 0)):
        vectors = np.array([[1, 0], [cosine, (1 - cosine**2) ** 0.5]], np.float32)
        with_vectors = Images(images.orders, images.hashes, images.thumbnails, images.boxes, vectors)
        assert len(copies_in_cell(with_vectors, RULES)) == pairs


def test_near_hashes_share_a_cell_and_are_proposed():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (3000, 2, 12), np.uint8)
    copies = hashes[:300].copy()
    copies[:, :, 0] ^= 0b1011  # three bits of 96
    centres = find_centres(hashes[:, 0], 6)
    meet = [
        bool(set(ours) & set(theirs))
        for ours, theirs in zip(cells_of(hashes[:300], centres), cells_of(copies, centres), strict=True)
    ]
    assert np.mean(meet) > 0.9
    proposed = propose(np.concatenate([hashes, copies]), max_bits=8)
    assert {(row, 3000 + row, 0) for row in range(300)} <= set(map(tuple, proposed.tolist()))
