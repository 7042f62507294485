"""Alt-text rules that look at the form of the string: markup, addresses, file names, codes, repetition.

Each function takes a cleaned text and returns what speaks against it (one short line), or None.
"""

import re
from itertools import pairwise

MARKUP_SIGNS = re.compile(r"[<>&\[#*`{$%(=;]")  # what follows has one of them; most texts have none
TAG = re.compile(r"</?[a-zA-Z!][^<>]*/?>|<!--|-->")
ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{2,6}|#x[0-9a-fA-F]{2,6});")
MARKDOWN = re.compile(
    r"!?\[[^\]]*\]\([^)]*\)|^#{1,6} |\*\*[^*]+\*\*|```|\[/?(?:img|url|b|i|caption|gallery)\b"
)
CODE = re.compile(
    r"\{\{.*?\}\}|\$\{|<[%?]|[%?]>|\{%|%\(\w+\)s|%[sd]\b|^\{.*\}$|\bfunction\s*\(|\)\s*=>|"
    r"\b(?:src|href|alt|class|style|width|height)\s*=\s*[\"'\d]|\b(?:px|em|rem)\s*;|^\[object \w+\]$"
)

ADDRESS_SIGNS = re.compile(r"[:.,@/\\]")  # likewise of addresses
# Top-level names that end most of the web's addresses, for a domain without "www." or a scheme. Only where
# they cannot be the next sentence of a text without a space: two lower-case letters are too few ("end.It").
ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://|\bwww\d?\.|\bdata:image/|\bmailto:|\bbase64,", re.IGNORECASE)
DOMAIN = re.compile(
    r"(?<![\w@])[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|info|biz|edu|gov|shop|store|online|site|xyz|example|"
    r"co\.uk|com\.\w\w|co\.\w\w)(?=$|[^\w.]|\.(?:$|\s))",
    re.IGNORECASE,
)
EMAIL = re.compile(r"[\w.+-]+@(?!\dx\.)[\w-]+\.[\w.]+")  # not "star@2x.png"
PATH = re.compile(r"^(?=.*[A-Za-z])(?:\.{0,2}/|[A-Za-z]:\\)?[\w.@~-]+(?:[/\\][\w.@~-]+){2,}/?$")

EXTENSION = re.compile(
    r"\.(?:jpe?g|jpe|jfif|png|gif|webp|svgz?|bmp|tiff?|heic|heif|avif|ico|psd|eps|raw|cr2|nef|pdf|docx?|pptx?|"
    r"mp4|mov|avi|webm|html?|php|aspx?)(?=$|[\s?#)\]\"',;])",
    re.IGNORECASE,
)
CAMERA = re.compile(
    r"^(?:(?:IMG|DSC|DSCF|DSCN|PXL|MVI|VID|GOPR|DJI|SAM|CIMG|PICT|FB_IMG|WA|STK|BTN|BG|ICO|THUMB)[-_ ]?\d{2,}"
    r"|(?:photo|image|img|pic|picture|foto|bild|slide|banner|screenshot|figure|untitled|logo|icon)[-_]?\d+"
    r"|(?:screenshot|screen shot|screencap|whatsapp image|signal|photo|image|scan|video)[-_ ]+(?:from )?\d{4}"
    r"[-_.]\d{2}|bildschirmfoto|capture d['’]écran|schermata|captura de pantalla)",
    re.IGNORECASE,
)
VERSION = re.compile(
    r"@[1-4]x\b|[-_]\d+x\d+\b|[-_](?:final|copy|small|large|thumb|scaled)\d*$", re.IGNORECASE
)

DIMENSIONS = re.compile(r"\d+\s*[x×*]\s*\d+(?:\s*[x×*]\s*\d+)?\s*(?:px|cm|mm|in|inch)?", re.IGNORECASE)
CODE_WORD = re.compile(
    r"^(?:sku|ref|id|no|nr|art|item|model|code|ean|isbn|asin|size|px|cm|mm|kb|mb|gb|am|pm|v|x|of|and|page|"
    r"p|vol|#)$"
)
TOKEN = re.compile(r"[^\W_]+(?:[_'’.:/-][^\W_]+)*")
LATIN_TOKEN = re.compile(r"^[A-Za-z]+$")
NO_VOWEL = re.compile(r"^[^aeiouyAEIOUY]{5,}$")

# A letter's combining marks (Devanagari, Arabic, Thai vowels) belong to it.
SYMBOL = re.compile(r"[^\w\s\u0300-\u1cff]|_")

MAX_COMPOUND = 4  # parts of a word joined by hyphens ("man-of-the-match")
MIN_REPETITION_WORDS = 6  # below, a repeated pair is style ("red circle, red square")
CHARACTER_RUN = 10  # data-juicer's character n-gram


def markup_in(text: str) -> str | None:
    """HTML, entities, Markdown, BBCode or template code."""
    if not MARKUP_SIGNS.search(text):
        return None
    for name, pattern in (("tag", TAG), ("entity", ENTITY), ("markdown", MARKDOWN), ("code", CODE)):
        match = pattern.search(text)
        if match:
            return f"{name} {_shown(match.group())}"
    return None


def url_in(text: str) -> str | None:
    """An address of the web, a mail address or a path."""
    if not ADDRESS_SIGNS.search(text):
        return None
    match = ADDRESS.search(text)
    if match:
        return f"address {_shown(match.group())}"
    for name, sign, pattern in (("mail", "@", EMAIL), ("domain", ".", DOMAIN)):
        if sign in text and (match := pattern.search(text)):
            return f"{name} {_shown(match.group())}"
    match = PATH.match(text)
    return f"path {_shown(match.group())}" if match else None


def file_name_in(text: str) -> str | None:
    """A file's name: an extension, a camera's or a tool's numbering, words joined as only files join them."""
    detail = _extension(text)
    if detail is None:
        match = CAMERA.match(text)
        detail = f"numbered {_shown(match.group())}" if match else _joined(text)
    # An address may end like a file; it is the next rule's.
    return None if detail is not None and ADDRESS.search(text) else detail


def _extension(text: str) -> str | None:
    match = EXTENSION.search(text) if "." in text else None
    return f"extension {match.group()}" if match and match.start() > 0 else None


def digits_or_code_in(text: str, max_digit_share: float) -> str | None:
    """Numbers, sizes, dates, product codes or hashes, and no words besides."""
    share = digit_share(text)
    if not share:
        tokens = text.split()
        if len(tokens) == 1 and LATIN_TOKEN.match(text) and NO_VOWEL.match(text):
            return f"no word: {_shown(text)}"
        return None
    if share > max_digit_share:
        return f"{share:.0%} digits"
    tokens = TOKEN.findall(DIMENSIONS.sub(" ", text))
    if all(_is_code(token) for token in tokens):
        return f"codes only: {_shown(text)}"
    return None


def digit_share(text: str) -> float:
    """Digits as a share of letters and digits; 0 where there are neither."""
    digits = sum(map(str.isdigit, text))
    return digits / (digits + sum(map(str.isalpha, text))) if digits else 0.0


def symbols_in(text: str, max_share: float) -> str | None:
    """More symbols than a sentence has."""
    share = symbol_share(text)
    return f"{share:.0%} symbols" if share > max_share else None


def symbol_share(text: str) -> float:
    """Characters that are neither letters, digits nor spaces, as a share."""
    return len(SYMBOL.findall(text)) / len(text)


def repetition_in(text: str, max_share: float) -> str | None:
    """The same word three times in a row, or mostly word pairs or character runs that were there before."""
    words = _bare_words(text)
    if len(set(words)) < len(words):
        for first, second, third in zip(words, words[1:], words[2:], strict=False):
            if first and first == second == third:
                return f"'{first}' three times in a row"
        if (share := _repeated_pairs(words)) > max_share:
            return f"{share:.0%} repeated word pairs"
    if (share := _repeated_runs(text)) > max_share:
        return f"{share:.0%} repeated {CHARACTER_RUN}-character runs"
    return None


def repetition_share(text: str) -> float:
    """The larger of the shares of word pairs and of character runs that were there before."""
    return max(_repeated_pairs(_bare_words(text)), _repeated_runs(text))


def _bare_words(text: str) -> list[str]:
    return [word.strip(".,;:!?|-") for word in text.lower().split()]


def _repeated_pairs(words: list[str]) -> float:
    if len(words) < MIN_REPETITION_WORDS:
        return 0.0
    return 1 - len(set(pairwise(words))) / (len(words) - 1)


def _repeated_runs(text: str) -> float:
    count = len(text) - CHARACTER_RUN + 1
    if count <= 2 * CHARACTER_RUN:
        return 0.0
    return 1 - len({text[start : start + CHARACTER_RUN] for start in range(count)}) / count


def _joined(text: str) -> str | None:
    tokens = text.split()
    if "_" in text and sum("_" in token.strip("_") for token in tokens) * 2 > len(tokens):
        return "joined by underscores"
    if len(tokens) > 1:
        return None
    parts = text.strip("-").split("-")
    if len(parts) > MAX_COMPOUND or 2 <= sum(map(str.isalpha, parts)) < len(parts):
        return "joined by hyphens"
    return "a file's version" if VERSION.search(text) else None


def _is_code(token: str) -> bool:
    """A number, a hash, a part number: digits among the letters, or a label in front of them."""
    digits = sum(map(str.isdigit, token))
    if digits:
        return digits >= 3 or digits * 2 >= len(token)
    return bool(CODE_WORD.match(token.lower()))


def _shown(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
