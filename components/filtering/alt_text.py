"""Alt text: cleaned, then checked by rules.

A rule finds nothing, or what speaks against a text. The rules about the form of the string are in
`alt_text_patterns.py`, those about words in `alt_text_lexicon.py`, the language in `language.py`.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class RuleResult:
    """What one rule makes of a text. detail: what speaks against it, None where nothing does.

    value, threshold: of a rule that measures; a text whose value is beyond the threshold fails.
    """

    rule: str
    detail: str | None
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Explanation:
    """A text's way through the rules, in order. rejection: the first that speaks against it, if any."""

    text: str | None
    cleaned: str
    rejection: Rejection | None
    rules: tuple[RuleResult, ...]


def check_alt_text(text: str | None, rules: AltTextRules) -> Rejection | None:
    """None where `text` (cleaned or not) may go on, else the first rule's reason that speaks against it."""
    cleaned = _bounded_and_cleaned(text, rules)
    if isinstance(cleaned, Rejection):
        return cleaned
    for rule in RULES:
        if (detail := rule.find(cleaned, rules)) is not None:
            return Rejection(rule.reason, detail)
    return None


def explain_alt_text(text: str | None, rules: AltTextRules) -> Explanation:
    """The same with every rule's answer; after one that bounds what the others may cost, there are none."""
    cleaned = _bounded_and_cleaned(text, rules)
    if isinstance(cleaned, Rejection):
        return Explanation(text, "", cleaned, ())
    rejection, results = None, []
    for rule in RULES:
        detail = rule.find(cleaned, rules)
        value, threshold = rule.measure(cleaned, rules) if rule.measure else (None, None)
        results.append(RuleResult(rule.name, detail, value, threshold))
        if detail is not None:
            rejection = rejection or Rejection(rule.reason, detail)
            if rule.reason == Reason.ALT_TOO_LONG:
                break
    return Explanation(text, cleaned, rejection, tuple(results))


def _bounded_and_cleaned(text: str | None, rules: AltTextRules) -> str | Rejection:
    if text is not None and len(text) > MAX_UNCLEANED * rules.max_chars:
        return Rejection(Reason.ALT_TOO_LONG, f"{len(text)} characters, at most {rules.max_chars}")
    cleaned = clean_alt_text(text or "")
    return cleaned or Rejection(Reason.ALT_MISSING, "null" if text is None else "empty")


def _cleaned_once(text: str) -> str:
    if not text.isascii() or "&" in text or not text.isprintable():
        text = unicodedata.normalize("NFKC", ftfy.fix_text(INVISIBLE.sub("", text)))
    text = SPACES.sub(" ", text).strip()
    if len(text) >= 2 and QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def _boilerplate(text: str, rules: AltTextRules) -> str | None:
    detail = alt_text_lexicon.placeholder_in(text)
    return alt_text_lexicon.bare_name_in(text) if detail is None and rules.reject_bare_names else detail


def _characters(text: str, rules: AltTextRules) -> str | None:
    if len(text) > rules.max_chars:
        return f"{len(text)} characters, at most {rules.max_chars}"
    return None


def _words(text: str, rules: AltTextRules) -> str | None:
    if (words := _count_words(text)) > rules.max_words:
        return f"{words} words, at most {rules.max_words}"
    return None


def _too_short(text: str, rules: AltTextRules) -> str | None:
    if (length := _length(text)) < rules.min_chars:
        return f"{length} characters, at least {rules.min_chars} wanted"
    return None


def _language(text: str, rules: AltTextRules) -> str | None:
    if not rules.languages:
        return None
    language = language_of(text)
    if language in rules.languages or language == UNDETERMINED:
        return None
    return f"{language}, not {'/'.join(rules.languages)}"


def _count_words(text: str) -> int:
    return text.count(" ") + 1


def _length(text: str) -> int:
    """In characters, of which a Han one counts as two."""
    return len(text) + (0 if text.isascii() else len(HAN.findall(text)))


@dataclass(frozen=True)
class Rule:
    """find: what speaks against a cleaned text, or None. measure: its number and that number's threshold."""

    name: str
    reason: Reason
    find: Callable[[str, AltTextRules], str | None]
    measure: Callable[[str, AltTextRules], tuple[float, float]] | None = None


# In this order: lengths bound what the patterns may cost; then the most telling reason first ("photo.jpg" is
# a file name before it is a placeholder); the language last, for it is the slowest.
RULES = (
    Rule("characters", Reason.ALT_TOO_LONG, _characters, lambda text, rules: (len(text), rules.max_chars)),
    Rule("words", Reason.ALT_TOO_LONG, _words, lambda text, rules: (_count_words(text), rules.max_words)),
    Rule("markup", Reason.ALT_MARKUP, lambda text, _: alt_text_patterns.markup_in(text)),
    Rule("file name", Reason.ALT_FILENAME, lambda text, _: alt_text_patterns.file_name_in(text)),
    Rule("address", Reason.ALT_URL, lambda text, _: alt_text_patterns.url_in(text)),
    Rule("shop or search text", Reason.ALT_SPAM, lambda text, _: alt_text_lexicon.spam_in(text)),
    Rule("boilerplate", Reason.ALT_BOILERPLATE, _boilerplate),
    Rule(
        "digits or codes",
        Reason.ALT_DIGITS,
        lambda text, rules: alt_text_patterns.digits_or_code_in(text, rules.max_digit_share),
        lambda text, rules: (alt_text_patterns.digit_share(text), rules.max_digit_share),
    ),
    Rule(
        "least length", Reason.ALT_TOO_SHORT, _too_short, lambda text, rules: (_length(text), rules.min_chars)
    ),
    Rule(
        "symbols",
        Reason.ALT_MARKUP,
        lambda text, rules: alt_text_patterns.symbols_in(text, rules.max_symbol_share),
        lambda text, rules: (alt_text_patterns.symbol_share(text), rules.max_symbol_share),
    ),
    Rule(
        "repetition",
        Reason.ALT_REPETITION,
        lambda text, rules: alt_text_patterns.repetition_in(text, rules.max_repetition),
        lambda text, rules: (alt_text_patterns.repetition_share(text), rules.max_repetition),
    ),
    Rule("language", Reason.ALT_LANGUAGE, _language),
)
