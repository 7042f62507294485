"""What a run starts from: the raw corpus, the labelled set, a model to train on; each found and hashed.

`toy:N` is written once under HOME/corpus/ by the same machinery as a stage's output (it is not one of the
eight stages: a crawl is not repeated); every other URI is read where it lies.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from upath import UPath

from components.errors import InputError, one_line
from pipelines.config import RunConfig
from pipelines.errors import ConfigError
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.stage import INIT, TEACHER, Input, Stage, StageConfig, Work, fingerprint, run_stage
from pipelines.stages.fetch import is_urls
from pipelines.store.outputs import load_receipt
from pipelines.store.receipts import FileEntry, PartReceipt, Receipt, content_digest, json_digest
from pipelines.store.verified import VerifiedFiles, state_of

if TYPE_CHECKING:
    from components.fetching.url_list import UrlList

TOY = "toy"
WEB, LABELLED = "web/", "labelled.parquet"  # the two sides of a toy web
NOT_READ = "none"  # in place of a digest: of the labelled set when both annotators are pretrained


class ToyWebConfig(StageConfig):
    """What the toy web is made from."""

    records: int = Field(ge=1)  # rows of the web
    labelled: int = Field(ge=1)  # images with true captions, disjoint from the web
    seed: int = Field(ge=0)


def find_source(name: str, config: RunConfig, home: Path, tracking_uri: str | None = None) -> Input | None:
    """The corpus, the labelled set or a model that train or distill begins with; None for a toy web that is
    still to be written.

    tracking_uri: of the registry that the model may be in. Raises ConfigError when it cannot be read, naming
    what and where.
    """
    if name == INIT:
        return _initial_model(str(config.train.init), home, tracking_uri)
    if name == TEACHER:
        return _teacher(Path(str(config.distill.teacher)), home)
    if name == "corpus":
        return _toy(config, home, WEB) if is_toy(config.corpus) else _corpus(config, home)
    if not config.annotators.fitted:
        return Input("labelled", "", NOT_READ)
    labelled = str(config.annotators.labelled)
    if labelled != TOY:
        return _labelled(labelled, home)
    if not is_toy(config.corpus):
        raise ConfigError(
            f"annotators.labelled is 'toy', but the corpus is {config.corpus}: give a labelled set with"
            " --set annotators.labelled=PATH.parquet (image, caption_short, caption_long)"
        )
    return _toy(config, home, LABELLED)


def make_toy_web(config: RunConfig, home: Path, engine: Engine, progress: Progress) -> Receipt:
    """Write the toy web of this run, or find it written."""
    return run_stage(
        TOY_WEB, toy_config(config), {}, home=home, snapshot="", engine=engine, progress=progress
    )


def web_digests(receipt: Receipt) -> tuple[str, ...]:
    """The digests under which later stages know the two sides of a toy web: its corpus, its labelled set."""
    return tuple(
        digest
        for prefix in (WEB, LABELLED)
        if (digest := _side_digest([e for e in receipt.files if e.path.startswith(f"toy/{prefix}")], prefix))
    )


def is_toy(uri: str) -> bool:
    return uri.partition(":")[0] == TOY


def _write(work: Work) -> Iterator[PartReceipt]:
    from components.toyworld.web import write_toy_web

    settings: ToyWebConfig = work.config
    with (
        work.progress.task("toy web", settings.records + settings.labelled, "images") as advance,
        work.folder("toy") as folder,
    ):
        write_toy_web(
            folder,
            records=settings.records,
            seed=settings.seed,
            labelled=settings.labelled,
            advance=advance,
        )
    yield work.adopt("toy")


TOY_WEB = Stage(name="corpus", version=3, config_type=ToyWebConfig, inputs=(), run=_write)


def toy_config(config: RunConfig) -> ToyWebConfig:
    """What the toy web of a run is made from. Raises ConfigError for a corpus that is none."""
    records = config.corpus.partition(":")[2]
    if not records.isdecimal() or int(records) < 1:
        raise ConfigError(f"--corpus {config.corpus}: expected toy:N with N records, such as toy:4000")
    return ToyWebConfig(records=int(records), labelled=config.toy.labelled, seed=config.seed)


def _toy(config: RunConfig, home: Path, prefix: str) -> Input | None:
    """One side of the toy web: its digest covers only the files under `prefix`, so that the stored truth
    and the other side never make it stale.
    """
    settings = toy_config(config)
    out = home / TOY_WEB.name / fingerprint(TOY_WEB, "", settings, {})
    receipt = load_receipt(out)
    if receipt is None:
        return None
    files = [entry for entry in receipt.files if entry.path.startswith(f"toy/{prefix}")]
    path = (out / "toy" / prefix.rstrip("/")).as_posix()
    digest = _side_digest(files, prefix)
    return Input("corpus", f"parquet:{path}", digest) if prefix == WEB else Input("labelled", path, digest)


def _side_digest(files: Sequence[FileEntry], prefix: str) -> str:
    """The digest of one side's files, "" where there are none."""
    return content_digest(files) if prefix == WEB else "".join(entry.sha256 for entry in files)


def _corpus(config: RunConfig, home: Path) -> Input:
    from components.corpus.locations import reading_errors
    from components.corpus.readers import open_corpus

    uri = config.corpus
    try:
        corpus = url_list(config) if is_urls(uri) else open_corpus(uri)
        return Input("corpus", uri, _remembered(uri, corpus.files, corpus.digest, home))
    except reading_errors(InputError) as error:
        raise ConfigError(f"--corpus {uri}: {one_line(error)}") from error


def url_list(config: RunConfig) -> "UrlList":
    """The list of URLs that is the run's corpus. Raises InputError where it cannot be read as one."""
    from components.fetching.url_list import open_url_list

    return open_url_list(config.corpus, config.fetch.url_column, config.fetch.alt_text_column)


def _labelled(path: str, home: Path) -> Input:
    from components.corpus.locations import location, reading_errors
    from components.corpus.readers import file_digest

    try:
        file = location(path)
        if not file.is_file():
            raise ConfigError(f"annotators.labelled: no file at {path}; it is a Parquet file (or 'toy')")
        file = file.resolve()
        digest = _remembered(str(file), [(file.name, str(file))], lambda: file_digest(str(file)), home)
    except reading_errors(InputError) as error:
        raise ConfigError(f"annotators.labelled={path}: {one_line(error)}") from error
    return Input("labelled", str(file), digest)


def _initial_model(model: str, home: Path, tracking_uri: str | None) -> Input:
    """A model folder, by the digest of its files: another model under the same name is another input."""
    from pipelines.registry.model_registry import resolve

    return _model(INIT, resolve(model, home, tracking_uri), home)


def _teacher(folder: Path, home: Path) -> Input:
    if not folder.is_dir():
        raise ConfigError(
            f"distill.teacher: no folder at {folder}; give a model's or an SD3 pipeline's, or leave it out"
        )
    return _model(TEACHER, folder, home)


def _model(name: str, folder: Path, home: Path) -> Input:
    from pipelines.registry.packaging import files_of

    files = [(path.name, str(path)) for path in sorted(folder.rglob("*")) if path.is_file()]
    return Input(
        name, str(folder), _remembered(str(folder), files, lambda: json_digest(files_of(folder)), home)
    )


def _remembered(uri: str, files: Sequence[tuple[str, str]], digest: Callable[[], str], home: Path) -> str:
    """`digest()`, remembered under HOME for as long as the files' sizes, times and inodes or e-tags stand."""
    if (state := state_of(UPath(path) for _, path in files)) is None:
        return digest()  # a store that has none: nothing tells cheaply that the files stand
    return VerifiedFiles(home).value(uri, state, digest)
