"""Alt text: cleaned, trimmed, then checked by rules.

A rule finds nothing, or what speaks against a text. The rules about the form of the string are in
`alt_text_patterns.py`, those about words in `alt_text_lexicon.py`, the language in `language.py`, the test of
naming something visible in `visibility/`. What a reason leads to is a policy of its own: the record is
rejected, or only its text is dropped and the captioner writes others.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from components.config_field import added_field
from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.filtering import alt_text_lexicon, alt_text_patterns
from components.filtering.alt_text_cleaning import CleanedText, clean_alt_text, credit_in, trim
from components.filtering.language import UNDETERMINED, language_of
from components.filtering.lexicon import words_of
from components.filtering.visibility.model import visibility

MAX_UNCLEANED = 8  # times max_chars: beyond, not even cleaned (entities and spaces may shrink a text so much)
CLEARLY_VISIBLE = 1.0  # log-odds from which a text that opens as a shop's may be a description
Policy = Literal["reject", "recaption"]
ALT_REASONS = frozenset(reason for reason in Reason if reason.startswith("alt_"))

# How many letters of the Latin script one character of these stands for, by the lengths of translations.
LETTERS_PER_CHARACTER = (
    (1.0, re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0002ffff]")),  # Han: 1 more than itself
    (0.5, re.compile(r"[\u3041-\u30ff\uac00-\ud7a3]")),  # kana, Hangul: half a letter more
)


class AltTextRules(BaseModel):
    """What an alt text must be to go on. The defaults suit the open web; a closed domain may loosen them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_chars: int = Field(
        default=4,
        ge=1,
        description="fewest letters; a Han character counts as two, kana and Hangul as one and a half",
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
    min_visibility: float | None = added_field(
        -1.5,
        description="least log-odds that a text says what can be seen"
        " (components/filtering/visibility/CARD.md); null lets all",
    )
    trim: bool = added_field(
        True, description="whether credits, agencies and shop calls are cut off a description"
    )
    policy: dict[Reason, Policy] = added_field(
        {},
        description="by reason (alt_…): reject the record, or recaption (drop the text, keep the image for"
        " the captioner); reject where nothing is set",
    )

    @field_validator("policy")
    @classmethod
    def _of_alt_texts(cls, policy: dict[Reason, Policy]) -> dict[Reason, Policy]:
        for reason in policy:
            if reason not in ALT_REASONS:
                raise ValueError(
                    f"'{reason}' is no reason of an alt text; there are {', '.join(sorted(ALT_REASONS))}"
                )
        return policy

    def policy_for(self, rejection: Rejection) -> Policy:
        """What becomes of a record whose alt text has this spoken against it."""
        return self.policy.get(rejection.reason, "reject")


@dataclass(frozen=True)
class CheckedText:
    """An alt text as it goes on, cleaned and trimmed, and what speaks against it, if anything does.

    cut: the pieces that were cut off it.
    """

    text: str
    rejection: Rejection | None
    cut: tuple[str, ...] = ()


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
    cut: tuple[str, ...]
    rejection: Rejection | None
    verdict: Literal["keep", "reject", "recaption"]
    rules: tuple[RuleResult, ...]


def check_alt_text(text: str | None, rules: AltTextRules) -> CheckedText:
    """`text` cleaned and trimmed, once, and the first rule's reason that speaks against it."""
    subject = _subject(text, rules)
    if isinstance(subject, Rejection):
        return CheckedText("", subject)
    for rule in RULES:
        if (detail := rule.find(subject, rules)) is not None:
            return CheckedText(subject.text, Rejection(rule.reason, detail), subject.cut)
    return CheckedText(subject.text, None, subject.cut)


def explain_alt_text(text: str | None, rules: AltTextRules) -> Explanation:
    """The same with every rule's answer; after one that bounds what the others may cost, there are none."""
    subject = _subject(text, rules)
    if isinstance(subject, Rejection):
        return Explanation(text, "", (), subject, rules.policy_for(subject), ())
    rejection, results = None, []
    for rule in RULES:
        detail = rule.find(subject, rules)
        value, threshold = rule.measure(subject, rules) if rule.measure else (None, None)
        results.append(RuleResult(rule.name, detail, value, threshold))
        if detail is not None:
            rejection = rejection or Rejection(rule.reason, detail)
            if rule.reason == Reason.ALT_TOO_LONG:
                break
    verdict = rules.policy_for(rejection) if rejection else "keep"
    return Explanation(text, subject.text, subject.cut, rejection, verdict, tuple(results))


@dataclass
class _Subject:
    """A cleaned and trimmed text, with what several rules ask of it."""

    text: str
    words: list[str]
    cut: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()

    @property
    def visibility(self) -> float:
        return visibility(self.text)


def _subject(text: str | None, rules: AltTextRules) -> _Subject | Rejection:
    if text is not None and len(text) > MAX_UNCLEANED * rules.max_chars:
        return Rejection(Reason.ALT_TOO_LONG, f"{len(text)} characters, at most {rules.max_chars}")
    cleaned = clean_alt_text(text or "")
    if not cleaned:
        return Rejection(Reason.ALT_MISSING, "null" if text is None else "empty")
    trimmed = trim(cleaned) if rules.trim and len(cleaned) <= rules.max_chars else CleanedText(cleaned)
    signals = ("a call that was cut off",) if trimmed.sells else ()
    return _Subject(trimmed.text, words_of(trimmed.text), trimmed.cut, signals)


def _spam(subject: _Subject, rules: AltTextRules) -> str | None:
    return alt_text_lexicon.spam_in(
        subject.text, subject.words, subject.signals, lambda: subject.visibility >= CLEARLY_VISIBLE
    )


def _boilerplate(subject: _Subject, rules: AltTextRules) -> str | None:
    detail = alt_text_lexicon.placeholder_in(subject.text, subject.words)
    if detail is None:
        detail = credit_in(subject.text)
    if detail is None and rules.reject_bare_names:
        return alt_text_lexicon.bare_name_in(subject.text)
    return detail


def _characters(subject: _Subject, rules: AltTextRules) -> str | None:
    if len(subject.text) > rules.max_chars:
        return f"{len(subject.text)} characters, at most {rules.max_chars}"
    return None


def _words(subject: _Subject, rules: AltTextRules) -> str | None:
    if (words := _count_words(subject.text)) > rules.max_words:
        return f"{words} words, at most {rules.max_words}"
    return None


def _too_short(subject: _Subject, rules: AltTextRules) -> str | None:
    if (length := _length(subject.text)) < rules.min_chars:
        return f"{length:g} letters, at least {rules.min_chars} wanted"
    return alt_text_lexicon.any_person_in(subject.words)


def _not_visible(subject: _Subject, rules: AltTextRules) -> str | None:
    if rules.min_visibility is None:
        return None
    log_odds = subject.visibility
    return f"log-odds {log_odds:.2f} of naming something visible" if log_odds < rules.min_visibility else None


def _language(subject: _Subject, rules: AltTextRules) -> str | None:
    if not rules.languages:
        return None
    language = language_of(subject.text)
    if language in rules.languages or language == UNDETERMINED:
        return None
    return f"{language}, not {'/'.join(rules.languages)}"


def _count_words(text: str) -> int:
    return text.count(" ") + 1


def _length(text: str) -> float:
    """In letters of the Latin script, of which a character of some others stands for more."""
    if text.isascii():
        return len(text)
    return len(text) + sum(more * len(script.findall(text)) for more, script in LETTERS_PER_CHARACTER)


@dataclass(frozen=True)
class Rule:
    """find: what speaks against a cleaned text, or None. measure: its number and that number's threshold."""

    name: str
    reason: Reason
    find: Callable[[_Subject, AltTextRules], str | None]
    measure: Callable[[_Subject, AltTextRules], tuple[float | None, float | None]] | None = None


# In this order: lengths bound what the patterns may cost; then the most telling reason first ("photo.jpg" is
# a file name before it is a placeholder); the language last, for it is the slowest.
RULES = (
    Rule("characters", Reason.ALT_TOO_LONG, _characters, lambda s, rules: (len(s.text), rules.max_chars)),
    Rule("words", Reason.ALT_TOO_LONG, _words, lambda s, rules: (_count_words(s.text), rules.max_words)),
    Rule("markup", Reason.ALT_MARKUP, lambda s, _: alt_text_patterns.markup_in(s.text)),
    Rule("file name", Reason.ALT_FILENAME, lambda s, _: alt_text_patterns.file_name_in(s.text)),
    Rule("address", Reason.ALT_URL, lambda s, _: alt_text_patterns.url_in(s.text)),
    Rule("shop or search text", Reason.ALT_SPAM, _spam),
    Rule("boilerplate", Reason.ALT_BOILERPLATE, _boilerplate),
    Rule(
        "digits or codes",
        Reason.ALT_DIGITS,
        lambda s, rules: alt_text_patterns.digits_or_code_in(s.text, rules.max_digit_share),
        lambda s, rules: (alt_text_patterns.digit_share(s.text), rules.max_digit_share),
    ),
    Rule(
        "least length", Reason.ALT_TOO_SHORT, _too_short, lambda s, rules: (_length(s.text), rules.min_chars)
    ),
    Rule(
        "symbols",
        Reason.ALT_MARKUP,
        lambda s, rules: alt_text_patterns.symbols_in(s.text, rules.max_symbol_share),
        lambda s, rules: (alt_text_patterns.symbol_share(s.text), rules.max_symbol_share),
    ),
    Rule(
        "repetition",
        Reason.ALT_REPETITION,
        lambda s, rules: alt_text_patterns.repetition_in(s.text, rules.max_repetition),
        lambda s, rules: (alt_text_patterns.repetition_share(s.text), rules.max_repetition),
    ),
    Rule(
        "names something visible",
        Reason.ALT_NOT_VISIBLE,
        _not_visible,
        lambda s, rules: (s.visibility, rules.min_visibility),
    ),
    Rule("language", Reason.ALT_LANGUAGE, _language),
)
