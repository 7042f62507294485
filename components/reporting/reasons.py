"""The reject reasons in plain words, by family, for the report's funnel."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.corpus.schemas import Reason

FAMILIES: Mapping[str, Mapping[Reason, str]] = {
    "Fetching": {
        Reason.FETCH_URL: "no URL that can be asked for",
        Reason.FETCH_DUPLICATE: "the same URL and text twice",
        Reason.FETCH_ADDRESS: "leads to an address that is not public",
        Reason.FETCH_UNREACHABLE: "no connection to the server",
        Reason.FETCH_TIMEOUT: "took too long",
        Reason.FETCH_STATUS: "the server has or gives no image",
        Reason.FETCH_REDIRECT: "redirected in a loop or to nowhere",
        Reason.FETCH_BROKEN: "cut off on its way",
        Reason.FETCH_TOO_LARGE: "too large to fetch",
        Reason.FETCH_NO_IMAGE: "not an image",
        Reason.FETCH_ROBOTS: "refused by robots.txt",
        Reason.FETCH_OPT_OUT: "reserved by its owner",
    },
    "Alt text": {
        Reason.ALT_MISSING: "no alt text",
        Reason.ALT_TOO_SHORT: "too short to describe anything",
        Reason.ALT_TOO_LONG: "too long for a description",
        Reason.ALT_FILENAME: "a file name",
        Reason.ALT_URL: "a web address",
        Reason.ALT_DIGITS: "digits, sizes or codes",
        Reason.ALT_BOILERPLATE: "a stock word such as “image” or “logo”",
        Reason.ALT_SPAM: "shop or search-engine text",
        Reason.ALT_MARKUP: "markup",
        Reason.ALT_LANGUAGE: "not in a language that is kept",
        Reason.ALT_REPETITION: "repeats itself",
        Reason.ALT_NOT_VISIBLE: "names nothing that can be seen",
    },
    "Image": {
        Reason.IMAGE_MISSING: "no image",
        Reason.IMAGE_BROKEN: "cannot be decoded",
        Reason.IMAGE_FORMAT: "a format that is not read",
        Reason.IMAGE_TOO_SMALL: "too small",
        Reason.IMAGE_TOO_LARGE: "too large to decode safely",
        Reason.IMAGE_ASPECT: "too long and thin",
        Reason.IMAGE_BLANK: "blank",
    },
    "Record": {
        Reason.DUPLICATE: "the same record twice",
        Reason.NEAR_DUPLICATE: "nearly the same image again",
        Reason.CONTAMINATED: "stands in an evaluation set",
        Reason.JUDGE_SCORE: "the text does not fit the image",
        Reason.QUARANTINED: "takes too long or too much memory, or crashes a decoder",
        Reason.WITHDRAWN: "withdrawn (a takedown)",
    },
    "Caption": {
        Reason.CAPTION_EMPTY: "the captioner wrote nothing",
        Reason.CAPTION_REPETITION: "the caption repeats itself",
        Reason.CAPTION_SCORE: "the caption does not fit the image",
        Reason.CAPTION_REFUSED: "the captioner refused to describe it",
        Reason.CAPTION_DISAGREEMENT: "its captions speak of different things",
    },
    "Head": {
        Reason.AESTHETIC: "below the aesthetic score",
        Reason.NSFW: "not safe for work",
        Reason.WATERMARK: "watermarked",
        Reason.HEAD_SCORE: "outside a head's threshold",
    },
    "Error": {Reason.ERRORED: "failed while it was worked on"},
}


@dataclass(frozen=True)
class ReasonCount:
    """How many records one reason rejected."""

    reason: str
    words: str
    family: str
    records: int


def count_reasons(rejects: Mapping[str, int]) -> tuple[ReasonCount, ...]:
    """The reasons that occurred, the most frequent first; a reason unknown here stands under its own name."""
    known = {
        str(reason): (family, words) for family, group in FAMILIES.items() for reason, words in group.items()
    }
    counted = [
        ReasonCount(
            reason, known.get(reason, ("Other", reason))[1], known.get(reason, ("Other", ""))[0], records
        )
        for reason, records in rejects.items()
        if records
    ]
    return tuple(sorted(counted, key=lambda count: (-count.records, count.reason)))


def reason_words(reason: str | None) -> str:
    """One reason in plain words."""
    for group in FAMILIES.values():
        for known, words in group.items():
            if known == reason:
                return words
    return reason or ""
