"""Alt text: cleaned, then checked by rules.

A rule returns None, or a reason. The rules about the form of the string are in `alt_text_patterns.py`, those
about words in `alt_text_lexicon.py`, the language in `language.py`.
"""

import re
import unicodedata
from collections.abc import Callable

import ftfy
from pydantic import BaseModel, ConfigDict, Field

from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.filtering import alt_text_lexicon, alt_text_patterns
from components.filtering.language import UNDETERMINED, language_of

INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufffc]")
MAX_ROUNDS = 6  # of cleaning: what one round undid may show more (entities of entities, quotes in quotes)
MAX_UNCLEANED = 8  # times max_chars: beyond, not even cleaned (entities and spaces may shrink a text so much)
SPACES = re.compile(r"\s+")
QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "「": "」"}
HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002ffff]")


class AltTextRules(BaseModel):
    """What an alt text must be to go on. The defaults suit the open web; a closed domain may loosen them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_chars: int = Field(
        default=5, ge=1, description="fewest characters; a Han character counts as two (LAION: 5)"
    )
    max_chars: int = Field(default=1500, ge=1, description="most characters after cleaning")
    max_words: int = Field(default=256, ge=1, description="most words (CC12M: 256)")
    max_digit_share: float = Field(
        default=0.5, ge=0, le=1, description="digits as a share of letters and digits"
    )
    max_symbol_share: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="characters that are neither letters, digits nor spaces, as a share",
    )
    max_repetition: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of word pairs, or of 10-character runs, that were seen before",
    )
    languages: tuple[str, ...] = Field(
        default=(),
        description="ISO 639-1 codes that may go on; empty lets all. A text too short to tell goes on",
    )
    reject_bare_names: bool = Field(
        default=True, description='a person\'s name and nothing else ("Donna Reed")'
    )


def clean_alt_text(text: str) -> str:
    """`text` with mojibake and entities undone, compatibility forms and invisible characters gone, one line.

    Idempotent; takes nothing away that a reader would see, but the quotes around the whole text.
    """
    for _ in range(MAX_ROUNDS):
        cleaned = _cleaned_once(text)
        if cleaned == text:
            break
        text = cleaned
    return text


def check_alt_text(text: str | None, rules: AltTextRules) -> Rejection | None:
    """None where `text` (cleaned or not) may go on, else the first rule's reason that speaks against it."""
    if text is not None and len(text) > MAX_UNCLEANED * rules.max_chars:
        return Rejection(Reason.ALT_TOO_LONG, f"{len(text)} characters, at most {rules.max_chars}")
    cleaned = clean_alt_text(text or "")
    if not cleaned:
        return Rejection(Reason.ALT_MISSING, "null" if text is None else "empty")
    for rule in _RULES:
        rejection = rule(cleaned, rules)
        if rejection is not None:
            return rejection
    return None


def _cleaned_once(text: str) -> str:
    if not text.isascii() or "&" in text or not text.isprintable():
        text = unicodedata.normalize("NFKC", ftfy.fix_text(INVISIBLE.sub("", text)))
    text = SPACES.sub(" ", text).strip()
    if len(text) >= 2 and QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def _markup(text: str, rules: AltTextRules) -> Rejection | None:
    return _rejection(Reason.ALT_MARKUP, alt_text_patterns.markup_in(text))


def _url(text: str, rules: AltTextRules) -> Rejection | None:
    return _rejection(Reason.ALT_URL, alt_text_patterns.url_in(text))


def _file_name(text: str, rules: AltTextRules) -> Rejection | None:
    return _rejection(Reason.ALT_FILENAME, alt_text_patterns.file_name_in(text))


def _digits(text: str, rules: AltTextRules) -> Rejection | None:
    return _rejection(Reason.ALT_DIGITS, alt_text_patterns.digits_or_code_in(text, rules.max_digit_share))


def _boilerplate(text: str, rules: AltTextRules) -> Rejection | None:
    detail = alt_text_lexicon.placeholder_in(text)
    if detail is None and rules.reject_bare_names:
        detail = alt_text_lexicon.bare_name_in(text)
    return _rejection(Reason.ALT_BOILERPLATE, detail)


def _too_long(text: str, rules: AltTextRules) -> Rejection | None:
    if len(text) > rules.max_chars:
        return Rejection(Reason.ALT_TOO_LONG, f"{len(text)} characters, at most {rules.max_chars}")
    words = text.count(" ") + 1
    if words > rules.max_words:
        return Rejection(Reason.ALT_TOO_LONG, f"{words} words, at most {rules.max_words}")
    return None


def _too_short(text: str, rules: AltTextRules) -> Rejection | None:
    length = len(text) + (0 if text.isascii() else len(HAN.findall(text)))
    if length < rules.min_chars:
        return Rejection(Reason.ALT_TOO_SHORT, f"{length} characters, at least {rules.min_chars} wanted")
    return None


def _symbols(text: str, rules: AltTextRules) -> Rejection | None:
    return _rejection(Reason.ALT_MARKUP, alt_text_patterns.symbols_in(text, rules.max_symbol_share))


def _repetition(text: str, rules: AltTextRules) -> Rejection | None:
    return _rejection(Reason.ALT_REPETITION, alt_text_patterns.repetition_in(text, rules.max_repetition))


def _spam(text: str, rules: AltTextRules) -> Rejection | None:
    return _rejection(Reason.ALT_SPAM, alt_text_lexicon.spam_in(text))


def _language(text: str, rules: AltTextRules) -> Rejection | None:
    if not rules.languages:
        return None
    language = language_of(text)
    if language in rules.languages or language == UNDETERMINED:
        return None
    return Rejection(Reason.ALT_LANGUAGE, f"{language}, not {'/'.join(rules.languages)}")


def _rejection(reason: Reason, detail: str | None) -> Rejection | None:
    return None if detail is None else Rejection(reason, detail)


# In this order: lengths bound what the patterns may cost; then the most telling reason first ("photo.jpg" is
# a file name before it is a placeholder); the language last, for it is the slowest.
_RULES: tuple[Callable[[str, AltTextRules], Rejection | None], ...] = (
    *(_too_long, _markup, _file_name, _url, _spam, _boilerplate, _digits, _too_short, _symbols),
    *(_repetition, _language),
)
