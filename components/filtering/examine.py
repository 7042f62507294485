"""One raw record, alone: its alt text checked, its bytes opened once and measured, or the reason why not.

What needs other records (duplicates) or a model (the judge's score) comes after; see `selection.py` and
`judge.py`. A column that the filter measures is a field of `Kept` and a column of FILTERED by the same name.
"""

import hashlib
from dataclasses import dataclass

from PIL import Image

from components.corpus.fragments import RawRecord
from components.corpus.images import ImageRejected, ImageRules, open_reduced
from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.errors import one_line
from components.filtering.alt_text import AltTextRules, check_alt_text
from components.filtering.language import UNDETERMINED, language_of
from components.filtering.signature import SHARP_SIDE, Box, signature_of


@dataclass(frozen=True)
class Kept:
    """A record that went through, with what was measured. width, height: of the whole image, upright."""

    key: str
    pixels: Image.Image  # decoded, perhaps smaller; for the judge, then to be let go
    image: bytes  # as encoded
    alt_text: str | None  # cleaned and trimmed; None where it was dropped for the captioner to write others
    url: str | None
    width: int
    height: int
    sha256: str
    phash: str
    thumbnail: bytes
    content_box: Box
    language: str
    license: str | None = None
    source: str | None = None
    dropped: Rejection | None = None  # why the text was dropped
    raw_alt_text: str | None = None  # as it came


@dataclass(frozen=True)
class Rejected:
    """A record that did not go on, with its texts as they came."""

    key: str
    rejection: Rejection
    alt_text: str | None
    url: str | None


def examine(
    record: RawRecord,
    key: str,
    alt_text_rules: AltTextRules,
    image_rules: ImageRules,
    judge_side: int | None = None,
) -> Kept | Rejected:
    """Check the alt text first (it is cheap), then the image. What fails on the way is a reason, too.

    A text whose reason has the policy `recaption` is dropped, and the record goes on without one. judge_side:
    pixels of the shorter side that the judge wants to see; None: all.
    """
    try:
        checked = check_alt_text(record.alt_text, alt_text_rules)
        rejection = checked.rejection
        if rejection is None or alt_text_rules.policy_for(rejection) == "recaption":
            least_side = None if judge_side is None else max(SHARP_SIDE, judge_side)
            image = open_reduced(record.image, image_rules, least_side)
            assert record.image is not None
            return Kept(
                key=key,
                pixels=image.pixels,
                image=record.image,
                alt_text=checked.text if rejection is None else None,
                url=record.url,
                width=image.width,
                height=image.height,
                sha256=hashlib.sha256(record.image).hexdigest(),
                **vars(signature_of(image.pixels)),
                license=record.license,
                source=record.source,
                language=language_of(checked.text) if rejection is None else UNDETERMINED,
                dropped=rejection,
                raw_alt_text=record.alt_text,
            )
    except ImageRejected as error:
        rejection = error.rejection
    except Exception as error:  # noqa: BLE001 (the per-record boundary: one bad record never stops a stage)
        rejection = Rejection(Reason.ERRORED, one_line(f"{type(error).__name__}: {error}", 200))
    return Rejected(key, rejection, record.alt_text, record.url)
