"""The kinds of captions, as a table: what a captioner is asked for, and what a training step may see.

DALL·E 3 (Betker 2023, Section 2.1) captions every image twice: briefly (the main subject) and in detail.

To add a kind, add one entry to CAPTION_KINDS: recaption writes it to the columns `caption_{name}` and
`score_{name}`, the shards' JSON carries these, the blend takes its share, and the report shows it.
A captioner that is fitted here has learned the prompts of the labelled set only (`short`, `long`); other
kinds need a pretrained one.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Share of word triples seen before in a caption: loops are near 1, honest long captions below 0.25.
MAX_REPETITION = 0.4


@dataclass(frozen=True)
class CaptionKind:
    """One kind of caption that a captioner writes.

    name: of its columns, of its section in the config, and of its share in the blend. prompt: the
    instruction, without an image token. max_tokens: where a caption is cut. share: of the training steps
    that see it, where the config does not set its own blend. min_words, max_repetition: what a usable caption
    has at least and at most (cleaning.check_caption).
    """

    name: str
    prompt: str
    max_tokens: int
    share: float = 0.0
    min_words: int = 1
    max_repetition: float = MAX_REPETITION

    @property
    def column(self) -> str:
        """Where its caption is stored, in Parquet and in the shards' JSON."""
        return f"caption_{self.name}"

    @property
    def score_column(self) -> str:
        """Where the judge's score of its caption is stored."""
        return f"score_{self.name}"


SHORT = CaptionKind("short", "Describe the image briefly.", max_tokens=32, share=0.475)
LONG = CaptionKind("long", "Describe the image in detail.", max_tokens=96, share=0.475)

CAPTION_KINDS: dict[str, CaptionKind] = {kind.name: kind for kind in (SHORT, LONG)}

# The alt text is a caption, too: it comes with the image, so it has no prompt.
ALT, ALT_COLUMN, ALT_SHARE = "alt", "alt_text", 0.05

SHORT_PROMPT, LONG_PROMPT = SHORT.prompt, LONG.prompt


def caption_columns() -> dict[str, str]:
    """The column of each caption that a training step may see, by kind; the alt text first."""
    return {ALT: ALT_COLUMN} | {kind.name: kind.column for kind in CAPTION_KINDS.values()}


def default_shares() -> dict[str, float]:
    """The share of each kind in the blend where the config sets none; 95% are written (DALL·E 3)."""
    return {ALT: ALT_SHARE} | {kind.name: kind.share for kind in CAPTION_KINDS.values()}


def captions_of(record: Mapping[str, Any]) -> dict[str, str | None]:
    """The captions that a record has, by kind. record: a row of recaption's output, or a sample's JSON."""
    return {kind: record.get(column) for kind, column in caption_columns().items()}


def prompt_hash(kinds: Iterable[CaptionKind]) -> str:
    """16 hex digits that change when a prompt, a limit or the order of the kinds does."""
    plain = [[kind.name, kind.prompt, kind.max_tokens] for kind in kinds]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]
