"""The jobs: everything, and the data stages of one snapshot."""

import dagster as dg

from pipelines.graph import DATA_STAGES, SOURCES

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
JOBS = (everything, data)
