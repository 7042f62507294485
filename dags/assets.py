"""The assets: two sources and one asset per stage, thin. What a stage does is in pipelines/stages/.

What is fresh is decided by our fingerprints, not by Dagster: an asset whose output is complete reports it
again with the same data version and does no work.
"""

from collections.abc import Iterator, Sequence

import dagster as dg

from dags.checks import COUNTS, check_results, check_specs, refusal
from dags.failures import shown_failures
from dags.interrupts import keyboard_interrupts
from dags.metadata import metadata_of
from dags.resources import StraightshotRun
from pipelines.errors import GateRefused
from pipelines.graph import DATA_STAGES, EVERY_STAGE, FETCH, SOURCES
from pipelines.pipeline import Outcome
from pipelines.stage import Input, Stage

snapshots = dg.DynamicPartitionsDefinition(name="snapshots")
GROUP = "straightshot"  # one for all: the page opens a graph of several groups collapsed to these

DESCRIPTIONS = {
    "corpus": "The raw corpus: images and the alt texts that web pages gave them.",
    "labelled": "Images with true short and long captions, from which annotators are fitted.",
    "annotators": "The judge (open_clip) and the captioner (transformers): fitted, or pretrained and pinned.",
    "fetch": "The images of a corpus that is a list of URLs, asked for politely; of other corpora nothing.",
    "filter": "Alt-text and image rules, safe decoding, duplicates, judge score; a reason for every reject.",
    "recaption": "A short and a long caption for every image, cleaned and judged; the alt text kept.",
    "shard": "Deterministic WebDataset tars and their index.",
    "train": "The teacher: a text-conditioned rectified-flow DiT.",
    "distill": "The student: a consistency model that generates in one step.",
    "evaluate": "Teacher and student on held-out prompts: metrics.json, sample grid, curves.",
    "promote": "The student in the model registry, past a gate.",
}
KINDS = {
    "annotators": {"pytorch"},
    "fetch": {"ray", "parquet"},
    "filter": {"ray", "parquet"},
    "recaption": {"ray", "parquet"},
    "shard": {"ray"},
    "train": {"pytorch"},
    "distill": {"pytorch"},
    "evaluate": {"pytorch", "mlflow"},
    "promote": {"mlflow"},
}


def all_assets() -> Sequence[dg.AssetsDefinition]:
    """Sources first, then the stages in pipeline order."""
    return [*(_source_asset(name) for name in SOURCES), *(_stage_asset(stage) for stage in EVERY_STAGE)]


def _source_asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        group_name=GROUP,
        description=DESCRIPTIONS[name],
        partitions_def=snapshots if name == "corpus" else None,
    )
    def source(straightshot: StraightshotRun) -> dg.MaterializeResult:
        with shown_failures(), keyboard_interrupts():
            corpus = straightshot.source(name)
        return dg.MaterializeResult(
            metadata={"uri": corpus.location, "digest": corpus.digest},
            data_version=dg.DataVersion(corpus.digest),
        )

    return source


def _stage_asset(stage: Stage) -> dg.AssetsDefinition:
    @dg.asset(
        name=stage.name,
        deps=list(stage.inputs),
        group_name=GROUP,
        description=DESCRIPTIONS.get(stage.name),
        kinds=KINDS.get(stage.name),
        code_version=str(stage.version),
        partitions_def=snapshots if stage.name in DATA_STAGES else None,
        check_specs=check_specs(stage.name),
    )
    def run(straightshot: StraightshotRun) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        with shown_failures():
            if stage.name == FETCH.name and not straightshot.pipeline.inputs.fetches:
                yield _nothing_to_fetch(straightshot.source("corpus"))
                return
            try:
                with keyboard_interrupts():
                    outcome = straightshot.make(stage.name)
            except GateRefused as refused:
                yield refusal(str(refused))
                raise
        yield _result(outcome)

    return run


def _nothing_to_fetch(corpus: Input) -> dg.MaterializeResult:
    """The asset of a stage that this corpus has no need of, as it was and with the corpus's data version."""
    return dg.MaterializeResult(
        metadata={"uri": corpus.location, "fetched": "nothing: the corpus is no list of URLs"},
        data_version=dg.DataVersion(corpus.digest),
        check_results=[dg.AssetCheckResult(check_name=COUNTS, passed=True)],
    )


def _result(outcome: Outcome) -> dg.MaterializeResult:
    receipt = outcome.receipt
    return dg.MaterializeResult(
        metadata=metadata_of(outcome),
        data_version=dg.DataVersion(receipt.digest),
        check_results=check_results(receipt),
    )
