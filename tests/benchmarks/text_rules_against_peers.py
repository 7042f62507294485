"""The alt-text rules, as a ratio to other projects' quality filters on the same texts.

    python -m tests.benchmarks.text_rules_against_peers [--texts 2000] [--file F.jsonl]

The peers are no dependencies of ours: one that cannot be imported is left out, and that is said. datatrove's
are Gopher's quality and repetition filters, data-juicer's the operators that ask what our rules ask of
length, words, repetition and signs; both called bare, without their executors. Ours clean, trim, check every
rule and decide.
The texts are made up, or the `alt_text`s of a file. CPU seconds in rounds that take turns, medians.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from components.filtering.alt_text import AltTextRules, check_alt_text
from tests.taking_turns import median_seconds

ROUNDS = 7
SUBJECTS = ("A brown dog", "Two red cars", "An old wooden house", "Front view", "IMG_2041.JPG", "Buy now")
PLACES = ("beside a lake at sunset", "on a crowded street in Lisbon", "in the snow", "with 20% off", "")


def microseconds(texts: list[str]) -> dict[str, float]:
    """A text, for each that is there."""
    rules = AltTextRules()
    works: dict[str, Callable[[], object]] = {
        "straightshot": lambda: [check_alt_text(text, rules) for text in texts]
    }
    for name, work_of in PEERS.items():
        if importlib.util.find_spec(name):
            works[name] = work_of(texts)
    return {name: 1e6 * seconds / len(texts) for name, seconds in median_seconds(works, ROUNDS).items()}


def datatrove(texts: list[str]) -> Callable[[], object]:
    """Gopher's two filters over the texts."""
    from datatrove.data import Document  # type: ignore[import-not-found]
    from datatrove.pipeline.filters import (  # type: ignore[import-not-found]
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    filters = (GopherQualityFilter(min_doc_words=1), GopherRepetitionFilter())
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
    return lambda: [step.filter(document) for document in documents for step in filters]


def data_juicer(texts: list[str]) -> Callable[[], object]:
    """The operators over the texts, each text with an empty table of measures."""
    from data_juicer.ops.filter.alphanumeric_filter import (  # type: ignore[import-not-found]
        AlphanumericFilter,
    )
    from data_juicer.ops.filter.character_repetition_filter import (  # type: ignore[import-not-found]
        CharacterRepetitionFilter,
    )
    from data_juicer.ops.filter.special_characters_filter import (  # type: ignore[import-not-found]
        SpecialCharactersFilter,
    )
    from data_juicer.ops.filter.text_length_filter import TextLengthFilter  # type: ignore[import-not-found]
    from data_juicer.ops.filter.words_num_filter import WordsNumFilter  # type: ignore[import-not-found]
    from data_juicer.ops.mapper.clean_links_mapper import CleanLinksMapper  # type: ignore[import-not-found]
    from data_juicer.utils.constant import Fields  # type: ignore[import-not-found]

    clean = CleanLinksMapper()
    filters = (
        *(TextLengthFilter(), WordsNumFilter(), AlphanumericFilter()),
        *(CharacterRepetitionFilter(), SpecialCharactersFilter()),
    )

    def work() -> object:
        samples = clean.process_batched({"text": list(texts)})
        samples[Fields.stats] = [{} for _ in texts]
        for step in filters:
            samples = step.compute_stats_batched(samples)
            list(step.process_batched(samples))
        return samples

    return work


PEERS = {"datatrove": datatrove, "data_juicer": data_juicer}


def made_texts(count: int) -> list[str]:
    """Descriptions, names of files, shops' calls; each another."""
    rng = np.random.default_rng(0)
    pairs = zip(rng.integers(0, len(SUBJECTS), count), rng.integers(0, len(PLACES), count), strict=True)
    return [f"{SUBJECTS[a]} {PLACES[b]} {number}" for number, (a, b) in enumerate(pairs)]


def texts_of(path: Path, count: int) -> list[str]:
    """So many of the texts of a file."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return list(islice(cycle([row["alt_text"] for row in rows if row["alt_text"]]), count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    costs = microseconds(texts_of(options.file, options.texts) if options.file else made_texts(options.texts))
    ours = costs.pop("straightshot")
    sys.stdout.write(f"straightshot {ours:.0f} µs a text\n")
    for name, cost in costs.items():
        sys.stdout.write(f"{name} {cost:.0f} µs a text: ours are {cost / ours:.1f} times as fast\n")
    for name in PEERS.keys() - costs.keys():
        sys.stdout.write(f"{name} is not installed here: nothing to compare with\n")


if __name__ == "__main__":
    main()
