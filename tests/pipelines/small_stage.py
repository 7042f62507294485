"""A stage of words that takes no time, for tests of the stage contract; and its death at a fault point."""

from collections.abc import Iterator
from pathlib import Path

from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.stage import Input, Stage, StageConfig, Work, run_stage
from pipelines.store import outputs
from pipelines.store.receipts import Counts, PartReceipt
from tests.forks import KILLED, imported_once, status_at

imported_once("pipelines.stage")


class ToyConfig(StageConfig):
    words: tuple[str, ...] = ("one", "two", "three")
    upper: bool = False


def write_words(work: Work) -> Iterator[PartReceipt]:
    """One part per word; words with an 'o' are rejected."""
    for word in work.config.words:
        if (finished := work.parts.finished(word)) is not None:
            yield finished
            continue
        kept = "o" not in word
        text = word.upper() if work.config.upper else word
        yield work.parts.write(
            word,
            {f"words/{word}.txt": lambda path, text=text: path.write_text(text)},
            counts=Counts.model_validate({"in": 1, "kept": int(kept), "rejected": int(not kept)}),
            reasons={} if kept else {"alt_spam": 1},
        )
    work.scratch.mkdir(exist_ok=True)
    with work.folder("model") as folder:
        (folder / "weights").write_text("w")
    yield work.adopt("model")


TOY = Stage("toy", 1, ToyConfig, ("corpus",), write_words)
CORPUS = {"corpus": (Input("corpus", "somewhere", "digest-of-corpus"),)}


def run(home: Path, stage: Stage = TOY, config: ToyConfig | None = None, **options):
    return run_stage(
        stage,
        config or ToyConfig(),
        options.pop("inputs", CORPUS),
        home=home,
        snapshot="s",
        engine=Engine(),
        progress=Progress(quiet=True),
        **options,
    )


def output(home: Path, receipt) -> Path:
    return home / "toy" / receipt.fingerprint


def folders(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "toy").iterdir() if path.is_dir())


def input_of(home: Path, receipt) -> dict[str, tuple[Input, ...]]:
    return {"corpus": (Input("toy", str(output(home, receipt)), receipt.digest, receipt),)}


def kill_at(point: str, home: Path, *, force: bool = False, exchange: bool = True) -> None:
    """Run the stage in another process, which is killed at the point."""
    assert status_at(point, _run, home, force, exchange) == KILLED


def _run(home: Path, force: bool, exchange: bool) -> None:
    if not exchange:
        outputs.exchange = lambda a, b: False
    run(home, force=force)
