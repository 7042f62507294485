"""The vocabulary of the alt-text rules, read once per process from `lexicon.yaml` beside this file.

Placeholders, shop phrases and names are for `alt_text_lexicon.py`, the English words for `language.py`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
UNSPACED = re.compile(r"[\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]")  # kana, Han, Hangul


@dataclass(frozen=True)
class Words:
    """The lists of `lexicon.yaml`, all languages together."""

    placeholder: frozenset[str]
    placeholder_parts: re.Pattern[str]
    stop: frozenset[str]
    shop_phrases: frozenset[str]  # each as its lower-case words, a space between
    shop_phrase_lengths: Mapping[str, tuple[int, ...]]  # first word -> in how many words a phrase may go on
    shop_phrases_on_signs: frozenset[str]  # those that a sign in the image may say
    signs: frozenset[str]
    shop_parts: re.Pattern[str]  # the phrases of scripts without spaces
    shop_openers: frozenset[str]
    shop_openers_or_nouns: frozenset[str]
    shop_words: frozenset[str]
    english: frozenset[str]
    given_names: frozenset[str]
    agencies: frozenset[str]
    persons: frozenset[str]


@cache
def vocabulary() -> Words:
    """The lists; reading them takes some 20 ms."""
    text = files(__package__).joinpath("lexicon.yaml").read_text(encoding="utf-8")
    lists: dict[str, dict[str, str]] = yaml.safe_load(text)

    def words(name: str) -> frozenset[str]:
        return frozenset(word for line in lists[name].values() for word in line.split())

    phrases = [phrase for line in lists["shop_phrases"].values() for phrase in line.split("|")]
    spelt = [" ".join(words_of(phrase)) for phrase in phrases]
    spaced = frozenset(phrase for phrase in spelt if not UNSPACED.search(phrase))
    return Words(
        placeholder=words("placeholder"),
        placeholder_parts=_any_of(words("placeholder_parts")),
        stop=words("stop"),
        shop_phrases=spaced,
        shop_phrase_lengths=_lengths(spaced),
        shop_phrases_on_signs=frozenset(
            phrase.strip() for line in lists["shop_phrases_on_signs"].values() for phrase in line.split("|")
        ),
        signs=words("signs"),
        shop_parts=_any_of(phrase for phrase in spelt if UNSPACED.search(phrase)),
        shop_openers=words("shop_openers"),
        shop_openers_or_nouns=words("shop_openers_or_nouns"),
        shop_words=words("shop_words"),
        english=words("english"),
        given_names=words("given_names"),
        agencies=words("agencies"),
        persons=words("persons"),
    )


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case, without digits and punctuation."""
    return WORD.findall(text.lower())


def any_of(signs: Iterable[str], text: str) -> bool:
    """Whether one of the signs stands in a text."""
    for sign in signs:  # noqa: SIM110 - asked of every text several times; a generator takes twice as long
        if sign in text:
            return True
    return False


def _lengths(phrases: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """For the first word of each phrase, the numbers of words that phrases beginning with it have."""
    found: dict[str, set[int]] = defaultdict(set)
    for phrase in phrases:
        words = phrase.split()
        found[words[0]].add(len(words))
    return {word: tuple(sorted(lengths)) for word, lengths in found.items()}


def _any_of(parts: Iterable[str]) -> re.Pattern[str]:
    """A pattern of the alternatives, the longest first where several begin alike."""
    return re.compile("|".join(map(re.escape, sorted(parts, key=lambda part: (-len(part), part)))))
