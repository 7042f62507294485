"""What a planned run will take: every stage's size from its config and what flows into it, and its earlier
runs from the receipts under HOME.

Earlier runs count when they are of the same version and config, but for the fields in which the stage is
scaled, and used models of the same config. How many workers a run had is in no receipt: forecasts are for a
machine like the one before, as busy as it was.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError
from pipelines.config import RunConfig
from pipelines.forecasting.costs import Forecast, Measured, forecast, kept_share, unknown
from pipelines.graph import DATA_STAGES, FETCH
from pipelines.planning.planned import Planned
from pipelines.retention.catalog import Catalog, Output, read_catalog
from pipelines.sources import TOY_WEB, find_source, is_toy, toy_config, url_list
from pipelines.stages.fetch import is_urls
from pipelines.store.receipts import canonical_json

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """What is known of the data before a stage runs: records into it, held-out ones among the shards."""

    records: float | None
    held_out: float | None = None
    model_steps: int = 1


@dataclass(frozen=True)
class Scale:
    """What a stage's costs grow with. free: the config's fields, by dotted name, that change only its size.

    of: its size, None where it is not known. models: the stages whose config its costs depend on as well.
    grows: whether its bytes and memory grow with its size, too, and not its seconds alone.
    """

    unit: str
    of: Callable[[Json, Known], float | None]
    free: tuple[str, ...] = ("seed",)
    models: tuple[str, ...] = ()
    grows: bool = True


def _records(config: Json, known: Known) -> float | None:
    return known.records


def _toy_records(config: Json, known: Known) -> float:
    return float(config["records"] + config["labelled"])


def _fitted_images(config: Json, known: Known) -> float:
    return float(config["judge_fit"]["training"]["images"] + config["captioner_fit"]["training"]["images"])


def _images(config: Json, known: Known) -> float:
    return float(config["images"])


def _evaluated(config: Json, known: Known) -> float | None:
    """Images times network evaluations, over all models and numbers of steps."""
    if known.held_out is None:
        return None
    images = min(config["reference_images"], known.held_out)
    if config["domain"] == "toy":
        images += 2 * 5 * config["prompts_per_form"] + config["coverage_prompts"] * config["coverage_seeds"]
    else:
        images += config["prompts"]
    teacher = config["teacher_steps"] or [known.model_steps]
    return float(
        images * (2 * sum(teacher) + sum(config["undistilled_steps"]) + sum(config["student_steps"]))
    )


SCALES: Mapping[str, Scale] = {
    "corpus": Scale("records", _toy_records, ("records", "labelled", "seed")),
    "annotators": Scale("images", _fitted_images, ("seed",), grows=False),
    "fetch": Scale("URLs", _records),
    "filter": Scale("records", _records, (), ("annotators",)),
    "recaption": Scale("records", _records, (), ("annotators",)),
    "shard": Scale("records", _records),
    "train": Scale("images", _images, ("seed", "images"), grows=False),
    "distill": Scale("images", _images, ("seed", "images"), ("train",), grows=False),
    "evaluate": Scale(
        "image evaluations",
        _evaluated,
        (
            *("seed", "prompts_per_form", "coverage_prompts", "coverage_seeds", "prompts"),
            *("reference_images", "teacher_steps", "undistilled_steps", "student_steps"),
        ),
        ("train",),
        grows=False,
    ),
    "promote": Scale("models", lambda config, known: 1.0, ("seed",)),
}
FITS = ("judge_fit.training.images", "captioner_fit.training.images")


@dataclass(frozen=True)
class StageForecast:
    """The forecast of one stage that is to run."""

    stage: str
    forecast: Forecast


def forecast_run(
    plan: Sequence[Planned], todo: Collection[str], config: RunConfig, home: Path
) -> list[StageForecast]:
    """What each stage that is to run will take, in order; with the toy web, if it is to be written."""
    catalog = read_catalog(home)
    sections = config.model_dump(mode="json")
    found = []
    if (toy := _toy_web(config, home)) is not None and todo:
        found.append(
            StageForecast(TOY_WEB.name, _of(TOY_WEB.name, TOY_WEB.version, toy, Known(None), catalog, {}))
        )
    records = _corpus_records(plan, config) if set(DATA_STAGES) & set(todo) else None
    held_out: float | None = None
    for planned in plan:
        name, receipt = planned.stage.name, planned.receipt
        known = Known(records, held_out, sections["train"]["steps"])
        if name in todo:
            made = _of(name, planned.stage.version, sections[name], known, catalog, sections)
            found.append(StageForecast(name, made))
        if name not in DATA_STAGES:
            continue
        if name not in todo and planned.fresh and receipt is not None:
            records = float(receipt.counts.kept)
            held_out = receipt.info.get("holdout")
        else:
            runs = _comparable(name, planned.stage.version, sections[name], catalog, sections)
            share = kept_share([(run.receipt.counts.in_, run.receipt.counts.kept) for run in runs])
            records = None if records is None or share is None else records * share
            held_out = (
                records * sections["shard"]["holdout_fraction"] if name == "shard" and records else None
            )
    return found


def _of(name: str, version: int, config: Json, known: Known, catalog: Catalog, sections: Json) -> Forecast:
    scale = SCALES[name]
    size = scale.of(config, known)
    runs = _comparable(name, version, config, catalog, sections)
    if not runs:
        return unknown("no comparable run")
    measured = [(run, _size_of(run, catalog)) for run in runs]
    sized = [_measured(run, size) for run, size in measured if size]
    if size is None or not sized:
        return unknown("its size is not known yet")
    made = forecast(sized, size, scale.unit)
    if scale.grows:
        return made
    same = forecast([Measured(size, run.seconds, run.peak_mb, run.bytes) for run in sized], size, scale.unit)
    return Forecast(made.seconds, same.peak_mb, same.bytes, made.basis)


def _measured(run: Output, size: float) -> Measured:
    receipt = run.receipt
    rate = receipt.info.get("images_per_second")
    pooled = receipt.stage in DATA_STAGES  # elsewhere the start of Ray is only a part of what is fixed
    fixed = receipt.startup_seconds if pooled and receipt.startup_seconds else None
    if isinstance(rate, float | int) and rate > 0:
        fixed = max(0.0, receipt.seconds - size / rate)
    total = sum(entry.bytes for entry in receipt.files)
    return Measured(size, receipt.seconds, receipt.peak_rss_mb, total, fixed)


def _size_of(run: Output, catalog: Catalog) -> float | None:
    """The size of an earlier run: its records, and the held-out ones of the shards that it read."""
    receipt = run.receipt
    inputs = catalog.inputs(run)
    of_shards = [other.receipt.info.get("holdout", 0) for other in inputs if other.receipt.stage == "shard"]
    trains = [other.receipt for other in inputs if other.receipt.stage == "train"]
    steps = trains[0].config.get("steps", 1) if trains else 1
    try:
        held_out = sum(float(count) for count in of_shards) if of_shards else None
        return SCALES[receipt.stage].of(receipt.config, Known(receipt.counts.in_, held_out, steps))
    except (KeyError, TypeError):  # of another version
        return None


def _comparable(name: str, version: int, config: Json, catalog: Catalog, sections: Json) -> list[Output]:
    """The earlier runs of a stage that say something about this one, the newest first."""
    wanted = _key(name, config, {model: sections[model] for model in SCALES[name].models})
    found = []
    for run in catalog.of(name):
        upstream = [run, *(other for other, _ in catalog.upstream([run]))]
        models = {other.receipt.stage: other.receipt.config for other in upstream}
        if run.receipt.version == version and all(model in models for model in SCALES[name].models):
            key = _key(name, run.receipt.config, {model: models[model] for model in SCALES[name].models})
            found += [run] if key == wanted else []
    return found


def _key(name: str, config: Json, models: Mapping[str, Json]) -> str:
    """What of the configs must be the same for two runs to be comparable."""
    own = _without(config, SCALES[name].free)
    if name == "annotators":  # scaled only as a whole: both fits by the same factor
        judge, captioner = (config[fit]["training"]["images"] for fit in ("judge_fit", "captioner_fit"))
        own = {**_without(own, FITS), "share": round(judge / (judge + captioner), 3)}
    others = {model: _without(section, (*SCALES[model].free, *FITS)) for model, section in models.items()}
    return canonical_json([own, others])


def _without(config: Json, fields: Collection[str], prefix: str = "") -> Json:
    """The config without these fields, named by dots."""
    return {
        key: _without(value, fields, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in config.items()
        if f"{prefix}{key}" not in fields
    }


def _toy_web(config: RunConfig, home: Path) -> Json | None:
    """The config of the toy web that is to be written; None where it is there, or none is wanted."""
    if not is_toy(config.corpus) or find_source("corpus", config, home) is not None:
        return None
    return toy_config(config).model_dump(mode="json")


def _corpus_records(plan: Sequence[Planned], config: RunConfig) -> float | None:
    """The records of the corpus: as many as its toy web has, or as the filter or its files say."""
    if is_toy(config.corpus):
        return float(toy_config(config).records)
    first = FETCH.name if is_urls(config.corpus) else "filter"
    for planned in plan:
        if planned.stage.name == first and planned.fresh and planned.receipt is not None:
            return float(planned.receipt.counts.in_)
    from components.corpus.readers import open_corpus

    try:
        if is_urls(config.corpus):
            return float(url_list(config).rows())
        return float(open_corpus(config.corpus).rows)
    except (InputError, OSError):
        return None
