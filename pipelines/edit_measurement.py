"""How well any one model edits: on held-out images of the last run's shards, with its judge.

The model may be a registered one or a model folder. Nothing is written.
"""

from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.execution.progress import Progress
from pipelines.model_evaluation import GIVEN, config_to_measure_with
from pipelines.pipeline import Pipeline
from pipelines.registry.model_registry import resolve

if TYPE_CHECKING:
    from components.editing.measure import EditResults


def measure_editing(
    model: str,
    home: Path,
    progress: Progress,
    *,
    images: int,
    steps: int | None,
    seed: int,
    uri: str | None = None,
) -> "EditResults":
    """Take parts of held-out images away and measure what the model makes of the rest.

    model: champion | challenger | previous | a version | models:/... | a model folder. images: how many, at
    most. Raises ConfigError where there was no run, the model is not there, or the judge or the shards are
    not up to date; InputError for too few held-out images or steps out of range.
    """
    config = config_to_measure_with(home)
    from components.editing.editor import Editor
    from components.editing.measure import PROTOCOL, held_out_images, measure
    from components.generation.generator import Generator
    from components.shards.index import HOLDOUT, INDEX_NAME
    from components.shards.reader import read_split
    from pipelines.stages.model_runtime import judge_name, load_judge

    folder = resolve(model, home, uri, config.promote.registered_name)
    given = Pipeline(config, home, progress=progress).inputs.some_of("evaluate", GIVEN)
    (annotators,) = given["annotators"]
    editor = Editor(Generator.load(folder).model)
    indexes = [shard.path / INDEX_NAME for shard in given["shard"]]
    records = chain.from_iterable(read_split(index, HOLDOUT) for index in indexes)
    held_out = held_out_images(list(islice(records, images)), editor.model.image_size)
    judge = load_judge(judge_name(annotators), config.evaluate.judge, "evaluate.judge")
    with progress.task("edit", len(PROTOCOL) * len(held_out.images), "images") as advance:
        return measure(
            editor,
            judge,
            held_out,
            steps=steps,
            seed=seed,
            scored=config.evaluate.domain == "toy",
            on_images=advance,
        )
