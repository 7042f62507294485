"""What is known of a dataset: counted from the receipts and records behind its tars.

pipelines/records/dataset_facts.py gathers it; card.py and croissant.py write it down. The same outputs give
the same facts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from components.shards.index import Shard


@dataclass(frozen=True)
class StepFacts:
    """What one stage made of the records that it was given. reasons: rejected records by reason."""

    stage: str
    records: int
    kept: int
    reasons: Mapping[str, int]


@dataclass(frozen=True)
class KindFacts:
    """One kind of caption: what was asked for, how long the captions are, how well they fit.

    mean_words: over all records. mean_score: the judge's cosine of image and caption.
    """

    name: str
    prompt: str
    mean_words: float
    mean_score: float


@dataclass(frozen=True)
class DatasetFacts:
    """One output of the shard stage and how it came to be.

    digest: of its content (hex). made_at: UTC, ISO 8601. columns: of a sample's JSON, name -> "string",
    "integer" or "number". languages, domains, licenses, sources: records of each value; a record without one
    counts under "". captioner, judge: what they are, in words. gates: conditions on records beside the
    filter's, in words. heads: names of the heads that images were scored by.
    """

    name: str
    snapshot: str
    digest: str
    made_at: str
    tars: tuple[Shard, ...]
    columns: Mapping[str, str]
    steps: tuple[StepFacts, ...]
    kinds: tuple[KindFacts, ...]
    languages: Mapping[str, int]
    domains: Mapping[str, int]
    licenses: Mapping[str, int]
    sources: Mapping[str, int]
    captioner: str
    judge: str
    gates: tuple[str, ...]
    heads: tuple[str, ...]
    hinted: bool  # whether captioners saw alt texts

    @property
    def samples(self) -> int:
        return sum(tar.samples for tar in self.tars)

    @property
    def bytes(self) -> int:
        return sum(tar.bytes for tar in self.tars)


def limits(facts: DatasetFacts) -> list[str]:
    """What a user of the dataset must know, as full sentences."""
    known = facts.licenses.keys() - {""}
    unlicensed = facts.licenses.get("", 0)
    found = [
        "The captions were written by a model and checked by another: they can be wrong, most often in"
        " counting, in text within images, and in who or what a picture shows.",
        "The images are from the web and belong to their authors; nothing here grants a right to them.",
        "Nobody looked for personal data: people may be recognisable in images and named in texts.",
        "Languages are guessed from short texts and may be wrong; captions are in the prompts' language.",
        "Duplicates were looked for within this snapshot; other datasets, and test sets among them, may hold"
        " the same images.",
    ]
    if not known:
        found.append("The corpus did not say under which licences its images are.")
    elif unlicensed:
        found.append(f"{unlicensed:,} samples have no licence in the corpus.")
    if "nsfw" not in facts.heads:
        found.append("No model looked for what is not safe for work: assume that some of it is here.")
    if "watermark" not in facts.heads:
        found.append("No model looked for watermarks.")
    if facts.hinted:
        found.append("The captioner saw the alt texts: it may repeat what is wrong or promotional in them.")
    return found
