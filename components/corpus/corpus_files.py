"""Which files a corpus path names: a file, a folder's files of a kind, or a glob."""

from collections import Counter

from upath import UPath

from components.corpus.locations import location
from components.errors import InputError

# A file with one of these is a record's image; which of the formats are decoded is the filter's affair.
IMAGE_EXTENSIONS = (
    *("jpg", "jpeg", "jfif", "jpe", "pjpeg", "pjp", "mpo", "png", "apng", "webp", "gif", "bmp", "dib"),
    *("tif", "tiff", "avif", "heic", "heif", "jxl", "jp2", "j2k", "ico", "psd", "tga", "ppm", "svg"),
)


def find_files(path: str, suffixes: tuple[str, ...]) -> list[tuple[str, str]]:
    """(name within the corpus, path) of each file, by name. Raises InputError where there is none."""
    root = location(path)
    if root.is_file():
        return [(root.name, _absolute(root))]
    if root.is_dir():
        matches = [file for file in root.rglob("*") if file.name.lower().endswith(suffixes)]
    elif set(path) & set("*?["):
        parts = path.split("/")
        wild = next(i for i, part in enumerate(parts) if set(part) & set("*?["))
        root = UPath("/".join(parts[:wild]) or ("/" if path.startswith("/") else "."))
        matches = list(root.glob("/".join(parts[wild:])))
    else:
        raise InputError(f"corpus path {path} does not exist; check the path")
    files = sorted((_relative(file, root), _absolute(file)) for file in matches if file.is_file())
    files = [file for file in files if not _hidden(file[0])]
    if not files:
        raise InputError(f"corpus path {path} names no {' or '.join(suffixes)} file; check the path")
    return files


def folder_files(path: str, skipped: Counter[str]) -> tuple[str, list[str]]:
    """The folder's absolute path and the names of all files in and under it, relative to it, sorted.

    Those whose name, or whose folder's, begins with a dot are left out and counted in `skipped`.
    """
    root = location(path)
    if not root.is_dir():
        raise InputError(f"corpus folder {path} does not exist or is no folder; check the path")
    names = sorted(_relative(file, root) for file in root.rglob("*") if file.is_file())
    shown = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    skipped["hidden file"] += len(names) - len(shown)
    return _absolute(root), shown


def _relative(file: UPath, root: UPath) -> str:
    return file.relative_to(root).as_posix()


def _absolute(path: UPath) -> str:
    return str(path.resolve())


def _hidden(name: str) -> bool:
    """Files such as .DS_Store and _SUCCESS are bookkeeping, not data."""
    return any(part.startswith((".", "_")) for part in name.split("/"))
