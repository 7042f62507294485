"""The words in which people speak of toy scenes, beyond those of captions; for free_text.py."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from components.toyworld.manners import plural
from components.toyworld.scene import BACKGROUNDS, COLOURS, SHAPES

SOMETHING = "something"  # a noun of no shape
EVERY_CORNER = "everycorner"
STOP = ","  # all that parts phrases


def words_of(text: str) -> list[str]:
    """The words and stops of a text in lower case, with some phrases and misspelt words put right."""
    text = text.lower().replace("’", "'")
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    words = re.findall(r"[^\W\d_]+|\d+|[,;:.!?()=/\n–—]", text)
    return [_spelt(word) if word.isalnum() else STOP for word in words]


def _spelt(word: str) -> str:
    """The noun or colour that a word is close to ("triangel"), else the word."""
    if word in KNOWN or len(word) < SHORTEST_MISSPELT:
        return word
    return next(iter(get_close_matches(word, (*SHAPE_OF, *COLOURS), 1, LIKENESS)), word)


def _by_word(lists: dict[str, str], names: Iterable[str] = ()) -> dict[str, str]:
    listed = dict.fromkeys(names, "") | lists
    return {word: name for name, words in listed.items() for word in (name, *words.split())}


SHORTEST_MISSPELT, LIKENESS = 5, 0.8  # letters; difflib's ratio
_REWRITTEN = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?:^|\s)--[\w-]+(?:\s+[\d.:]+)?|\b[48]k\b", " "),  # settings of other image models
        (r"\bgray\b", "grey"),
        (r"\bplus[ -]?(?:sign|symbol)s\b", "crosses"),
        (r"\bplus[ -]?(?:sign|symbol)\b|\bplus(?=\s*(?:[,.;]|$|(?:in|at|on)\b))", "cross"),
        (r"'(?:d|s|m|re|ll)\b", ""),
        (r"\bon top of\b", " above "),
        (r"\b(?:up|down) (?=above|over|below|under|beneath)", ""),
        (r"\b(?:up|down) and (?:to|on)\b", " than "),
        (r"\b(north|south)[ -]?(east|west)\b", r"\1 \2"),
        (r"\b(?:in |at )?(?:each|every|its own|all four|the four) corners?\b", f" {EVERY_CORNER} "),
    )
)
SIZE_OF = _by_word(
    {
        "small": "little tiny mini miniature teeny smallish wee petite lil itty bitty minuscule",
        "large": "big huge giant enormous massive gigantic oversized sizeable sizable jumbo colossal",
    }
)
COLOUR_OF = _by_word(
    {
        "red": "crimson scarlet ruby", "orange": "tangerine", "yellow": "golden gold lemon",
        "green": "emerald", "cyan": "turquoise aqua", "blue": "sapphire navy cobalt",
        "purple": "violet lilac lavender", "pink": "rose",
    },
    COLOURS,
)  # fmt: skip
_NAMES = _by_word({"circle": "disc disk ball dot", "square": "box"}, SHAPES)
SHAPE_OF: dict[str, tuple[str | None, bool]] = {  # and whether it is a plural
    form: (name, form != word) for word, name in _NAMES.items() for form in (word, plural(word))
} | {"boxes": ("square", True), SOMETHING: (None, False)}
NUMBER_OF = {
    **dict.fromkeys(("1", "one", "single", "lone", "solitary", "sole"), 1),
    **dict.fromkeys(("2", "two", "pair", "couple", "duo"), 2),
    **dict.fromkeys(("3", "three", "trio"), 3),
    **dict.fromkeys(("4", "four", "quartet"), 4),
}
POSITION_OF = _by_word(
    {
        "top": "upper north up", "bottom": "lower south down", "left": "west", "right": "east",
        "centre": "center middle central centred centered centrally mid",
    }
)  # fmt: skip
VERTICAL_RELATION_OF = _by_word({"above": "over atop", "below": "under beneath underneath"})
ARTICLES = ("a", "an", "the")
PLAIN = (
    "plain", "solid", "flat", "simple", "pure", "clean", "clear", "bright", "nice", "filled", "coloured",
    "colored", "geometric", "bold",
)  # fmt: skip
PICTURES = (
    "picture", "image", "frame", "canvas", "page", "screen", "drawing", "photo", "scene", "composition",
    "illustration", "view", "layout",
)  # fmt: skip
WITHIN_PLACE = ("hand", "most", "the")
ADJECTIVES = {*SIZE_OF, *COLOUR_OF, *PLAIN}
# What turns a sentence round, or says where in a way that is not read here.
NOT_READ = {
    "no", "not", "without", "except", "none", "never", "neither", "nor", "than", "halfway", "between",
    "first", "second", "third", "row", "column", "quarter", "inside", "around", "behind", "clock", "foot",
}  # fmt: skip
# What may follow an article or stand before a noun, and says nothing here.
FILLERS = """
    and with of in front on at to is are it its their there this that which has have plus also then i we you
    me my would want need like could can please just only some draw show paint create make generate give put
    place photograph painting rendering sketch whole icon graphic vector design style shape
    shapes object objects thing things figure colour color background backdrop bg ground backing hand corner
    side part area half edge edges field surface page near next beside by each all them both other size
    position positions reads shows containing saying
    """.split()
KNOWN = {
    *SIZE_OF, *COLOUR_OF, *SHAPE_OF, *NUMBER_OF, *POSITION_OF, *VERTICAL_RELATION_OF, *ARTICLES, *PLAIN,
    *PICTURES, *FILLERS, *BACKGROUNDS, EVERY_CORNER, STOP,
}  # fmt: skip
