"""What a prompt in free words says about a toy scene: keywords, lists, synonyms, other orders of words.

`parse` (parsing.py) is the strict grammar that captions are judged by. A prompt that it does not know is read
here: phrases that say nothing of a scene are passed over ("for my worksheet", "nothing else"), the others are
read word by word (free_reader.py), and what may say something that is not understood makes it None. An
upsampler is then given the same statements in plain words.
"""

from collections.abc import Iterator, Sequence

from components.toyworld.free_phrases import words_of
from components.toyworld.free_reader import Reader
from components.toyworld.free_relations import NotUnderstoodError
from components.toyworld.free_words import (
    COLOUR_OF,
    EVERY_CORNER,
    KNOWN,
    NEGATIONS,
    NOT_READ,
    NUMBER_OF,
    PICTURES,
    POSITION_OF,
    PURPOSES,
    SHAPE_OF,
    SIZE_OF,
    STOP,
    VERTICAL_RELATION_OF,
)
from components.toyworld.manners import write
from components.toyworld.parsing import parse
from components.toyworld.refinement import is_consistent
from components.toyworld.scene import BACKGROUNDS
from components.toyworld.statements import Statements

_LOOKS = {*SHAPE_OF, *COLOUR_OF, *BACKGROUNDS}
_WHERE = {*POSITION_OF, *VERTICAL_RELATION_OF, EVERY_CORNER, *NOT_READ}


def in_plain_words(prompt: str) -> str:
    """The prompt, or what it says in the words of a caption where only free reading understands it."""
    if parse(prompt) is not None:
        return prompt
    read = read_freely(prompt)
    return prompt if read is None else write(read)


def read_freely(text: str) -> Statements | None:
    """The statements of a text in free words; None where it may say something that is not understood."""
    said = filter(_says_something, _phrases(words_of(text)))
    reader = Reader([word for phrase in said for word in (*phrase, STOP)][:-1])
    try:
        reader.read()
        stated = reader.statements()
    except NotUnderstoodError:
        return None
    return stated if is_consistent(stated) else None


def _phrases(words: Sequence[str]) -> Iterator[list[str]]:
    """The words between stops; "so the children can …" begins a phrase of its own."""
    phrase: list[str] = []
    for at, word in enumerate(words):
        is_purpose = word in ("so", "because") and not _LOOKS.intersection(words[at + 1 : at + 3])
        if word == STOP or (is_purpose and phrase):
            yield phrase
            phrase = []
        if word != STOP:
            phrase.append(word)
    yield phrase


def _says_something(phrase: Sequence[str]) -> bool:
    """Whether a phrase speaks of the scene: of looks or places, or in known words of a number or a size."""
    if _LOOKS.intersection(phrase):
        return True
    if phrase and phrase[0] in PURPOSES:
        return False
    if _WHERE.intersection(phrase):
        return True
    beside = zip(["", *phrase], phrase, [*phrase[1:], ""], strict=False)
    return not NEGATIONS.intersection(phrase) and any(_counts_or_names(*words, phrase) for words in beside)


def _counts_or_names(before: str, word: str, after: str, phrase: Sequence[str]) -> bool:
    """Whether a word of a phrase without looks and places gives a number or a size, or names something."""
    if word in SIZE_OF:  # not "little" of "hey little robot"
        return not after or after in KNOWN
    if word in NUMBER_OF:  # not "lesson 2"
        return not before or before in KNOWN
    return word in ("a", "an") and after not in KNOWN and not PICTURES.intersection(phrase)  # "a dog"
