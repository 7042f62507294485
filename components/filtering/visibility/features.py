"""The features of the test of naming something visible: hashed words, word pairs and character n-grams.

A text's score is a sum over its words, so that a word's part can be remembered (see `model.py`).
"""

import re
from functools import lru_cache
from zlib import crc32

BUCKETS = 2**18  # of the hashed features
SHORTEST, LONGEST = 2, 5  # characters of an n-gram, the word's edges counted
# A run of letters with their combining marks (Devanagari, Arabic, Thai vowels). A run of Han, kana or Hangul
# is cut where the script changes; such a run is a word here, for its n-grams are what tells.
WORD = re.compile(
    r"(?:[^\W\d_\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]+[\u0300-\u036f\u0591-\u05c7\u064b-\u065f"
    r"\u0900-\u0903\u093a-\u094f\u0e31-\u0e4e]*)+(?:['’][^\W\d_]+)*|\d+|"
    r"[\u3041-\u309f]+|[\u30a0-\u30ff]+|[\u3400-\u4dbf\u4e00-\u9fff\u3005]+|[\uac00-\ud7a3]+"
)
# What says that an image shows something says nothing of whether that can be seen.
MEDIUM_OF = re.compile(
    r"^(?:an? |the |eine? |une? |una? |um |uma |il |la |le |das |el )?(?:stock |close-up )?(?:picture|image|"
    r"pic|photo(?:graph|graphie|grafie)?|drawing|painting|illustration|sketch|render(?:ing)?|dibujo|dessin|zeichnung|"
    r"foto|imagen|imagem|immagine|bild|afbeelding|фото(?:графия)?|рисунок) "
    r"(?:of|von|mit|de|d['’]|du|di|da|do|van|av|af) ?",
    re.IGNORECASE,
)
LENGTHS = (1, 2, 3, 5, 8)  # words; the length of a text is known up to these


def without_medium(text: str) -> str:
    """What "a photo of …" is of; the text itself where it is nothing else."""
    return MEDIUM_OF.sub("", text) or text


def words_in(text: str) -> list[str]:
    """The words of a text as they are written; a number is one word."""
    return WORD.findall(text)


def word_features(word: str) -> list[int]:
    """The buckets of one word: itself, and its n-grams with its edges marked. Any number is the same word."""
    if word[0].isdecimal():
        return [_bucket("#" if len(word) < 4 else "####")]  # a count, or a year or a code
    lower = word.lower()
    marked = f"<{lower}>"
    grams = [
        marked[start : start + size]
        for size in range(SHORTEST, LONGEST + 1)
        for start in range(len(marked) - size + 1)
    ]
    return [_bucket(f"w {lower}"), *map(_bucket, grams)]


def pair_feature(first: str, second: str) -> int:
    """The bucket of two words that stand side by side."""
    return pair_bucket(before_a_word(first), letters_of(second))


def before_a_word(word: str) -> int:
    """What `pair_bucket` asks of the first word; it can be remembered, as what it asks of the second."""
    return crc32(b"p %b " % letters_of(word))


def letters_of(word: str) -> bytes:
    """A word in lower case."""
    return word.lower().encode("utf-8", "surrogatepass")


def pair_bucket(before: int, letters: bytes) -> int:
    """The bucket of a pair, of `before_a_word` of its first word and `letters_of` its second."""
    return crc32(letters, before) % BUCKETS


def shape_features(words: list[str], text: str) -> list[int]:
    """The buckets of what is no word: how many words, capitals as of a title, the last character."""
    length = sum(len(words) > limit for limit in LENGTHS)
    capitals = sum(word[0].isupper() for word in words)
    case = "none" if not capitals else "first" if capitals == 1 and words[0][0].isupper() else "some"
    if capitals == len(words):
        case = "all capitals" if text.isupper() else "all"
    end = text[-1] if text and not text[-1].isalnum() else ""
    return _shape_buckets(length, case, end)


@lru_cache(maxsize=4096)  # there are few shapes
def _shape_buckets(length: int, case: str, end: str) -> list[int]:
    return [_bucket(f"length {length}"), _bucket(f"case {case} {min(length, 2)}"), _bucket(f"end {end}")]


def _bucket(name: str) -> int:
    return crc32(name.encode("utf-8", "surrogatepass")) % BUCKETS
