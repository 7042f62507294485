"""What is kept of an image so that its copies are found: a hash that proposes, a thumbnail that decides.

A uniform border, and the uniform margin of a drawing or a page, is trimmed first, so that adding or cutting
one changes little. `phash` is two hashes, of the trimmed image and of the whole one; each is 96 signs of
low frequencies (a DCT as in pHash, Zauner 2010): 63 of luminance, 16 of each chroma, which crops by a few
per cent, encodings and sizes move little. `thumbnail` is the trimmed image squeezed into a square, as JPEG.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 128  # pixels of the thumbnail, which is square whatever the image's shape
SHARP_SIDE = 192  # of an image's shorter side, the pixels from which its thumbnail is sharp, trimmed or not
QUALITY = 85  # of its JPEG
HASH_BYTES = 12  # of one hash: 96 bits
HASH_DIGITS = 2 * 2 * HASH_BYTES  # of both, in hex

_SAMPLES = 32  # a side of what is transformed, as in pHash
_LUMA, _CHROMA = 8, 4  # frequencies a side
_FLAT = {_LUMA: 40.0, _CHROMA: 60.0}  # coefficients below are noise of the encoding (levels, summed)
_REDUCING_GAP = 2.0  # Pillow's: it averages whole pixels down to so many times the size first
_TRIM_LEVELS = 26  # a border's pixels are within so many levels of its colour
_TRIM_OUTLIERS = 0.03  # share of a border's line that may differ
_TRIM_BLUR = 1  # line
_TRIM_LINES = 8  # looked at together
_TRIM_RINGING, _TRIM_RINGING_OUTLIERS = 0.06, 0.15  # more may in the outer lines: JPEG rings beside an edge
_TRIM_MOST, _TRIM_PASSES = 0.4, 2  # of a side, in one pass; a border around a margin takes two

Bytes = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]  # left, upper, right, lower, as shares of width and height
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Signature:
    """phash: hex. thumbnail: JPEG of the trimmed image. content_box: where in the image that lies."""

    phash: str
    thumbnail: bytes
    content_box: Box


def signature_of(image: Image.Image) -> Signature:
    """The signature of a decoded RGB image."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    whole = content = rgb.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP)
    box = content_box(whole)
    hashes = [_hash(whole)]
    if box != WHOLE:
        width, height = rgb.size
        corners = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        content = rgb.resize(whole.size, Image.Resampling.BILINEAR, corners, reducing_gap=_REDUCING_GAP)
        hashes.insert(0, _hash(content))
    buffer = io.BytesIO()
    content.save(buffer, "JPEG", quality=QUALITY)
    return Signature((hashes[0] + hashes[-1]).hex(), buffer.getvalue(), box)


def content_box(image: Image.Image) -> Box:
    """Where the image, squeezed into a square, is within its uniform borders; WHOLE where little is left."""
    pixels = np.asarray(image)
    left, upper, right, lower = 0, 0, pixels.shape[1], pixels.shape[0]
    for _ in range(_TRIM_PASSES):
        # Beside a border that is gone there is a line or two of its blur.
        inset = [_TRIM_BLUR * (edge != end) for edge, end in _ends(left, upper, right, lower, pixels)]
        part = pixels[upper + inset[1] : lower - inset[3], left + inset[0] : right - inset[2]]
        if not part.size:
            break
        columns = part.transpose(1, 0, 2)
        cut = [_border(columns), _border(part), _border(columns[::-1]), _border(part[::-1])]
        if not any(cut):
            break
        if 10 * (part.shape[1] - cut[0] - cut[2]) < part.shape[1]:
            break
        if 10 * (part.shape[0] - cut[1] - cut[3]) < part.shape[0]:
            break
        cut = [lines + blur if lines else 0 for lines, blur in zip(cut, inset, strict=True)]
        left, upper, right, lower = left + cut[0], upper + cut[1], right - cut[2], lower - cut[3]
    height, width = pixels.shape[:2]
    return (left / width, upper / height, right / width, lower / height)


def mirror_mask() -> npt.NDArray[np.uint8]:
    """The bits of one hash that change when its image is mirrored: those of odd horizontal frequencies."""
    odd = [_frequency_bits(side) for side in (_LUMA, _CHROMA, _CHROMA)]
    return np.packbits(np.concatenate([*odd, [False]]))


def unpack(phashes: list[str]) -> npt.NDArray[np.uint8]:
    """Hashes as rows of bytes: (N, 2, HASH_BYTES), trimmed and whole."""
    return np.frombuffer(bytes.fromhex("".join(phashes)), np.uint8).reshape(-1, 2, HASH_BYTES)


def _ends(left: int, upper: int, right: int, lower: int, pixels: Bytes) -> list[tuple[int, int]]:
    """Each edge and where it would be in an image without a border."""
    return [(left, 0), (upper, 0), (right, pixels.shape[1]), (lower, pixels.shape[0])]


def _twice_median(line: Bytes) -> npt.NDArray[np.int16]:
    """Of each channel: (samples, channels) to (channels,); twice, as it may lie between two levels."""
    ordered = np.sort(line, axis=0).astype(np.int16)
    return ordered[(len(line) - 1) // 2] + ordered[len(line) // 2]


def _border(lines: Bytes) -> int:
    """How many of the first lines are of one colour."""
    twice = _twice_median(lines[0]).astype(np.int32)
    low = np.maximum(-((2 * _TRIM_LEVELS - twice) // 2), 0).astype(np.uint8)
    span = np.minimum((2 * _TRIM_LEVELS + twice) // 2, 255).astype(np.uint8) - low
    most, ringing = int(_TRIM_MOST * len(lines)), int(_TRIM_RINGING * len(lines))
    # Most images have no border, and the first lines show it.
    for start, stop in ((0, min(_TRIM_LINES, most)), (_TRIM_LINES, most)):
        if start >= stop:
            break
        # Below `low` the bytes wrap round. Channel by channel: numpy's loops over three values are slow.
        red, green, blue = (lines[start:stop, :, n] - low[n] > span[n] for n in range(3))
        outliers = (red | green | blue).mean(-1)
        outliers[: max(ringing - start, 0)] -= _TRIM_RINGING_OUTLIERS
        beyond = outliers > _TRIM_OUTLIERS
        if beyond.any():
            return start + int(np.argmax(beyond))
    return most


def _hash(image: Image.Image) -> bytes:
    """Of an image of SIDE pixels a side."""
    from scipy.fft import dctn

    small = image.reduce(SIDE // _SAMPLES).convert("YCbCr")
    planes = np.asarray(small, np.float32) - np.array([0, 128, 128], np.float32)
    spectrum = dctn(planes, axes=(0, 1), norm="ortho")
    signs = [spectrum[:_LUMA, :_LUMA, 0].reshape(-1)[1:] > _FLAT[_LUMA] / 4]
    signs += [spectrum[:_CHROMA, :_CHROMA, plane].reshape(-1) > _FLAT[_CHROMA] / 4 for plane in (1, 2)]
    return np.packbits(np.concatenate([*signs, [False]])).tobytes()


def _frequency_bits(side: int) -> npt.NDArray[np.bool_]:
    odd = np.broadcast_to(np.arange(side) % 2 == 1, (side, side)).reshape(-1)
    return odd[1:] if side == _LUMA else odd
