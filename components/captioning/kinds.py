"""Caption styles: what is asked of a captioner.

DALL·E 3 (Betker 2023) captions every image twice: briefly (the main subject) and at length (everything that
can be seen). A style is one of these: its name, the instruction, and how long the answer may be.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class CaptionKind:
    """One kind of caption."""

    name: str  # "short" or "long": the column it is written to
    prompt: str  # the instruction the captioner is given, without an image token
    max_new_tokens: int  # where a caption is cut, in tokens


SHORT_PROMPT = "Describe the image briefly."
LONG_PROMPT = "Describe the image in detail."

SHORT = CaptionKind("short", SHORT_PROMPT, 32)
LONG = CaptionKind("long", LONG_PROMPT, 96)


def prompt_hash(styles: Iterable[CaptionKind]) -> str:
    """16 hex digits that change when a prompt, a limit or the order of the styles does."""
    plain = [[style.name, style.prompt, style.max_new_tokens] for style in styles]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]
