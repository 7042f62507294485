"""Alt-text rules about words: placeholders, bare names, shop and search-engine text.

Each function takes a cleaned text and returns what speaks against it (one short line), or None. The lists are
in `lexicon.yaml`.
"""

import re
from collections.abc import Iterator

from components.filtering.lexicon import UNSPACED, vocabulary, words_of

ARABIC_ARTICLE = re.compile(r"^(?:و?ال)(?=..)")
MAX_UNSPACED_REST = 0.4  # share of a Chinese, Japanese or Korean text that may stand beside placeholders

PERCENT_OFF = re.compile(r"\d\s?%\s*(?:off|rabatt|korting|indirim|скидк)|[-–]\s?\d\d?\s?%")
PRICE = re.compile(r"[$€£¥₽₹₩]\s?\d|\d\s?[€£₽₹₩]|\b(?:usd|eur|gbp|rs\.?|rp\.?)\s?\d|\d\s?(?:руб|zł|円|元|원)")
PHONE = re.compile(r"(?:\+|\b00)\d[\d\s()-]{7,}\d|\(\d{3}\)\s?\d{3}-\d{4}|\b\d{3}-\d{3}-\d{4}\b")
LISTICLE = re.compile(
    r"^(?:the )?(?:top|best) \d+\b.*\b(?:most|best|\w+est|ways|tips|reasons|tools|sites|apps|on)\b|"
    r"^\d+ (?:best|amazing|easy|great|ways|tips|reasons|things)\b|^how to\b|^\w+ \d+ best\b"
)
# "Best Hotels in Rome", "Best Servers for 2024": read with its capitals, which a caption would not have.
SUPERLATIVE = re.compile(
    r"^(?:The )?(?:Best|Cheap(?:est)?|Top \d+) .*\b(?:in|near|for) (?:[A-Z]\w+|.*\b20\d\d$)"
)
SEPARATORS = re.compile(r"\s[|•·»]\s|\s/\s|\|")
EXCLAMATIONS = re.compile(r"!!|！！")
KEYWORD_COMMAS = 6  # a comma list this long without one stop word is for a search engine
SHORT_TEXT = 3  # words
MAX_PHRASE = 4  # words that a phrase of the list may have


def placeholder_in(text: str) -> str | None:
    """Words that name the medium or the slot ("image 1", "company logo", "Фото профиля"), and no others."""
    if UNSPACED.search(text):
        return _unspaced_placeholder(text)
    words = [word for word in words_of(text) if word not in vocabulary().stop]
    if words and all(_is_placeholder(word) for word in words):
        return "says no more than " + " ".join(words[:4])
    return None


def bare_name_in(text: str) -> str | None:
    """A person's name and nothing else: a given name, then one or two capitalised words that are no nouns."""
    words = text.split()
    if not 2 <= len(words) <= SHORT_TEXT or not all(w[0].isupper() and w[1:].islower() for w in words):
        return None
    if words[0].lower() in vocabulary().given_names and words[-1].lower() not in vocabulary().english:
        return f"only the name {text}"
    return None


def spam_in(text: str) -> str | None:
    """Shop text, a call to act, a list article's title, or keywords for a search engine."""
    lower = text.lower()
    words = words_of(lower)
    phrase = _shop_phrase_in(words) or next((match.group() for match in _spam_patterns(text, lower)), None)
    if phrase:
        return f"shop or search text: {phrase[:40]}"
    if words and words[0] in vocabulary().shop_openers:
        return f"opens with {words[0]}"
    if len(words) <= SHORT_TEXT and any(word in vocabulary().shop_words for word in words):
        return "sells, and says nothing else"
    signals = _weak_signals(lower, words)
    if len(signals) >= 2:
        return "shop or search text: " + ", ".join(signals)
    return None


def _shop_phrase_in(words: list[str]) -> str | None:
    phrases = vocabulary().shop_phrases
    for start in range(len(words)):
        for stop in range(start + 1, min(start + MAX_PHRASE, len(words)) + 1):
            phrase = " ".join(words[start:stop])
            if phrase in phrases:
                return phrase
    return None


def _spam_patterns(text: str, lower: str) -> Iterator[re.Match[str]]:
    for pattern in (PERCENT_OFF, PHONE, LISTICLE, vocabulary().shop_parts):
        if match := pattern.search(lower):
            yield match
    if match := SUPERLATIVE.search(text):
        yield match


def _weak_signals(lower: str, words: list[str]) -> list[str]:
    """What a shop's text often has and a caption sometimes: two of these together are enough."""
    signals = []
    if len(SEPARATORS.findall(lower)) >= 2:
        signals.append("separators")
    if PRICE.search(lower):
        signals.append("a price")
    if EXCLAMATIONS.search(lower):
        signals.append("exclamation marks")
    signals += sorted({word for word in words if word in vocabulary().shop_words})
    if lower.count(",") >= KEYWORD_COMMAS and not any(word in vocabulary().stop for word in words):
        signals += ["keywords", "no sentence"]
    return signals


def _unspaced_placeholder(text: str) -> str | None:
    compact = "".join(filter(str.isalpha, text))
    rest = vocabulary().placeholder_parts.sub("", compact)
    if len(rest) < len(compact) and len(rest) <= MAX_UNSPACED_REST * len(compact):
        return f"says no more than {compact[:12]}"
    return None


def _is_placeholder(word: str) -> bool:
    if word in vocabulary().placeholder:
        return True
    return ARABIC_ARTICLE.sub("", word) in vocabulary().placeholder
