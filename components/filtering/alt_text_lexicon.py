"""Alt-text rules about words: placeholders, bare names, shop and search-engine text.

A rule takes a cleaned text and returns what speaks against it (one short line), or None. The lists are in
`lexicon.yaml`.
"""

import re
from collections.abc import Callable, Collection, Sequence

from components.filtering.lexicon import UNSPACED, any_of, vocabulary, words_of

ARABIC_ARTICLE = re.compile(r"^(?:و?ال)(?=..)")
MAX_UNSPACED_REST = 0.4  # share of a Chinese, Japanese or Korean text that may stand beside placeholders

PERCENT_OFF = re.compile(r"\d\s?%\s*(?:off|rabatt|korting|indirim|скидк)|[-–]\s?\d\d?\s?%")
PRICE = re.compile(r"[$€£¥₽₹₩]\s?\d|\d\s?[€£₽₹₩]|\b(?:usd|eur|gbp|rs\.?|rp\.?)\s?\d|\d\s?(?:руб|zł|円|元|원)")
PHONE = re.compile(r"(?:\+|\b00)\d[\d\s()-]{7,}\d|\(\d{3}\)\s?\d{3}-\d{4}|\b\d{3}-\d{3}-\d{4}\b")
PHONE_SIGNS = ("+", "-", "(", "00")
LISTICLE = re.compile(
    r"^(?:the )?(?:top|best) \d+\b.*\b(?:most|best|\w+est|ways|tips|reasons|tools|sites|apps|on)\b|"
    r"^\d+ (?:best|amazing|easy|great|ways|tips|reasons|things)\b|^how to\b|^\w+ \d+ best\b"
)
# "Best Hotels in Rome", "Best Servers for 2024": read with its capitals, which a caption would not have.
SUPERLATIVE = re.compile(
    r"^(?:The )?(?:Best|Cheap(?:est)?|Top \d+) .*\b(?:in|near|for) (?:[A-Z]\w+|.*\b20\d\d$)"
)
RANKING = re.compile(r"^(?:the )?(?:top|best) \d+\b")
SEPARATOR_SIGNS = re.compile(r"[|•·»/]")
SEPARATORS = re.compile(r"\s[|•·»]\s|\s/\s|\|")
EXCLAMATIONS = ("!!", "！！")
DIGIT = re.compile(r"\d")
KEYWORD_COMMAS = 6  # a comma list this long without one stop word is for a search engine
SHORT_TEXT = 3  # words
HYPHENATED = re.compile(r"[^\W\d_]+[-‐‑][^\W\d_]")  # a first word that is part of another


def placeholder_in(text: str, words: Sequence[str] | None = None) -> str | None:
    """Words that name the medium or the slot ("image 1", "company logo", "Фото профиля"), and no others."""
    if not text.isascii() and UNSPACED.search(text):
        return _unspaced_placeholder(text)
    stop = vocabulary().stop
    telling = []
    for word in words_of(text) if words is None else words:
        if word not in stop:
            if not _is_placeholder(word):
                return None
            telling.append(word)
    return "says no more than " + " ".join(telling[:4]) if telling else None


def bare_name_in(text: str) -> str | None:
    """A person's name and nothing else: a given name, then one or two capitalised words that are no nouns."""
    words = text.split()
    known = vocabulary()
    if (
        2 <= len(words) <= SHORT_TEXT
        and words[0].lower() in known.given_names
        and words[-1].lower() not in known.english
        and all(word[0].isupper() and word[1:].islower() for word in words)
    ):
        return f"only the name {text}"
    return None


def any_person_in(words: Sequence[str]) -> str | None:
    """One word for any person and nothing else ("Girl", "Девушка")."""
    return f"no more than {words[0]}" if len(words) == 1 and words[0] in vocabulary().persons else None


def spam_in(
    text: str, words: Sequence[str], further: Collection[str], describes: Callable[[], bool]
) -> str | None:
    """Shop text, a call to act, a list article's title, or keywords for a search engine.

    further: signals from elsewhere, as of a shop's call that was cut off. describes: whether the text names
    something visible; asked only where the words alone leave it open ("order-picking robot", "order here").
    """
    lower = text.lower()
    if phrase := _shop_phrase_in(words) or _spam_pattern_in(text, lower):
        return f"shop or search text: {phrase[:40]}"
    opener = words[0] if words and not HYPHENATED.match(lower) else ""
    if opener in vocabulary().shop_openers:
        return f"opens with {opener}"
    if len(words) <= SHORT_TEXT and not vocabulary().shop_words.isdisjoint(words):
        return "sells, and says nothing else"
    signals = [*_weak_signals(lower, words), *further]
    if opener in vocabulary().shop_openers_or_nouns:
        signals.append(f"opens with {opener}")
    if len(signals) >= 2 or (signals and signals[-1].startswith("opens") and not describes()):
        return "shop or search text: " + ", ".join(signals)
    return None


def sells(text: str) -> bool:
    """Whether a piece of a text is a shop's call or a call to act, by itself ("Buy online", "50% off")."""
    return spam_in(text, words_of(text), (), lambda: False) is not None


def is_no_description(words: Sequence[str]) -> bool:
    """Whether the words name media, slots and picture agencies only ("stock photo", "Shutterstock")."""
    known = vocabulary()
    return all(word in known.stop or word in known.agencies or _is_placeholder(word) for word in words)


def names_agency(words: Sequence[str]) -> bool:
    """Whether the words are a picture agency's, a network's or a shop's name and nothing else."""
    return bool(words) and vocabulary().agencies.issuperset(words)


def _shop_phrase_in(words: Sequence[str]) -> str | None:
    """The first phrase of the list; "for sale" and its like not where a sign is named that says so."""
    known = vocabulary()
    for start, word in enumerate(words):
        for length in known.shop_phrase_lengths.get(word, ()):
            phrase = " ".join(words[start : start + length])
            if phrase in known.shop_phrases and not (
                phrase in known.shop_phrases_on_signs
                and known.signs.intersection(words[max(0, start - 3) : start + length + 2])
            ):
                return phrase
    return None


def _spam_pattern_in(text: str, lower: str) -> str | None:
    match = (
        ("%" in text and PERCENT_OFF.search(lower))
        or (any_of(PHONE_SIGNS, lower) and PHONE.search(lower))
        or LISTICLE.match(lower)
        or (not text.isascii() and vocabulary().shop_parts.search(lower))
        or SUPERLATIVE.match(text)
    )
    return match.group() if match else None


def _weak_signals(lower: str, words: Sequence[str]) -> list[str]:
    """What a shop's text often has and a caption sometimes: two of these together are enough."""
    signals = []
    if SEPARATOR_SIGNS.search(lower) and len(SEPARATORS.findall(lower)) >= 2:
        signals.append("separators")
    if DIGIT.search(lower) and PRICE.search(lower):
        signals.append("a price")
    if any_of(EXCLAMATIONS, lower):
        signals.append("exclamation marks")
    if RANKING.match(lower):
        signals.append("a ranking")
    signals += sorted(vocabulary().shop_words.intersection(words))
    if lower.count(",") >= KEYWORD_COMMAS and vocabulary().stop.isdisjoint(words):
        signals += ["keywords", "no sentence"]
    return signals


def _unspaced_placeholder(text: str) -> str | None:
    compact = "".join(filter(str.isalpha, text))
    rest = vocabulary().placeholder_parts.sub("", compact)
    if len(rest) < len(compact) and len(rest) <= MAX_UNSPACED_REST * len(compact):
        return f"says no more than {compact[:12]}"
    return None


def _is_placeholder(word: str) -> bool:
    known = vocabulary().placeholder
    return word in known or (not word.isascii() and ARABIC_ARTICLE.sub("", word) in known)
