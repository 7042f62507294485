"""Encoded images with something wrong, built by damaging good ones: (name, bytes, expected reason or None).

None: it is an image as a browser shows it, and goes on.
"""

import gzip
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms

from components.corpus.schemas import Reason

BROKEN, FORMAT, BLANK = Reason.IMAGE_BROKEN, Reason.IMAGE_FORMAT, Reason.IMAGE_BLANK
SMALL, LARGE, ASPECT, MISSING = (
    Reason.IMAGE_TOO_SMALL,
    Reason.IMAGE_TOO_LARGE,
    Reason.IMAGE_ASPECT,
    Reason.IMAGE_MISSING,
)
Case = tuple[str, bytes | None, Reason | None]
WIDTH, HEIGHT = 80, 64


def photo(width: int = WIDTH, height: int = HEIGHT, mode: str = "RGB") -> Image.Image:
    """Smooth colours with some noise."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 20, (height, width, 3))
    pixels = np.stack([x * 200 // width, y * 200 // height, 100 + 0 * x], -1) + noise
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, body: bytes, bits: int = 8, colour: int = 2, *more: bytes) -> bytes:
    """A PNG with a header that says what it is told to."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(body)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def rows(width: int, height: int, channels: int = 3) -> bytes:
    """Filtered rows of noise, as PNG compresses them."""
    line = np.random.default_rng(1).integers(0, 256, (height, width * channels)).astype(np.uint8)
    return b"".join(b"\0" + row.tobytes() for row in line)


def interlaced(width: int, height: int, said: int | None = None) -> bytes:
    """A grey PNG in seven passes; said: the height that its header says."""
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    sizes = [(len(range(x, width, right)), len(range(y, height, down))) for x, y, right, down in passes]
    body = b"".join(rows(columns, lines, 1) for columns, lines in sizes)
    header = struct.pack(">IIBBBBB", width, said or height, 8, 0, 0, 0, 1)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def jpegs() -> Iterator[Case]:
    for kind, options in (
        ("baseline", {}),
        ("progressive", {"progressive": True}),
        ("444", {"subsampling": 0}),
    ):
        good = encoded(photo(), "JPEG", **options)
        scan, frame = (
            good.rfind(b"\xff\xda") + 14,
            good.find(b"\xff\xc2" if kind == "progressive" else b"\xff\xc0"),
        )
        middle = (scan + len(good)) // 2
        noise = np.random.default_rng(2).integers(0, 255, len(good) - scan - 2).astype(np.uint8).tobytes()
        yield f"{kind} JPEG", good, None
        yield f"{kind} JPEG without its end", good[:-2], BROKEN
        yield f"{kind} JPEG cut", good[:middle], BROKEN
        yield f"{kind} JPEG cut and closed", good[:middle] + b"\xff\xd9", BROKEN
        yield f"{kind} JPEG with a zeroed scan", patched(good, scan, bytes(len(good) - scan - 2)), BROKEN
        yield f"{kind} JPEG with a noisy scan", patched(good, scan, noise), BROKEN
        yield f"{kind} JPEG taller than its scan", patched(good, frame + 5, struct.pack(">H", 120)), BROKEN
        yield f"{kind} JPEG wider than its scan", patched(good, frame + 7, struct.pack(">H", 160)), BROKEN
        yield f"{kind} JPEG of height 0", patched(good, frame + 5, b"\0\0"), BROKEN
        yield f"{kind} JPEG of width 0", patched(good, frame + 7, b"\0\0"), BROKEN
        yield f"{kind} JPEG of 65500 x 65500", patched(good, frame + 5, b"\xff\xdc\xff\xdc"), LARGE
    good = encoded(photo(), "JPEG")
    frame, tables, huffman = (good.find(marker) for marker in (b"\xff\xc0", b"\xff\xdb", b"\xff\xc4"))
    yield "JPEG shorter than its scan", patched(good, frame + 5, struct.pack(">H", 40)), BROKEN
    yield "JPEG that counts on the standard Huffman tables", patched(good, huffman, b"\xff\xfe"), None
    yield "JPEG without a quantisation table", patched(good, tables, b"\xff\xfe"), BROKEN
    yield "JPEG of 12 bits", patched(good, frame + 4, b"\x0c"), BROKEN
    yield "JPEG of 7 channels", patched(good, frame + 9, b"\7"), BROKEN
    yield "JPEG of two frames", good[:frame] + good[frame : frame + 19] + good[frame:], BROKEN
    yield "JPEG of two sizes", good[:2] + patched(good[frame : frame + 19], 5, b"\0\x50") + good[2:], BROKEN
    yield "JPEG of a start only", b"\xff\xd8", BROKEN
    yield "JPEG of a start and an end", b"\xff\xd8\xff\xd9", BROKEN
    yield "JPEG without a scan", good[: good.rfind(b"\xff\xda")] + b"\xff\xd9", BROKEN
    yield "JPEG with a scan only", b"\xff\xd8" + good[good.rfind(b"\xff\xda") :], BROKEN
    yield "JPEG with a segment longer than the file", good[:2] + b"\xff\xe1\xff\xff" + good[2:], BROKEN
    yield "JPEG with bytes after its end", good + b"<!-- served by a cache -->", None
    yield "JPEG within text", b"HTTP/1.1 200 OK\r\n\r\n" + good, BROKEN
    yield "JPEG of 200 scans", good[:2] + b"\xff\xda" * 200 + good[2:], BROKEN
    yield "JPEG twice", good + good, None
    yield "JPEG in grey", encoded(photo(mode="L"), "JPEG"), None
    yield "JPEG in CMYK", encoded(photo(mode="CMYK"), "JPEG"), None
    inks = encoded(photo(mode="CMYK"), "JPEG")
    yield "JPEG in CMYK cut and closed", inks[: len(inks) * 2 // 3] + b"\xff\xd9", BROKEN
    yield "JPEG in stored RGB", encoded(photo(), "JPEG", keep_rgb=True), None
    yield "JPEG of restart intervals", encoded(photo(), "JPEG", restart_marker_blocks=2), None
    restarts = encoded(photo(), "JPEG", restart_marker_blocks=2)
    yield "JPEG with a lost restart", restarts.replace(b"\xff\xd3", b"\xff\xd5", 1), BROKEN
    yield "MPO", encoded(photo(), "MPO", save_all=True, append_images=[photo(mode="L")]), None
    exif = Image.Exif()
    for orientation in (1, 6, 9, 65535):
        exif[0x0112] = orientation
        yield f"JPEG turned by {orientation}", encoded(photo(), "JPEG", exif=exif), None
    yield "JPEG with EXIF of noise", encoded(photo(), "JPEG", exif=b"Exif\0\0" + bytes(range(200))), None
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield "JPEG with a profile", encoded(photo(), "JPEG", icc_profile=profile), None
    yield "JPEG with a cut profile", encoded(photo(), "JPEG", icc_profile=profile[:200]), None
    yield (
        "JPEG in CMYK with a profile for RGB",
        encoded(photo(mode="CMYK"), "JPEG", icc_profile=profile),
        None,
    )
    yield "JPEG of one colour", encoded(Image.new("RGB", (64, 64), "red"), "JPEG"), BLANK
    yield "JPEG of 1 x 1", encoded(photo(1, 1), "JPEG"), SMALL
    yield "JPEG of 400 x 40", encoded(photo(400, 40), "JPEG"), ASPECT


def pngs() -> Iterator[Case]:
    good = encoded(photo(), "PNG")
    data = good.find(b"IDAT")
    size = struct.unpack(">I", good[data - 4 : data])[0]
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        image = photo(mode="L").convert("I;16") if mode == "I;16" else photo(mode=mode)
        yield f"PNG in {mode}", encoded(image, "PNG"), BLANK if mode == "I;16" else None
    yield "PNG", good, None
    yield "PNG cut", good[: len(good) // 2], BROKEN
    yield "PNG without its end", good[:-12], BROKEN
    yield "PNG cut and closed", good[: data + 4 + size // 2] + chunk(b"IEND", b""), BROKEN
    yield "PNG with a flipped bit", patched(good, data + 100, bytes([good[data + 100] ^ 1])), BROKEN
    yield "PNG with a wrong checksum", patched(good, data + 4 + size, b"\0\0\0\0"), BROKEN
    yield "PNG with a wrong checksum of its header", patched(good, 29, b"\0\0\0\0"), BROKEN
    yield "PNG with zeroed data", patched(good, data + 4, bytes(size)), BROKEN
    yield "PNG with bytes after its end", good + b"more", None
    yield "PNG through a text transfer", good.replace(b"\r\n", b"\n"), BROKEN
    yield "PNG of a header only", good[:33], BROKEN
    yield "PNG without data", good[: data - 4] + chunk(b"IEND", b""), BROKEN
    yield "PNG by its header", png(64, 64, rows(64, 64)), None
    yield "PNG taller than its data", png(64, 128, rows(64, 64)), BROKEN
    yield "PNG wider than its data", png(128, 64, rows(64, 64)), BROKEN
    yield "PNG of data cut in its stream", png(64, 64, rows(64, 40)), BROKEN
    yield "PNG whose last rows are black", png(64, 64, rows(64, 40) + bytes(24 * 193)), None
    yield "PNG of height 0", png(64, 0, rows(64, 64)), BROKEN
    yield "PNG of width 0", png(0, 64, rows(64, 64)), BROKEN
    yield "PNG of a negative width", png(2**32 - 64, 64, rows(64, 64)), LARGE
    yield "PNG of 3 bits", png(64, 64, rows(64, 64), 3), BROKEN
    yield "PNG of colour type 5", png(64, 64, rows(64, 64), 8, 5), BROKEN
    yield "PNG with a filter that does not exist", png(64, 64, b"\x09" + rows(64, 64)[1:]), BROKEN
    yield "PNG with a palette that is not there", png(64, 64, rows(64, 64, 1), 8, 3), BLANK
    yield (
        "PNG with a palette of 2",
        png(64, 64, rows(64, 64, 1), 8, 3, chunk(b"PLTE", b"\0\0\0\xff\xff\xff")),
        None,
    )
    yield "PNG bomb of 100 megapixels", png(10_000, 10_000, b""), LARGE
    yield "PNG bomb of 4 gigapixels", png(65_500, 65_500, b""), LARGE
    bomb = zlib.compress(bytes(80_000_000), 9)
    yield "PNG with a bomb of text", good[:33] + chunk(b"zTXt", b"Comment\0\0" + bomb) + good[33:], BROKEN
    yield (
        "PNG with a bomb of a profile",
        good[:33] + chunk(b"iCCP", b"icc\0\0" + bomb[:9000]) + good[33:],
        BROKEN,
    )
    yield "PNG with a profile of noise", encoded(photo(), "PNG", icc_profile=bytes(range(256))), None
    yield "PNG animated", encoded(photo(), "PNG", save_all=True, append_images=[photo(mode="L")]), FORMAT
    yield "PNG wholly transparent", encoded(Image.new("RGBA", (64, 64), (9, 9, 9, 0)), "PNG"), BLANK
    yield "PNG of 64 x 4", encoded(photo(64, 4), "PNG"), SMALL
    yield "PNG interlaced", interlaced(64, 40), None
    yield "PNG interlaced and taller than its data", interlaced(64, 40, 48), BROKEN
    yield "PNG of 16 bits in colour", png(64, 64, rows(64, 64, 6), 16), None


def webps() -> Iterator[Case]:
    for kind, options in (("lossy", {}), ("lossless", {"lossless": True})):
        good = encoded(photo(), "WEBP", **options)
        yield f"{kind} WebP", good, None
        yield f"{kind} WebP cut", good[: len(good) // 2], BROKEN
        yield f"{kind} WebP without its last bytes", good[:-8], BROKEN
        yield f"{kind} WebP zeroed", patched(good, 20, bytes(len(good) - 20)), BROKEN
        yield f"{kind} WebP that says it is shorter", patched(good, 4, struct.pack("<I", 40)), BROKEN
    good = encoded(photo(), "WEBP")
    yield "WebP with alpha", encoded(photo(mode="RGBA"), "WEBP"), None
    yield "WebP of a header only", good[:16], BROKEN
    yield "WebP animated", encoded(photo(), "WEBP", save_all=True, append_images=[photo(mode="L")]), FORMAT
    yield "RIFF that is a sound", b"RIFF\x24\0\0\0WAVEfmt " + bytes(28), BROKEN


def others() -> Iterator[Case]:
    for kind in ("GIF", "BMP", "TIFF", "ICO", "AVIF"):
        yield kind, encoded(photo(), kind), FORMAT
    yield "big-endian TIFF", b"MM\0*" + bytes(40), FORMAT
    yield "GIF animated", encoded(photo(), "GIF", save_all=True, append_images=[photo(mode="L")]), FORMAT
    yield "HEIC", b"\0\0\0\x18ftypheic" + bytes(40), FORMAT
    yield "PSD", b"8BPS\0\1" + bytes(40), FORMAT
    yield "JPEG XL", b"\xff\x0a" + bytes(40), FORMAT
    yield "JPEG XL in a box", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), FORMAT
    yield "JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), FORMAT
    yield "PDF", b"%PDF-1.7\n", FORMAT
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>', FORMAT
    yield "SVG after a declaration", b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- x -->\n<svg/>', FORMAT
    yield "HTML", b"\n<!DOCTYPE html><html><body>404</body></html>", FORMAT
    yield "HTML without a type", b"<html><body>hotlinking is not allowed</body></html>", FORMAT
    yield "JSON", b'{"error": "not found"}', BROKEN
    yield "text", b"Not Found", BROKEN
    yield "UTF-16 text", "Not Found".encode("utf-16"), BROKEN
    yield "ZIP", b"PK\x03\x04" + bytes(60), BROKEN
    yield "gzip of a JPEG", gzip.compress(encoded(photo(), "JPEG"), mtime=0), BROKEN
    yield "a program", b"\x7fELF" + bytes(60), BROKEN
    yield "a pointer to large storage", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", BROKEN
    yield "base64", b"data:image/png;base64,iVBORw0KGgo=", BROKEN
    yield "null", None, MISSING
    yield "no bytes", b"", MISSING
    yield "one byte", b"\xff", BROKEN
    yield "zeros", bytes(1000), BROKEN
    yield "noise", np.random.default_rng(3).integers(0, 256, 1000).astype(np.uint8).tobytes(), BROKEN


IMAGES: list[Case] = [*jpegs(), *pngs(), *webps(), *others()]
