"""Splits a lock into what is installed with hashes and what comes without, for one DEVICE of the image.

    requirements_of.py cuda|cpu LOCK HASHED UNHASHED

cuda: the whole lock is hashed. cpu: torch and torchvision are named without hashes, to come from PyTorch's
CPU index, and what only their CUDA build needs is left out. Runs on a bare Python.
"""

import re
import sys
from pathlib import Path

PAIR = ("torch", "torchvision")
CUDA_ONLY = re.compile(r"(nvidia|cuda)-|triton$")
DEVICES = ("cuda", "cpu")


def split(lock: str, device: str) -> tuple[str, str]:
    """The text of both requirement files. Raises ValueError for another device."""
    if device not in DEVICES:
        raise ValueError(f"DEVICE '{device}' is none of {', '.join(DEVICES)}")
    if device == "cuda":
        return lock, ""
    hashed, unhashed = [], []
    for entry in re.split(r"^(?=\S)", lock, flags=re.MULTILINE):  # an entry begins at the margin
        name = re.split(r"[=\s;\[]", entry, maxsplit=1)[0]
        if name in PAIR:
            unhashed.append(entry.split("\\", 1)[0].strip() + "\n")
        elif not CUDA_ONLY.match(name):
            hashed.append(entry)
    return "".join(hashed), "".join(unhashed)


if __name__ == "__main__":
    device, lock, *outputs = sys.argv[1:]
    for text, output in zip(split(Path(lock).read_text(), device), outputs, strict=True):
        Path(output).write_text(text)
