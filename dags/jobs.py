"""The jobs: everything, the data stages of one snapshot, and the models of all of them."""

import dagster as dg

from pipelines.graph import DATA_STAGES, MODEL_STAGES, SOURCES

everything = dg.define_asset_job(
    "straightshot",
    selection=dg.AssetSelection.all(),
    description="From the raw corpus to a promoted model; fresh outputs are not made again.",
)
data = dg.define_asset_job(
    "data",
    selection=dg.AssetSelection.assets(*SOURCES, "annotators", *DATA_STAGES),
    description="One corpus snapshot, filtered, captioned and sharded.",
)
models = dg.define_asset_job(
    "models",
    selection=dg.AssetSelection.assets(*MODEL_STAGES),
    description="Teacher and student from the shards of every registered snapshot, evaluated and promoted.",
)
JOBS = (everything, data, models)
