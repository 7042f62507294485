"""A captioner's output, made into a caption: cleaned, then checked.

VLMs introduce their answer, quote it, run into the token limit mid-sentence (which the captioner alone knows:
it calls `without_cut_sentence`), or fall into a loop. Cleaning undoes what can be undone without inventing a
word; `check_caption` rejects the rest, with a reason.
"""

import re
import unicodedata

from components.captioning.kinds import CaptionKind
from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.errors import REASON_LENGTH

LONGEST_PHRASE = 16  # words: a loop longer than this is left to check_caption
MIN_WORDS_FOR_REPETITION = 10  # a short text repeats itself by chance

_SPACES = re.compile(r"\s+")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}
# What comes before the caption proper: an assent, an announcement, a label, or "the image shows".
_ASSENT = r"(?:sure|certainly|of course|okay|ok|here you go|absolutely)[,.!:]+\s+"
_ANNOUNCEMENT = (
    r"(?:here(?:'s| is| are)\s+)?(?:(?:an?|the|your)\s+)?"
    r"(?:(?:short|brief|concise|long|detailed|descriptive|possible|suggested|image|picture|photo)\s+){0,3}"
    r"(?:caption|description|alt text)"
    r"(?:\s+(?:of|for)\s+(?:the|this|your)\s+(?:\w+\s+)?(?:image|picture|photo|photograph))?\s*:\s*"
)
_LABEL = r"(?:assistant|answer|output|response|a)\s*:\s+"
_IMAGE = r"(?:image|picture|photo|photograph|illustration|scene)"
_SHOWS = (
    r"(?:shows|depicts|displays|features|presents|contains|portrays|captures|showcases|is of|is a picture of)"
)
_STATEMENT = rf"(?:the|this|in the|in this)\s+(?:provided\s+|given\s+)?{_IMAGE}\s+(?:{_SHOWS}\s+(?:that\s+)?)"
_WE_SEE = (
    rf"in\s+(?:the|this)\s+{_IMAGE},?\s+(?:we\s+(?:can\s+)?see|you\s+(?:can\s+)?see|there\s+(?:is|are))\s+"
)
_PREAMBLE = re.compile(rf"(?:{_ASSENT}|{_ANNOUNCEMENT}|{_LABEL}|{_STATEMENT}|{_WE_SEE})", re.IGNORECASE)
# At the beginning of an answer, where a caption never has the model speak of itself.
_REFUSAL = re.compile(
    r"(?:(?:i['’]?m|i am|we['’]?re|we are)\s+(?:(?:very|so|really)\s+)?(?:sorry|afraid)\b"
    r"|(?:i['’]?m|i am)\s+(?:unable|not able|not allowed|not permitted)\s+to\b"
    r"|i\s+(?:can['’]?t|cannot|can not|won['’]?t|will not|could not|couldn['’]?t|do not|don['’]?t)\s+"
    r"(?:\w+\s+)?(?:help|assist|describe|identify|provide|see|view|comply|process|fulfil\w*|generate|discuss)\b"
    r"|(?:unfortunately|sorry|apologies|my apologies),?\s+(?:but\s+)?(?:i\b|as an|this request|no image)"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|(?:no image|there is no image)\s+(?:was|is|has been)?\s*(?:provided|attached|uploaded|visible)\b"
    r"|it (?:seems|looks|appears)(?: like| that)? (?:you|there) (?:did|have|has|is|was)(?:n['’]t| not| no)\b"
    r"[^.]*\bimage)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)\]]*(?=\s|$)")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|mr|mrs|ms|dr|st|no|\w)\.$", re.IGNORECASE)


def clean_caption(text: str) -> str:
    """The caption in `text`, or "" if there is none.

    Removes preambles ("The image shows"), wrapping quotes and control characters; drops repeated sentences,
    and phrases that repeat in a row.
    """
    text = unicodedata.normalize("NFC", text)
    text = "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else " " for c in text)
    text = _without_preambles(_SPACES.sub(" ", text).strip())
    text = " ".join(_distinct(_sentences(text)))
    return _without_loops(text).rstrip(" ,;:")


def without_cut_sentence(text: str) -> str:
    """A text that ended at the token limit, without its last sentence where that has no end.

    What comes before must be whole: a text that is one sentence stays as it is.
    """
    sentences = _sentences(text)
    if len(sentences) > 1 and not _SENTENCE_END.search(sentences[-1][-3:]):
        return " ".join(sentences[:-1])
    return text


def check_caption(text: str, kind: CaptionKind) -> Rejection | None:
    """None for a usable caption of that kind, else why it is not: a refusal, too few words with a letter, or
    repetitive.

    Repetition is the share of word triples that occurred before in the text (Rae 2021, appendix A, for web
    text); it is checked in texts of MIN_WORDS_FOR_REPETITION words or more.
    """
    if _REFUSAL.match(text):
        return Rejection(Reason.CAPTION_REFUSED, text[:REASON_LENGTH])
    words = text.split()
    with_letters = sum(any(c.isalpha() for c in word) for word in words)
    if with_letters < kind.min_words:
        return Rejection(Reason.CAPTION_EMPTY, f"{with_letters} words, at least {kind.min_words} wanted")
    if len(words) >= MIN_WORDS_FOR_REPETITION and (share := repetition(words)) > kind.max_repetition:
        return Rejection(Reason.CAPTION_REPETITION, f"{share:.0%} of its word triples are repeats")
    return None


def repetition(words: list[str]) -> float:
    """The share of word triples that occurred before, in [0, 1)."""
    lowered = [word.lower() for word in words]
    triples = list(zip(lowered, lowered[1:], lowered[2:], strict=False))
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def _unquoted(text: str) -> str:
    """Without quotes that wrap the whole."""
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def _without_preambles(text: str) -> str:
    text = _unquoted(text)
    capital = text[:1].isupper()
    while match := _PREAMBLE.match(text):
        text = _unquoted(text[match.end() :].strip())
    return text[:1].upper() + text[1:] if capital else text


def _sentences(text: str) -> list[str]:
    """The sentences of a text; what follows the last full stop is one, too."""
    sentences, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        if _ABBREVIATION.search(text[start : match.start() + 1]):
            continue
        sentences.append(text[start : match.end()].strip())
        start = match.end()
    return [sentence for sentence in [*sentences, text[start:].strip()] if sentence]


def _distinct(sentences: list[str]) -> list[str]:
    """Each sentence once, where it first occurs."""
    return list({sentence.lower(): sentence for sentence in reversed(sentences)}.values())[::-1]


def _without_loops(text: str) -> str:
    """Without repeats: a phrase of three words or more twice in a row, a shorter one three times."""
    words, at = text.split(), 0
    while at < len(words):
        for length in range(1, LONGEST_PHRASE + 1):
            times = _times(words, at, length)
            if times >= (3 if length < 3 else 2):
                del words[at + length : at + times * length]
                break
        else:
            at += 1
    return " ".join(words)


def _times(words: list[str], at: int, length: int) -> int:
    """How often the phrase of `length` words at `at` occurs in a row."""
    phrase = [_bare(word) for word in words[at : at + length]]
    times = 1
    while phrase == [_bare(word) for word in words[at + times * length : at + (times + 1) * length]]:
        times += 1
    return times


def _bare(word: str) -> str:
    return word.lower().strip(",.;:!?")
