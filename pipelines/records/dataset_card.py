"""README.md and croissant.json of an output of the shard stage, to be published beside its tars."""

from pathlib import Path

from components.dataset_card.card import dataset_card
from components.dataset_card.croissant import croissant
from components.durable import write_text
from pipelines.records.dataset_facts import dataset_facts

CARD, CROISSANT = "README.md", "croissant.json"


def write_card(
    home: Path, out: Path, *, name: str, snapshot: str | None, terms: str, url: str | None
) -> list[Path]:
    """Write both into the folder `out`; returns their paths. The same outputs give the same bytes.

    name, terms (a licence), url: of the dataset. Raises ConfigError where there are no shards.
    """
    facts = dataset_facts(home, snapshot, name)
    texts = {CARD: dataset_card(facts), CROISSANT: croissant(facts, terms=terms, url=url)}
    for file, text in texts.items():
        write_text(out / file, text)
    return [out / file for file in texts]
