"""A dataset's README.md, with the front matter that Hugging Face's hub reads."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import yaml

from components.dataset_card.facts import DatasetFacts, limits
from components.reporting.reasons import reason_words
from components.shards.index import HOLDOUT, TRAIN

SHOWN = 15  # values of a distribution; the rest is one line
LANGUAGE_SHARE = 0.01  # of the records, from which a language is one of the dataset's
UNDETERMINED = ("", "und")
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGER = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))
LARGEST = "n>1B"


def dataset_card(facts: DatasetFacts) -> str:
    """The card as Markdown."""
    sections = {
        "Contents": _contents(facts),
        "How it was made": _steps(facts),
        "Captions": _captions(facts),
        "Languages of the alt texts": _counted(facts.languages, "undetermined"),
        "Domains": _counted(facts.domains, "no address"),
        "Licences": _counted(facts.licenses, "not said by the corpus"),
        "Sources": _counted(facts.sources, "not said by the corpus"),
        "Known limits": (f"- {limit}" for limit in limits(facts)),
    }
    lines = [
        "---",
        yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {_plain(facts.name)}",
        "",
        f"{facts.samples:,} images with captions, as WebDataset tars; made by Straightshot from snapshot"
        f" `{facts.snapshot}`. Content digest `{facts.digest}`.",
    ]
    for title, content in sections.items():
        if body := list(content):
            lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _front_matter(facts: DatasetFacts) -> dict[str, object]:
    common = facts.samples * LANGUAGE_SHARE
    languages = [
        name for name, count in _sorted(facts.languages) if name not in UNDETERMINED and count >= common
    ]
    size = next((name for limit, name in (*SIZES, *LARGER) if facts.samples < limit), LARGEST)
    return {
        "pretty_name": facts.name,
        "license": "other",
        **({"language": languages} if languages else {}),
        "task_categories": ["text-to-image", "image-to-text"],
        "size_categories": [size],
        "tags": ["webdataset", "croissant", "synthetic-captions"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": f"{split}-*.tar"}
                    for split in (TRAIN, HOLDOUT)
                    if any(tar.split == split for tar in facts.tars)
                ],
            }
        ],
    }


def _contents(facts: DatasetFacts) -> Iterator[str]:
    rows = []
    for split in (TRAIN, HOLDOUT):
        if own := [tar for tar in facts.tars if tar.split == split]:
            samples, size = sum(tar.samples for tar in own), sum(tar.bytes for tar in own)
            rows.append((split, f"{len(own):,}", f"{samples:,}", f"{size / 1e6:,.1f}"))
    yield from _table(("split", "tars", "samples", "MB"), rows)
    yield ""
    yield "A sample is `KEY.jpg`, `.png` or `.webp`, and `KEY.json` with these fields:"
    yield ", ".join(f"`{name}`" for name in facts.columns) + "."
    yield "`index.json` lists each tar with its sha256; `croissant.json` describes all of it to programs."


def _steps(facts: DatasetFacts) -> Iterator[str]:
    for step in facts.steps:
        yield f"**{step.stage}**: {step.records:,} records in, {step.kept:,} kept."
        if step.reasons:
            yield ""
            yield from _table(
                ("rejected because", "reason", "records"),
                ((reason_words(name), f"`{name}`", f"{count:,}") for name, count in _sorted(step.reasons)),
            )
        yield ""
    yield f"Judge (how well a text fits an image): {facts.judge}."
    yield from (f"- {gate}" for gate in facts.gates)


def _captions(facts: DatasetFacts) -> Iterator[str]:
    yield f"Captioner: {facts.captioner}."
    yield ""
    yield from _table(
        ("kind", "prompt", "mean words", "mean judge's score"),
        ((k.name, _plain(k.prompt), f"{k.mean_words:.1f}", f"{k.mean_score:.3f}") for k in facts.kinds),
    )
    yield ""
    yield "The alt texts of the web, cleaned, stand beside them as `alt_text`."


def _counted(counts: Mapping[str, int], without: str) -> Iterator[str]:
    """The most frequent values and what the others come to; nothing where no record has any."""
    if not counts.keys() - {""}:
        return
    ordered = _sorted(counts)
    rows = [(_plain(name) or without, f"{count:,}") for name, count in ordered[:SHOWN]]
    if rest := ordered[SHOWN:]:
        rows.append((f"{len(rest):,} others", f"{sum(count for _, count in rest):,}"))
    yield from _table(("value", "samples"), rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _sorted(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _plain(text: str) -> str:
    """A text of the web that cannot break a table or be taken for markup."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text)
    return " ".join(escaped.split())
