"""The assets: two sources and one asset per stage, thin. What a stage does is in pipelines/stages/.

What is fresh is decided by our fingerprints, not by Dagster: an asset whose output is complete reports it
again with the same data version and does no work.
"""

from collections.abc import Iterator, Sequence

import dagster as dg

from dags.checks import check_results, check_specs, refusal
from dags.failures import shown_failures
from dags.interrupts import keyboard_interrupts
from dags.metadata import metadata_of
from dags.resources import StraightshotRun
from pipelines.errors import GateRefused
from pipelines.graph import DATA_STAGES, SOURCES, STAGES
from pipelines.pipeline import Outcome
from pipelines.stage import Stage

snapshots = dg.DynamicPartitionsDefinition(name="snapshots")
GROUP = "straightshot"  # one for all: the page opens a graph of several groups collapsed to these

DESCRIPTIONS = {
    "corpus": "The raw corpus: images and the alt texts that web pages gave them.",
    "labelled": "Images with true short and long captions, from which annotators are fitted.",
    "annotators": "The judge (open_clip) and the captioner (transformers): fitted, or pretrained and pinned.",
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
    return [*(_source_asset(name) for name in SOURCES), *(_stage_asset(stage) for stage in STAGES)]


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
            try:
                with keyboard_interrupts():
                    outcome = straightshot.make(stage.name)
            except GateRefused as refused:
                yield refusal(str(refused))
                raise
        yield _result(outcome)

    return run


def _result(outcome: Outcome) -> dg.MaterializeResult:
    receipt = outcome.receipt
    return dg.MaterializeResult(
        metadata=metadata_of(outcome),
        data_version=dg.DataVersion(receipt.digest),
        check_results=check_results(receipt),
    )
