"""Parses texts about the toy world into statements, in whatever manner they are phrased.

Tolerant of what people type (capitals, digits, "gray", "upper-left corner", openings such as "a picture of"),
strict about the rest: a text with a word that it does not understand has no statements at all.
"""

import re
from collections.abc import Iterable

from components.toyworld.manners import NUMBERS, OPPOSITE, plural
from components.toyworld.scene import BACKGROUNDS, CELLS, COLOURS, SHAPES
from components.toyworld.statements import Claim, Statements


def parse(text: str) -> Statements | None:
    """The text's statements, or None if it is not of the grammar."""
    rest = _normalised(text)
    rest, backgrounds = _take_background(rest)
    if len(backgrounds) > 1:
        return None
    background = backgrounds.pop() if backgrounds else None
    rest = _without_opening(rest)
    if match := _RELATION_AFTER.fullmatch(rest):  # first: its "above it" looks like the other's "above …"
        claims = [_claim(match["first"]), _claim(match["second"])]
        relation = " ".join(OPPOSITE[word] for word in _DIRECTION.findall(match["relation"]))
    elif match := _RELATION.fullmatch(rest):
        claims = [_claim(match["first"]), _claim(match["second"])]
        relation = " ".join(_DIRECTION.findall(match["relation"]))
    else:
        alone = _claim(rest)  # "at the top, a red circle" has no second claim
        claims = [alone] if alone else [_claim(part) for part in _CLAIM_BORDER.split(rest)]
        relation = None
    known = tuple(claim for claim in claims if claim is not None)
    if len(known) != len(claims):
        return None
    if relation is not None and any(claim.count != 1 for claim in known):
        return None
    return Statements(known, relation, background)


def _normalised(text: str) -> str:
    """Lower case, one space between words, one word for each meaning."""
    text = text.lower().replace("&amp;", "and").replace("&", " and ").replace("-", " ").replace(";", ".")
    text = re.sub(r"\s*([,.])\s*", r"\1 ", text)
    text = re.sub(r"\b[1-4]\b", lambda digit: NUMBERS[int(digit[0])], text)
    words = (_SYNONYMS.get(word, word) for word in text.split())
    return _SYNONYM_WITH_MARK.sub(lambda match: _SYNONYMS[match[0]], " ".join(words)).strip(" .,")


def _take_background(text: str) -> tuple[str, set[str]]:
    """The text without what it says of its background, and the backgrounds that it names."""
    names: set[str] = set()

    def take(match: re.Match[str]) -> str:
        names.add(next(name for name in match.groups() if name))
        return "."

    rest = _BACKGROUND.sub(take, text)
    return re.sub(r"(\s*[.,])+\s*", lambda mark: ", " if "," in mark[0] else ". ", rest).strip(" .,"), names


def _without_opening(text: str) -> str:
    return _OPENING.sub("", text, count=1).strip(" ,")


def _claim(text: str) -> Claim | None:
    text = _THERE_IS.sub("", text.strip(" .,"), count=1)
    match = _CLAIM.fullmatch(text)
    if match is None:
        return None
    number, shape = match["number"] or "a", match["shape"]
    count = NUMBERS.index(number) if number in NUMBERS else 1
    if (count != 1) != (shape in _SINGULAR):
        return None
    adjectives = [*re.findall(r"\w+", match["before"] or ""), *re.findall(r"\w+", match["after"] or "")]
    sizes = [word for word in adjectives if word in _SIZES]
    colours = [word for word in adjectives if word in COLOURS]
    places = [match[name] for name in ("place_before", "place_after") if match[name]]
    if len(sizes) > 1 or len(colours) > 1 or len(places) > 1:
        return None
    cells = tuple(_CELL.findall(places[0])) if places else ()
    if len(cells) not in (0, count):
        return None
    shape = _SINGULAR.get(shape, shape)
    return Claim(
        count, next(iter(sizes), None), next(iter(colours), None), None if shape == "shape" else shape, cells
    )


def _any(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_SYNONYMS = {
    "gray": "grey", "center": "centre", "middle": "centre", "big": "large", "huge": "large",
    "little": "small", "tiny": "small", "upper": "top", "lower": "bottom",
    "beneath": "below", "under": "below", "over": "above",
    "object": "shape", "objects": "shapes", "thing": "shape", "things": "shapes", "violet": "purple",
}  # fmt: skip
_SYNONYM_WITH_MARK = re.compile(rf"\b(?:{_any(_SYNONYMS)})\b")
_SIZES = ("small", "large")
_SINGULAR = {plural(shape): shape for shape in (*SHAPES, "shape")}
_BACKGROUND = re.compile(
    rf"(?:\b(?:on|against|with|over|in front of|and) )?(?:an? |the )?(?:plain )?"
    rf"\b({_any(BACKGROUNDS)}) background\b"
    rf"|\b(?:the )?background(?: is|:) (?:plain )?({_any(BACKGROUNDS)})\b"
    rf"|\bon (?:plain )?({_any(BACKGROUNDS)})(?:$|(?=[:,.])[:,]?)"
)
_PICTURE = "picture|image|drawing|photo|photograph|painting|illustration|rendering|sketch"
_REQUEST = r"(?:please |just )?(?:(?:show|draw|paint|give|make)(?: me)?|i (?:want|would like)(?: to see)?)"
_OPENING = re.compile(
    rf"^(?:(?:{_REQUEST}|it shows|this is|there (?:is|are))\b ?)?"
    rf"(?:(?:an? |the )?(?:{_PICTURE})(?: of| with| showing)? ?)?"
)
_THERE_IS = re.compile(r"^(?:and )?(?:there (?:is|are) )?")
_CELL = re.compile(_any(CELLS))
_CELLS = rf"(?:{_any(CELLS)})(?:(?:, and |, | and )(?:the )?(?:{_any(CELLS)}))*"
_PLACE = (
    rf"(?:at|in|on|near|towards)(?: the)?(?: very)? {_CELLS}(?: corner| side| part| edge| half| area)?"
    r"(?: of the (?:picture|image))?"
)
_ADJECTIVE = rf"(?:{_any((*_SIZES, *COLOURS))})"
_CLAIM = re.compile(
    rf"(?:(?P<place_before>{_PLACE})(?: is| are|,)? "
    rf"(?:(?:there (?:is|are)|{_REQUEST}|an? (?:{_PICTURE}) of) )?)?"
    rf"(?:(?P<number>an?|the|{_any(NUMBERS)}) )?(?P<before>(?:{_ADJECTIVE},? )*)"
    rf"(?P<shape>{_any([*SHAPES, 'shape', *_SINGULAR])})"
    rf"(?:,? (?P<after>(?:(?:that|which) (?:is|are) )?{_ADJECTIVE}(?:(?:,| and|, and) {_ADJECTIVE})*),?)?"
    rf"(?:,? (?P<place_after>{_PLACE}))?"
)
_DIRECTION = re.compile(r"above|below|left|right")
_SIDE = r"(?:(?:to |on )?the )?(?:left|right) of|above|below"
_RELATION = re.compile(
    rf"(?P<first>.+?),? (?:which is |is )?(?P<relation>(?:{_SIDE})(?: and (?:{_SIDE}))?) (?P<second>.+)"
)
_RELATION_AFTER = re.compile(
    r"(?P<first>.+?),? with (?P<second>.+?) (?P<relation>to its (?:left|right)|above it|below it)"
)
# "and" and "," part claims, but also the cells of one claim, which begins with a number, an article, "there".
_CLAIM_BORDER = re.compile(rf"(?:,| and|, and|\.| \.) (?=(?:and )?(?:there |an? |the |(?:{_any(NUMBERS)}) ))")
