"""A prompt in free words as a list of words: phrases that mean the same made one, spelling put right."""

import re
from difflib import get_close_matches

from components.toyworld.free_words import EVERY_CORNER, KNOWN, NOT_READ, PIECES, SOMETHING, STOP
from components.toyworld.manners import plural
from components.toyworld.scene import BACKGROUNDS, COLOURS, SHAPES

_REST = r"[^,.;:!?()\n–—]*"  # of a phrase
_PHRASE = rf"(?:^|(?<=[,.;:!?()\n–—])){_REST}"  # from its beginning
_IDLE = "(?:mat+er|mind|care|important|checked)"
_BEFORE_RIGHT = rf"(^|[,.;:!?(]\s*|\b(?:(?:{'|'.join(SHAPES)})s?|put|then|is|it|sits) )"
_REWRITTEN = tuple(  # before there are words
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?:^|\s)--[\w-]+(?:\s+[\d.:]+)?|\b[48]k\b", " "),  # settings of other image models
        (r"(?m)^\s*(?:[-*•·]|\d+[.)])\s+", " , "),  # a list's marks
        (r"\b(?:object|shape|item|figure|fig|element|no|number|thing|part)\.?\s*#?\d+\s*[:=.)-]", " , "),
        (r"\s-+\s|&&+|\|", " , "),
        (r"&", " and "),
        (r"\b(\d)\s*x\b", r"\1"),
        (r"\bx\s*(\d)\b", rf"\1 {PIECES}"),
        (r"\b(?:one|two|three|four|\d)-(?=[a-z])", "several"),  # "a two-item trial"
        (r"\b(?:two|three|four|[2-4]) (?:shapes|things|objects|items|elements|figures)\s*:", " , "),
        # What says nothing.
        (r"\b(?:um+|uh+|er+m?|hmm+|yeah|yep|okay|ok|oh|you know|i mean|i guess|lol|omg|pls|plz)\b,?", " "),
        (rf"{_PHRASE}\b(?:do|does|is|are)(?:n'?t| not|nt) (?:\w+ )?{_IDLE}\b{_REST}", " , "),
        (r"\bidc (?:what|which|about|abt)(?: the)? \w+", " "),
        (rf"\bany (?:size|colou?r|shape|place|position|background|order)\b{_REST}", " "),
        (r"\bleft (?=open|over|blank|empty|unspecified|up to|to (?:the artist|you|your|chance)\b)", " "),
        (r"'(?:d|s|m|re|ll|ve)\b", ""),
        # Crosses.
        (r"\bplus[ -]?(?:sign|symbol|shape)s\b|\bplus+es\b", "crosses"),
        (r"\bplus[ -]?(?:sign|symbol|shape)\b", "cross"),
        (r"\bplus(?=\s*(?:[,.;)]|$|(?:in|at|on|to|top|bottom|left|right)\b))", "cross"),
        (rf"\b({'|'.join((*COLOURS, 'small', 'big', 'large', 'tiny'))}) \+(?!\w)", r"\1 cross"),
        (r"\b(cross(?:es)?)\b(?:\s*,?\s*(?:like|as in|so|that is))?\s+(?:a\s+)?cross(?:es)?\b", r"\1"),
        # Where.
        (r"\bon top of\b", " above "),
        (r"\b(?:straight )?down from\b", " below "),
        (r"\b(?:straight )?up from\b", " above "),
        (r"\bover (?=(?:here|there|in|at|on)\b)", " "),
        (rf"{_BEFORE_RIGHT}right (?=(?:in|at|on)\b)", r"\1"),
        (r"\band right (?=(?:above|over|below|under|beneath)\b)", " "),
        (rf"{_BEFORE_RIGHT}right (?=(?:above|over|below|under|beneath)\b)", r"\1"),
        (r"\b(?:directly|just|straight|immediately|up|down) (?=above|over|below|under|beneath)", ""),
        (r"\b(?:up|above|diagonally up) and (?=to|on)\b", " above and "),
        (r"\b(?:down|diagonally down) and (?=to|on)\b", " below and "),
        (r"\b(north|south)[ -]?(east|west)\b", r"\1 \2"),
        (
            r"\bhalfway (?:along|down|up|across) the (?=\w+(?:[ -]hand)? (?:edge|side))",
            " in the middle of the ",
        ),
        (r"\b(?:(?:in|at|to|on) )?(?:each|every|its own|(?:all |the )?four) corners?\b", f" {EVERY_CORNER} "),
        (r"\bper corner\b", f" {EVERY_CORNER} "),
    )
)
SHORTEST_MISSPELT, LIKENESS = 4, 0.8  # letters; difflib's ratio
_IN_FULL = {
    word: full
    for full, words in {
        "and": "n adn nad", "with": "w", "the": "teh", "of": "fo", "background": "bg bkg backgrnd",
        "grey": "gray", "black": "blk", "white": "wht", "brown": "brn brwn", "green": "grn",
        "yellow": "yel ylw", "blue": "blu", "purple": "prpl purp", "orange": "orng", "pink": "pnk",
        "square": "sq", "triangle": "tri", "circle": "circ", SOMETHING: "smth smthn sth somethin",
        "left": "lft", "right": "rt", "bottom": "btm", "centre": "ctr cntr",
        "large": "lg lrg hge xl", "small": "sm smol",
    }.items()
    for word in words.split()
}  # fmt: skip
_MISSPELT = (  # as a word that is close
    *(form for shape in SHAPES if len(shape) > 4 for form in (shape, plural(shape))),
    *(*COLOURS, *"background middle bottom centre above below under beneath small large".split()),
)
_SWAPPED = (  # as the same letters in another order
    *(*SHAPES, *map(plural, SHAPES), *COLOURS, *BACKGROUNDS),
    *"small large huge tiny left right bottom top middle centre center corner background".split(),
    *"three four under above below".split(),
)
_NOT_MISSPELT = set(  # though close to one of them
    """
    across crossed gross think range ranges fellow mellow greet greed rectangle rectangles squarish riddle
    drink thunder bowel smell stall
    """.split()
)


def words_of(text: str) -> list[str]:
    """The words and stops of a text in lower case, with some phrases and misspelt words put right."""
    text = re.sub(r"([a-z])\1{2,}", r"\1\1", text.lower().replace("’", "'"))
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    words = re.findall(r"[^\W\d_]+|\d+|[,;:.!?()\[\]=/\n–—\"]", text)
    return [_spelt(word) if word.isalnum() else STOP for word in words]


def _spelt(word: str) -> str:
    """The word that is meant: in full, or the one of the scene that it is close to ("triangel", "bleu")."""
    word = _IN_FULL.get(word, word)
    if word in KNOWN or word in NOT_READ or word in _NOT_MISSPELT or len(word) < SHORTEST_MISSPELT:
        return word
    letters = (word[0], sorted(word))
    swapped = next((known for known in _SWAPPED if (known[0], sorted(known)) == letters), None)
    return swapped or next(iter(get_close_matches(word, _MISSPELT, 1, LIKENESS)), word)
