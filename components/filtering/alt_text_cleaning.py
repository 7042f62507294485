"""An alt text made readable, and what is no part of the description cut off.

`clean_alt_text` undoes what the web did to a text. `trim` cuts off a camera's file name, a photographer's or
an agency's credit and a shop's calls where a description is left beside them.
"""

import re
import unicodedata
from dataclasses import dataclass

import ftfy
from ftfy.badness import is_bad

from components.filtering.alt_text_lexicon import is_no_description, names_agency, sells
from components.filtering.alt_text_patterns import ADDRESS, CAMERA, DOMAIN, EXTENSION
from components.filtering.lexicon import UNSPACED, any_of, words_of

# The two joiners (U+200C, U+200D) stay where they join: letters of Arabic and Indic scripts, and emoji.
INVISIBLE = re.compile(
    r"[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufffc]|"
    r"(?<![\u0600-\u06ff\u0750-\u077f\u0900-\u0dff\u1780-\u17ff\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
    r"\U000e0020-\U000e007f])[\u200c\u200d]|[\u200c\u200d](?=\s|$)"
)
MAX_ROUNDS = 6  # of cleaning: what one round undid may show more (entities of entities, quotes in quotes)
# What ftfy replaces in a text that can be printed and is no mojibake: ligatures, curly quotes, full width.
REPLACED = re.compile(
    r"[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\u02bc\u2018-\u201f\ufb00-\ufb06\uff01-\uffee]"
)
QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "「": "」"}

# Between a description and what pages add to it.
SIGNS = re.compile(r"[-–—|·•»:(\[\d]")  # every separator and every camera's number has one
SEPARATOR = re.compile(r"\s+(?:[-–—|·•»]+|::)\s+|\s*\|\s*|\s+[(\[](?=[^()\[\]]*[)\]]$)")
NUMBERED = re.compile(CAMERA.pattern + r"[-_\d]*(?:\s*\(\d+\))?(?:" + EXTENSION.pattern + r")?[\s:_-]+", re.I)
_MEDIUM = (
    r"(?:stock |press |file )?(?:photo(?:s|graph|graphy)?|image|picture|pic|illustration|foto(?:graf\w*)?|"
    r"imagen|imagem|immagine|bild|zdjęcie|afbeelding|фото(?:граф\w*)?|사진|写真|图片?|圖片?|撮影)"
)
_CREDIT = (
    rf"(?:{_MEDIUM}\s*(?:by\b|credits?\b|courtesy(?: of)?\b|provided by\b|©|제공)\s*[:=]?|"
    rf"(?:{_MEDIUM})?\s*(?:(?:credits?|source|quelle|crédit|kredit)\b|ⓒ|©|\(c\))\s*(?:photo\s*)?[:=]?|"
    rf"{_MEDIUM}\s*[=])\s*"
)
_PLACE = r"\s(?:on|from|via|at|in|auf|von|bei|sur|en|de|su|da|em|no|na|z|op|через|с)\s"
# A credit in front of a description: "Photo by Ann Lee on Unsplash: a dog".
CREDIT_BEFORE = re.compile(rf"^{_CREDIT}[^:|]{{2,50}}?\s*(?::|\s[-–—|])\s+(?=\S+\s\S)", re.IGNORECASE)
# Behind it: "A dog. Photo by Ann Lee", "… /사진=뉴스1".
CREDIT_BEHIND = re.compile(rf"[\s,.;/(\[]{{1,3}}{_CREDIT}[^:|]{{1,50}}$", re.IGNORECASE)
CREDIT_ALONE = re.compile(rf"^{_CREDIT}\S.{{0,60}}$", re.IGNORECASE)
# One of these stands in whatever has one of the last three; most texts have none.
CREDIT_SIGNS = tuple("by credit crédit kredit courtesy source quelle = (c) © ⓒ 제공".split())
# Where "by" is also "of" ("Foto de un perro"), the agency's name is what makes it a credit.
CREDIT_TO_AGENCY = re.compile(rf"^{_MEDIUM}\s\S.{{1,40}}?{_PLACE}(?P<place>[\w.]+(?:\s\w+)?)$", re.IGNORECASE)
GENERATED = re.compile(
    r"^(?:image result for|may be an? (?:image|illustration|graphic|photo|art|cartoon|meme|closeup) of|"
    r"(?:image|photo) may contain:|no (?:photo|image) description available\.?|default alt:|"
    r"alt(?: text)?:)\s+",
    re.IGNORECASE,
)
LEAST_WORDS = 2  # that must be left of a description
LEAST_UNSPACED = 4  # characters, in scripts without spaces


@dataclass(frozen=True)
class CleanedText:
    """A cleaned text. cut: the pieces that were cut off, as they stood; sells: whether one of them did."""

    text: str
    cut: tuple[str, ...] = ()
    sells: bool = False


def clean_alt_text(text: str) -> str:
    """`text` (NFC) with mojibake and entities undone, invisible characters gone, in one line.

    Idempotent; takes nothing away that a reader would see, but the quotes around the whole text. Characters
    that Unicode only calls compatible stay (m², ½, ™), and so do the joiners of Persian, Hindi and emoji.
    """
    for _ in range(MAX_ROUNDS):
        cleaned = _cleaned_once(text)
        if cleaned == text:
            break
        text = cleaned
    return text


def trim(text: str) -> CleanedText:
    """A cleaned text without what is no part of its description; whole where no description would be left."""
    has_signs, may_credit = bool(SIGNS.search(text)), any_of(CREDIT_SIGNS, text.lower())
    if not (has_signs or may_credit or GENERATED.match(text)):
        return CleanedText(text)
    kept, cut, sold = text, [], False
    for pattern, possible in ((GENERATED, True), (NUMBERED, has_signs), (CREDIT_BEFORE, may_credit)):
        match = pattern.match(kept) if possible else None
        if match and _describes(kept[match.end() :]):
            cut.append(match.group().strip())
            kept = kept[match.end() :]
    match = CREDIT_BEHIND.search(kept) if may_credit else None
    if match and _describes(kept[: match.start()]):
        cut.append(match.group().strip())
        kept = kept[: match.start()].rstrip(" ,;")
    separators = list(SEPARATOR.finditer(kept)) if has_signs else []
    while separators:
        separator = separators.pop()
        behind = kept[separator.end() :].rstrip(")]")
        selling = sells(behind)
        if not (selling or is_addition(behind)) or not _describes(kept[: separator.start()]):
            break
        cut.append(kept[separator.start() :].strip())
        kept, sold = kept[: separator.start()].rstrip(), sold or selling
    return CleanedText(kept, tuple(cut), sold)


def credit_in(text: str) -> str | None:
    """A credit and no description ("Photo by Ann Lee from Pexels", "Ann Lee. Photo: Reuters")."""
    if any_of(CREDIT_SIGNS, text.lower()):
        behind = CREDIT_BEHIND.search(text)
        if CREDIT_ALONE.match(text) or (behind and not _describes(text[: behind.start()])):
            return f"only a credit: {text[:40]}"
    named = CREDIT_TO_AGENCY.match(text)
    if named and names_agency(words_of(named["place"])):
        return f"only a credit: {text[:40]}"
    return None


def is_addition(piece: str) -> bool:
    """Whether what stands behind a separator is a medium, an agency, an address or a credit."""
    return bool(
        is_no_description(words_of(piece))
        or CREDIT_ALONE.match(piece)
        or (len(piece.split()) == 1 and (ADDRESS.search(piece) or DOMAIN.search(piece)))
    )


def _describes(text: str) -> bool:
    """Whether enough is left for a description, and it is not only what would be cut itself."""
    words = words_of(text)
    enough = len(words) >= LEAST_WORDS or (len(text) >= LEAST_UNSPACED and UNSPACED.search(text))
    return bool(enough) and not is_no_description(words)


def _cleaned_once(text: str) -> str:
    if not text.isascii() or "&" in text or not text.isprintable():
        text = _repaired(INVISIBLE.sub("", text))
    text = " ".join(text.split())
    if len(text) >= 2 and QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def _repaired(text: str) -> str:
    """`text` by ftfy, which is only asked where it would do something: it takes longer than all the rules."""
    if "&" in text or not text.isprintable() or REPLACED.search(text) or is_bad(text):
        return ftfy.fix_text(text, normalization="NFC")
    return unicodedata.normalize("NFC", text)
