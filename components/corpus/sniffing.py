"""What bytes are, by how they begin: no name and no header counts (WHATWG, MIME Sniffing)."""

SNIFFED = 512  # bytes that are enough

FORMATS = ("JPEG", "PNG", "WEBP")  # that are read
SIGNATURES = (  # (offset, bytes, name)
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"8BPS", "PSD"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"\0\0\0\x0cJXL", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cjP", "JPEG 2000"),
)
CONTAINERS = (
    (0, b"\x1f\x8b", "gzip"),
    (0, b"PK\3\4", "a zip archive"),
    (4, b"ftyp", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
)
PDF = ((0, b"%PDF", "PDF"),)
MARKUP = ((b"<svg", "SVG"), (b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"<head", "HTML"))
BLANKS = b"\xef\xbb\xbf \t\r\n\f"


def image_format(head: bytes) -> str | None:
    """The name of the image format that the bytes begin as; None where it is none."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return _matching(head, SIGNATURES)


def document_format(head: bytes) -> str | None:
    """The name of what would be drawn, not decoded, that the bytes begin as; None where it is none."""
    if (name := _matching(head, PDF)) is not None:
        return name
    text = head.lstrip(BLANKS).lower()
    for start, name in MARKUP:
        if text.startswith(start) or (text.startswith((b"<?xml", b"<!--")) and start in text):
            return name
    return None


def describe(head: bytes) -> str:
    """What bytes that are no image are, in words."""
    if not head:
        return "an empty body"
    if (name := _matching(head, CONTAINERS) or document_format(head)) is not None:
        return name
    text = head.lstrip(BLANKS)
    if text.startswith(b"<"):
        return "markup"
    if text.startswith((b"{", b"[")):
        return "JSON"
    return f"bytes that begin {head[:8].hex(' ')}"


def _matching(head: bytes, signatures: tuple[tuple[int, bytes, str], ...]) -> str | None:
    for offset, magic, name in signatures:
        if head[offset:].startswith(magic):
            return name
    return None
