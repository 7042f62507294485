"""The data contracts: Arrow schemas of every hand-off, the reject reasons, and a record's key.

Every stage writes and reads through these; a missing, extra or retyped column fails before the first write.

A column of the shards' JSON is a column of recaption's output, `image` aside: to add one, add it to FILTERED
and, by the same name, to what the filter measures (`Kept` in components/filtering/examine.py). It travels on
through recaption and shard. A caption and its score come with their kind (components/captioning/kinds.py).
"""

import hashlib
from collections.abc import Iterable
from enum import StrEnum

import pyarrow as pa

from components.errors import InputError


class Reason(StrEnum):
    """Why a record did not go on. Closed: a reason that is not listed here cannot be written."""

    # a list of URLs
    FETCH_URL = "fetch_url"  # no http:// or https:// URL
    FETCH_DUPLICATE = "fetch_duplicate"  # a row with this URL and this alt text came before
    FETCH_ADDRESS = "fetch_address"  # it leads to an address that is not public
    FETCH_UNREACHABLE = "fetch_unreachable"  # no name, no connection, no TLS
    FETCH_TIMEOUT = "fetch_timeout"
    FETCH_STATUS = "fetch_status"  # an HTTP status that gives no image
    FETCH_REDIRECT = "fetch_redirect"  # in a loop, too often, or to nowhere
    FETCH_BROKEN = "fetch_broken"  # cut off, or no HTTP
    FETCH_TOO_LARGE = "fetch_too_large"
    FETCH_NO_IMAGE = "fetch_no_image"  # HTML, say, whatever its header calls it
    FETCH_ROBOTS = "fetch_robots"  # refused by robots.txt
    FETCH_OPT_OUT = "fetch_opt_out"  # reserved: X-Robots-Tag, TDMRep
    # alt-text rules
    ALT_MISSING = "alt_missing"  # null or empty
    ALT_TOO_SHORT = "alt_too_short"
    ALT_TOO_LONG = "alt_too_long"
    ALT_FILENAME = "alt_filename"
    ALT_URL = "alt_url"
    ALT_DIGITS = "alt_digits"  # digits, sizes, codes
    ALT_BOILERPLATE = "alt_boilerplate"  # "image", "logo", "photo of"
    ALT_SPAM = "alt_spam"  # SEO and shop text
    ALT_MARKUP = "alt_markup"
    ALT_LANGUAGE = "alt_language"
    ALT_REPETITION = "alt_repetition"
    ALT_NOT_VISIBLE = "alt_not_visible"  # names nothing that an image could show
    # images
    IMAGE_MISSING = "image_missing"
    IMAGE_BROKEN = "image_broken"
    IMAGE_FORMAT = "image_format"
    IMAGE_TOO_SMALL = "image_too_small"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_ASPECT = "image_aspect"
    IMAGE_BLANK = "image_blank"
    # records
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    CONTAMINATED = "contaminated"  # an image or a prompt of an evaluation set
    JUDGE_SCORE = "judge_score"
    QUARANTINED = "quarantined"  # examining it takes too long or too much memory, or ends its process
    WITHDRAWN = "withdrawn"  # a takedown: `straightshot withdraw`
    # captions
    CAPTION_EMPTY = "caption_empty"
    CAPTION_REPETITION = "caption_repetition"
    CAPTION_SCORE = "caption_score"
    CAPTION_REFUSED = "caption_refused"  # "I'm sorry, I can't help with that"
    CAPTION_DISAGREEMENT = "caption_disagreement"  # two captions of one image speak of different things
    # heads on the judge's embeddings
    AESTHETIC = "aesthetic"
    NSFW = "nsfw"
    WATERMARK = "watermark"
    HEAD_SCORE = "head_score"  # of any other head
    # the one reason that is an error of ours or of the record's bytes, not a decision
    ERRORED = "errored"


CORPUS = pa.schema([("image", pa.binary()), ("alt_text", pa.string()), ("url", pa.string())])

FILTERED = pa.schema(
    [
        ("key", pa.string()),
        ("image", pa.binary()),
        ("alt_text", pa.string()),
        ("url", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
        ("phash", pa.string()),
        ("thumbnail", pa.binary()),
        ("content_box", pa.list_(pa.float32())),
        ("language", pa.string()),
        ("judge_score", pa.float32()),
        ("embedding", pa.list_(pa.float16())),  # the judge's, of the image
    ]
)
# What a search for duplicates compares images by, in this snapshot and in later ones; it goes no further.
SEARCHED = ("phash", "thumbnail", "content_box", "embedding")


# Where an image is from and on what terms: columns that a corpus may have, and that then go on to the shards.
PROVENANCE = ("license", "source")
HEAD_COLUMN = "head_"  # and a head's name: its score of the image


def head_column(name: str) -> pa.Field:
    """The column of a head's scores (components/judge/heads.py)."""
    return pa.field(f"{HEAD_COLUMN}{name}", pa.float32())


def provenance_fields(names: Iterable[str]) -> list[pa.Field]:
    """Those columns of PROVENANCE that are among `names`."""
    return [pa.field(name, pa.string()) for name in PROVENANCE if name in set(names)]


def optional_fields(names: Iterable[str]) -> list[pa.Field]:
    """The columns among `names` that a part has only for some corpora and configs, as they must be."""
    heads = [head_column(name.removeprefix(HEAD_COLUMN)) for name in names if name.startswith(HEAD_COLUMN)]
    return [*heads, *provenance_fields(names)]


def captioned_schema(kinds: Iterable[str]) -> pa.Schema:
    """FILTERED, but for what is SEARCHED, with a caption and its score for each of these kinds (their names),
    and who wrote them.
    """
    kinds = list(kinds)
    return pa.schema(
        [
            *(field for field in FILTERED if field.name not in SEARCHED),
            *((f"caption_{kind}", pa.string()) for kind in kinds),
            ("captioner", pa.string()),
            ("prompt_hash", pa.string()),
            *((f"score_{kind}", pa.float32()) for kind in kinds),
        ]
    )


REJECTS = pa.schema(
    [
        ("key", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("alt_text", pa.string()),
        ("url", pa.string()),
    ]
)

# Some rejects of each reason, to be looked at. sha256: of the image; thumbnail: JPEG; problem: why none.
# of: the key of what a copy is one of, which has a row of its own, without a reason, where it is at hand.
REJECT_EXAMPLES = pa.schema(
    [
        ("key", pa.string()),
        ("reason", pa.string()),
        ("sha256", pa.string()),
        ("thumbnail", pa.binary()),
        ("problem", pa.string()),
        ("of", pa.string()),
    ]
)

LABELLED = pa.schema([("image", pa.binary()), ("caption_short", pa.string()), ("caption_long", pa.string())])


def check_schema(actual: pa.Schema, expected: pa.Schema, where: str, *, extra: bool = False) -> None:
    """Raise InputError naming the first column that is missing, retyped or (unless `extra`) unexpected."""
    for field in expected:
        if field.name not in actual.names:
            raise InputError(
                f"{where}: column '{field.name}' ({field.type}) is missing; it has {', '.join(actual.names)}"
            )
        actual_type = actual.field(field.name).type
        if actual_type != field.type:
            raise InputError(f"{where}: column '{field.name}' is {actual_type}, expected {field.type}")
    for name in actual.names:
        if not extra and name not in expected.names:
            raise InputError(f"{where}: column '{name}' is not part of the schema; remove it")


def record_key(image: bytes, source_id: str) -> str:
    """A record's key: 32 hex digits of the image's bytes and where it came from; never a position."""
    digest = hashlib.sha256(hashlib.sha256(image).digest())
    digest.update(source_id.encode())
    return digest.hexdigest()[:32]
