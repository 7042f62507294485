"""The image files of the toy web: a scene as JPEG, PNG, WebP, and what a crawl has in their place.

Bytes are a pure function of the scene, the generator and Pillow's version.
"""

import io

import numpy as np
from PIL import Image

from components.toyworld.render import render
from components.toyworld.scene import BACKGROUNDS, Scene

# Formats and their shares. Palette and alpha are PNGs; greyscale ones are chosen by name.
FORMATS: dict[str, float] = {"jpeg": 0.47, "webp": 0.20, "png": 0.14, "alpha": 0.12, "palette": 0.07}
SIDES = (64, 72, 80, 96, 112, 128)  # pixels


def encode_scene(
    scene: Scene, rng: np.random.Generator, *, grey: bool = False, side: int | None = None
) -> bytes:
    """The scene as an image file: a random format by FORMATS, at `side` pixels or a random one of SIDES."""
    image = render(scene, side or int(rng.choice(SIDES)))
    name = str(rng.choice(list(FORMATS), p=list(FORMATS.values())))
    if grey:
        return encode(image.convert("L"), "jpeg" if name in ("jpeg", "webp") else "png", rng)
    if name == "alpha" and scene.background == "white":
        return encode(_cut_out(image), "png", rng)
    return encode(image, name, rng)


def encode(image: Image.Image, name: str, rng: np.random.Generator) -> bytes:
    """The image as a file in one of FORMATS, JPEG and WebP at a random quality."""
    buffer = io.BytesIO()
    quality = int(rng.integers(80, 96))
    match name:
        case "jpeg":
            image.save(buffer, "JPEG", quality=quality)
        case "webp":
            image.save(buffer, "WEBP", quality=quality, method=2)
        case "palette":
            image.quantize(64).save(buffer, "PNG")
        case "alpha":
            image.convert("RGBA").save(buffer, "PNG")
        case _:
            image.save(buffer, "PNG")
    return buffer.getvalue()


def encode_again(original: bytes, rng: np.random.Generator) -> bytes:
    """The same image as another site would serve it: another format or quality, sometimes another size."""
    with Image.open(io.BytesIO(original)) as opened:
        image = opened.convert("RGBA")
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image)
    copy = flat.convert("RGB")
    if rng.random() < 0.4:
        side = int(rng.choice(SIDES))
        copy = copy.resize((side, side), Image.Resampling.LANCZOS)
    while True:
        encoded = encode(copy, str(rng.choice(["jpeg", "webp", "png"])), rng)
        if encoded != original:
            return encoded


def broken_image(scene: Scene, rng: np.random.Generator) -> bytes | None:
    """What cannot be decoded: cut files, error pages, noise, nothing."""
    whole = encode_scene(scene, rng)
    match int(rng.integers(8)):
        case 0:
            return None
        case 1:
            return b""
        case 2:
            return b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body></body></html>"
        case 3:
            return rng.bytes(int(rng.integers(200, 4000)))
        case 4:
            return b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle r="4"/></svg>'
        case _:
            return whole[: int(len(whole) * rng.uniform(0.1, 0.7))]


def tiny_image(scene: Scene, rng: np.random.Generator) -> bytes:
    """A tracking pixel, or a thumbnail too small to show anything."""
    side = 1 if rng.random() < 0.3 else int(rng.integers(8, 25))
    return encode(render(scene, side), "png", rng)


def blank_image(scene: Scene, rng: np.random.Generator) -> bytes:
    """A placeholder: the background and nothing else."""
    side = int(rng.choice(SIDES))
    image = Image.new("RGB", (side, side), scene.paint)
    return encode(image, str(rng.choice(["jpeg", "png", "webp"])), rng)


def banner_image(scene: Scene, rng: np.random.Generator) -> bytes:
    """A strip ten times as wide as high, with the scene at one end."""
    image = Image.new("RGB", (640, 64), scene.paint)
    image.paste(render(scene, 64))
    return encode(image, "jpeg", rng)


def _cut_out(image: Image.Image) -> Image.Image:
    """An image on white as people export it: no background, alpha in its place."""
    pixels = np.asarray(image, np.float32)
    white = np.array(BACKGROUNDS["white"], np.float32)
    # The least alpha that, over white, can give each pixel's colour.
    alpha = ((white - pixels) / white).max(-1, keepdims=True).clip(0, 1)
    ink = ((pixels - white * (1 - alpha)) / np.maximum(alpha, 1 / 255)).clip(0, 255)
    cut = np.concatenate([ink, alpha * 255], -1).round().astype(np.uint8)
    return Image.fromarray(cut, "RGBA")
