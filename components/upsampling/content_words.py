"""The words of a text that carry what it asks for, in a form in which two texts can be compared.

Plural and singular, digits and number words, British and American spelling are one word. Articles, forms of
"to be", most prepositions and openings such as "a picture of" carry nothing. English; a text in another
language is compared word by word.
"""

import re

WORD = re.compile(r"\w+(?:['’]\w+)*")

NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
PLACE_NOUNS = frozenset({"side", "corner", "part", "half", "area", "edge"})  # "in the top left part"
# Where something is: said in one text by a relation, in another by places.
SPATIAL = PLACE_NOUNS | frozenset({
    "above", "below", "under", "beneath", "over", "left", "right", "top", "bottom", "upper", "lower",
    "centre", "middle", "behind", "front", "between", "inside", "outside", "near",
    "beside", "next",
})  # fmt: skip
PREPOSITIONS = frozenset({
    "of", "at", "in", "on", "with", "for", "from", "by", "into", "onto", "against", "towards", "toward",
})  # fmt: skip
FUNCTION_WORDS = PREPOSITIONS | frozenset({
    "a", "an", "the", "this", "that", "these", "those", "which", "who", "whose", "it", "its", "there",
    "here", "some", "any", "one", "single", "i", "you", "we", "me", "my", "your", "is", "are", "was",
    "were", "be", "being", "been", "has", "have", "had", "do", "does", "can", "could", "would", "will",
    "should", "may", "might", "and", "or", "to",
    "as", "while", "where", "very", "just", "only",
    "also", "so", "simply", "please", "thanks", "thank",
})  # fmt: skip
# Of openings such as "a picture of". What tells of a style ("a sketch of", "a painting of") is no such word.
OPENING_NOUNS = (
    "picture", "photo", "photograph", "image",
)  # fmt: skip
OPENING_VERBS = (
    "show", "shows", "showing", "draw", "drawn", "paint", "make", "create", "generate", "give", "want",
    "need", "like", "see", "display", "displays", "depict", "depicts", "imagine",
)  # fmt: skip
CARRY_NOTHING = FUNCTION_WORDS | {*OPENING_NOUNS, *OPENING_VERBS}

_SPELLINGS = {
    "gray": "grey",
    "center": "centre",
    "color": "colour",
    "colored": "coloured",
    "colors": "colour",
}
_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "mice": "mouse",
    "geese": "goose", "teeth": "tooth", "leaves": "leaf", "knives": "knife", "wolves": "wolf",
}  # fmt: skip


def words_of(text: str) -> list[str]:
    """Every word of the text, in lower case, spelt in one way; digits as number words."""
    return [_folded(word) for word in WORD.findall(text.lower())]


def content_words(text: str) -> list[str]:
    """The words that carry what the text asks for, in its order."""
    return [word for word in words_of(text) if word not in CARRY_NOTHING]


def subject_words(text: str) -> list[str]:
    """Its content words without numbers and places, which another text may state in another way."""
    return [word for word in content_words(text) if word not in SPATIAL and word not in NUMBER_WORDS]


def stands_in(word: str, others: frozenset[str]) -> bool:
    """Whether the word, singular or plural, is among `others`, which `forms_of` gave."""
    return not _forms(word).isdisjoint(others)


def forms_of(words: list[str]) -> frozenset[str]:
    """The words in singular and plural, as far as endings tell."""
    return frozenset(form for word in words for form in _forms(word))


def _folded(word: str) -> str:
    if word.isdecimal() and int(word) < len(NUMBER_WORDS):
        return NUMBER_WORDS[int(word)]
    return _SPELLINGS.get(word, word)


def _forms(word: str) -> set[str]:
    """What the word may be the plural of, and itself: "crosses" is "cross" or "crosse"."""
    forms = {word, _IRREGULAR.get(word, word)}
    if len(word) > 3 and word.endswith("s"):
        forms.add(word[:-1])
        if word.endswith("es"):
            forms.add(word[:-2])
        if word.endswith("ies"):
            forms.add(f"{word[:-3]}y")
    return forms
