"""The graph: the stages in order, what each reads, and how a selection of them is written.

annotators -> (fetch ->) filter -> recaption -> shard -> train -> distill -> evaluate -> promote
"""

import difflib
from collections.abc import Iterable

from pipelines.errors import ConfigError
from pipelines.stage import SOURCES, Stage
from pipelines.stages import annotators, distill, evaluate, fetch, filter, promote, recaption, shard, train

STAGES: tuple[Stage, ...] = (
    annotators.STAGE,
    filter.STAGE,
    recaption.STAGE,
    shard.STAGE,
    train.STAGE,
    distill.STAGE,
    evaluate.STAGE,
    promote.STAGE,
)
FETCH = fetch.STAGE  # only where the corpus is a list of URLs; the filter then reads it in the corpus's place
EVERY_STAGE: tuple[Stage, ...] = (STAGES[0], FETCH, *STAGES[1:])
DATA_STAGES = ("fetch", "filter", "recaption", "shard")  # they run once per corpus snapshot
MODEL_STAGES = ("train", "distill", "evaluate", "promote")  # they run once for all snapshots together
EVERY_SNAPSHOT = "all"  # the snapshot of a stage that depends on none


def stage_named(name: str) -> Stage:
    """The stage of that name; ConfigError with the nearest name otherwise."""
    for stage in EVERY_STAGE:
        if stage.name == name:
            return stage
    names = [stage.name for stage in EVERY_STAGE]
    near = difflib.get_close_matches(name, names, n=1)
    raise ConfigError(
        f"unknown stage '{name}'; "
        + (f"did you mean '{near[0]}'?" if near else f"there are {', '.join(names)}")
    )


def select(expressions: Iterable[str]) -> tuple[str, ...]:
    """The stages that `STAGE`, `STAGE+` (and all that depend on it) or `+STAGE` (and all it needs) name.

    Several are a union; none is all of them. Names come back in pipeline order.
    """
    chosen: set[str] = set()
    for text in (part for expression in expressions for part in expression.replace(",", " ").split()):
        name = stage_named(text.strip("+")).name
        chosen.add(name)
        if text.startswith("+"):
            chosen |= upstream(name)
        if text.endswith("+"):
            chosen |= downstream(name)
    return tuple(stage.name for stage in EVERY_STAGE if stage.name in chosen or not chosen)


def upstream(name: str) -> set[str]:
    """Every stage that `name` depends on."""
    direct = set(stage_named(name).inputs) - set(SOURCES)
    return direct.union(*(upstream(stage) for stage in direct))


def downstream(name: str) -> set[str]:
    """Every stage that depends on `name`."""
    return {stage.name for stage in EVERY_STAGE if name in upstream(stage.name)}
