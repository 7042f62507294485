"""The run's config: every stage's own config as a section, plus what concerns the whole run.

`load_config` takes a preset (a YAML file), applies the command's `--set stage.field=value` and flags to it,
and checks the whole once. Whatever is wrong is one ConfigError that names the file or flag, the field and
the nearest right name. The config of the last run lies in HOME/run.json; one of another version is read as
far as it fits.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from components.captioning.config import NONE
from components.conditioning.config import FITTED, LEARNED, PIXELS
from components.errors import one_line
from pipelines.config_draft import ConfigDraft, fit_to, merge_defaults, read_yaml
from pipelines.errors import ConfigError
from pipelines.execution.ray_connection import address_fault, ray_address
from pipelines.operations import OperationsConfig
from pipelines.presets import DEFAULT_PRESET, preset_path
from pipelines.snapshots import name_fault, registered
from pipelines.stage import INIT
from pipelines.stages.annotators import AnnotatorsConfig
from pipelines.stages.data.recaption_config import RecaptionConfig
from pipelines.stages.distill import DistillConfig
from pipelines.stages.evaluate import EvaluateConfig
from pipelines.stages.fetch import FetchConfig
from pipelines.stages.filter import FilterConfig
from pipelines.stages.learning.initial_model import settings_of
from pipelines.stages.promote import PromoteConfig
from pipelines.stages.shard import ShardConfig
from pipelines.stages.train import TrainConfig
from pipelines.store.mirror import store_at

Section = TypeVar("Section", bound=BaseModel)

NO_MODELS = (LEARNED, PIXELS, FITTED, NONE)  # in place of a model's id or path
PATH_KINDS = ("urls", "parquet", "folder", "webdataset")  # of a corpus, besides toy:N

SAVED = "run.json"  # HOME/run.json: the config of the last run

# What only holds on the toy web: its truth is in English, a judge fitted on it needs this threshold, a parser
# reads its texts, and a scorer its scenes from the pixels.
TOY_WEB_DEFAULTS = {
    # Everything is visible in the toy world, "something red", too.
    # Its copies are encoded again and nothing else: fewer pairs need comparing, and the same are found.
    "filter": {
        "alt_text": {"languages": ["en"], "min_visibility": None},
        "duplicates": {"max_bits": 12, "least_cosine": 0.9},
        "judge_threshold": -0.05,
    },
    "train": {"upsampler": {"checks": ["toy_statements", "words", "similarity"]}},
    "evaluate": {"domain": "toy"},
}
NOT_SCORED = ("min_prompt_following", "min_prompt_following_as_is", "max_coverage_excess")
OPEN_WEB_DEFAULTS = {"evaluate": {"domain": "open"}, "promote": dict.fromkeys(NOT_SCORED)}


class ToySettings(BaseModel):
    """The toy web that `corpus = toy:N` asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    labelled: int = Field(default=2000, ge=1)  # images with true captions, disjoint from the web


class RunConfig(BaseModel):
    """Everything a run depends on. Sections are the stages' own configs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    preset: str = DEFAULT_PRESET  # where it came from; displayed, never hashed
    corpus: str = "toy:4000"  # toy:N | urls:PATH | parquet:PATH | folder:PATH | webdataset:PATH
    snapshot: str = "default"  # the corpus snapshot that the data stages make
    train_snapshots: tuple[str, ...] = ()  # snapshots whose shards train reads; empty: this run's
    seed: int = Field(default=0, ge=0)  # for every section that has a seed and does not set its own
    ray: str = (
        "local"  # local | auto | HOST:PORT; RAY_ADDRESS goes before it, unless --ray or --set names one
    )
    insecure: bool = False  # use a Ray that asks for no token: whoever reaches its ports can run code on it
    workers: int | None = Field(default=None, ge=1)  # actors per pool; by default one per CPU
    toy: ToySettings = ToySettings()
    annotators: AnnotatorsConfig = AnnotatorsConfig()
    fetch: FetchConfig = FetchConfig()
    filter: FilterConfig = FilterConfig()
    recaption: RecaptionConfig = RecaptionConfig()
    shard: ShardConfig = ShardConfig()
    train: TrainConfig = TrainConfig()
    distill: DistillConfig = DistillConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    promote: PromoteConfig = PromoteConfig()
    operations: OperationsConfig = OperationsConfig()

    @field_validator("corpus")
    @classmethod
    def _of_a_kind(cls, corpus: str) -> str:
        kind, _, path = corpus.partition(":")
        if kind != "toy" and (kind not in PATH_KINDS or not path):
            raise ValueError(f"expected toy:N, {', '.join(f'{name}:PATH' for name in PATH_KINDS)}")
        return corpus

    @field_validator("snapshot")
    @classmethod
    def _plain(cls, name: str) -> str:
        if (fault := name_fault(name)) is not None:
            raise ValueError(fault)
        return name

    @field_validator("ray")
    @classmethod
    def _address(cls, address: str) -> str:
        if (fault := address_fault(address)) is not None:
            raise ValueError(fault)
        return address

    @property
    def snapshots(self) -> tuple[str, ...]:
        """The snapshots that train reads, in name order."""
        return tuple(sorted(set(self.train_snapshots))) or (self.snapshot,)


def load_config(
    preset: str = DEFAULT_PRESET, overrides: Iterable[str] = (), *, home: Path | None = None, **flags: Any
) -> RunConfig:
    """The config of `preset` (a name, or a path of a YAML file), overridden. A flag of None is not set.

    home: where snapshots are registered. One that is named by a flag, an override or a file that names no
    corpus gets its recorded corpus, unless a flag or an override names one. Raises ConfigError for an unknown
    preset, section, field or value.
    """
    path = preset_path(preset)
    draft = ConfigDraft(RunConfig, read_yaml(path), {(): str(path)})
    for override in overrides:
        draft.override(override)
    for name, value in flags.items():
        if value is not None:
            draft.put((name,), value, f"--{name.replace('_', '-')}")
    draft.put(("preset",), preset, "--preset")
    if home is not None:
        _put_recorded_corpus(draft, home)
    _put_initial_model(draft, home)
    recaption = draft.values.get("recaption")
    if isinstance(recaption, dict) and recaption.get("server") is not None:
        merge_defaults(draft.values, {"annotators": {"captioner": NONE}})
    corpus = str(draft.values.get("corpus", RunConfig.model_fields["corpus"].default))
    merge_defaults(draft.values, TOY_WEB_DEFAULTS if _is_toy(corpus) else OPEN_WEB_DEFAULTS)
    return _with_absolute_paths(draft.build())


def _put_initial_model(draft: ConfigDraft[RunConfig], home: Path | None) -> None:
    """What the model of `train.init` fixes, where neither the preset nor the command says otherwise."""
    train = draft.values.get("train")
    if not isinstance(train, dict) or not isinstance(model := train.get(INIT), str):
        return
    from pipelines.registry.model_registry import SCHEME, is_version, resolve

    if not (is_version(model) or model.startswith(SCHEME)):
        model = train[INIT] = str(Path(model).expanduser().absolute())
    elif home is None:
        return  # no registry to look in; train compares
    merge_defaults(train, settings_of(resolve(model, home or Path())))


def _put_recorded_corpus(draft: ConfigDraft[RunConfig], home: Path) -> None:
    chosen = ("snapshot",) in draft.sources or "corpus" not in draft.values
    if not chosen or ("corpus",) in draft.sources:
        return
    name = str(draft.values.get("snapshot", RunConfig.model_fields["snapshot"].default))
    if name_fault(name) is None and (snapshot := registered(home, name)) is not None:
        draft.put(("corpus",), snapshot.corpus, f"snapshot '{name}'")


def config_of_snapshot(config: RunConfig, home: Path, name: str, corpus: str | None = None) -> RunConfig:
    """The config for a snapshot: with the corpus that is given, else the one that is registered for it.

    Raises ConfigError for a name that cannot be one, for another snapshot than the config's whose corpus is
    not known, and for a snapshot of the toy web under a config of the open web, or the other way round.
    """
    if (fault := name_fault(name)) is not None:
        raise ConfigError(f"snapshot '{name}': {fault}")
    if corpus is None and (snapshot := registered(home, name)) is not None:
        corpus = snapshot.corpus
    if corpus is None and name != config.snapshot:
        raise ConfigError(
            f"snapshot '{name}' is not registered under {home}, so its corpus is not known; run it once with"
            f" `straightshot run --snapshot {name} --corpus ...`, or set the run's corpus"
        )
    corpus = corpus or config.corpus
    if _is_toy(corpus) != _is_toy(config.corpus):
        raise ConfigError(
            f"snapshot '{name}' is {corpus}, and the config is for {config.corpus}: what holds on the toy web"
            " and what on the open one (languages, thresholds, domain) differs; use a config with a `corpus`"
            " of its kind"
        )
    return config.model_copy(update={"snapshot": name, "corpus": corpus})


def _is_toy(corpus: str) -> bool:
    return corpus.startswith("toy:")


def ray_of(config: RunConfig, overrides: Iterable[str] = (), ray: str | None = None) -> str:
    """The Ray of a run: what its command line names (`ray`: --ray), else RAY_ADDRESS, else the preset's."""
    explicit = ray is not None or any(text.partition("=")[0].strip() == "ray" for text in overrides)
    return ray_address(config.ray, explicit=explicit)


def save_config(config: RunConfig, home: Path) -> None:
    """Keep the config of a run under HOME, so that later commands need only --home."""
    text = json.dumps(config.model_dump(mode="json"), indent=1) + "\n"
    store_at(home).write(SAVED, lambda path: path.write_text(text, encoding="utf-8"))


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def refuse_config(line: str) -> NoReturn:
    """For `saved_config`: a config that does not fit raises ConfigError."""
    raise ConfigError(f"{line}, with --preset and --set as before")


def saved_config(home: Path, say: Callable[[str], object] = _to_stderr) -> RunConfig | None:
    """The config of the last run under HOME; None when there was none, or it cannot be read.

    Fields of another version of Straightshot are left at this version's defaults, and `say` gets one line
    that names the file and them. say=refuse_config raises that line instead, where a run would follow.
    """
    path = home / SAVED
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        say(f"{path}: damaged, not JSON ({one_line(error)}); as if there had been no run: run again")
        return None
    config, dropped = fit_to(RunConfig, values) if isinstance(values, dict) else (None, [])
    if config is None:
        say(f"{path}: not a config of Straightshot; as if there had been no run: run again")
    elif dropped:
        names = ", ".join(dropped)
        say(f"{path}: of another version; not read: {names}; this version's defaults count: run again")
    return config


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """Paths as they are from here: a saved config is read again from wherever `status` is called."""
    kind, _, path = config.corpus.partition(":")
    corpus = (
        config.corpus if kind == "toy" or "://" in path else f"{kind}:{Path(path).expanduser().absolute()}"
    )
    labelled = config.annotators.labelled
    if labelled is not None and labelled != "toy" and "://" not in labelled:
        labelled = str(Path(labelled).expanduser().absolute())
    annotators = config.annotators.model_copy(update={"labelled": labelled})
    train = _with_absolute_models(config.train, "upsampler", "text", "autoencoder")
    shard = _with_absolute_models(config.shard, "latents", "texts")
    distill, consistency = config.distill, config.distill.consistency
    if distill.teacher is not None:
        distill = distill.model_copy(update={"teacher": _absolute_folder(distill.teacher)})
    if consistency.perceptual is not None:
        perceptual = _absolute_folder(consistency.perceptual)
        consistency = consistency.model_copy(update={"perceptual": perceptual})
        distill = distill.model_copy(update={"consistency": consistency})
    heads = {name: head.pinned() for name, head in config.recaption.heads.items()}
    recaption = config.recaption.model_copy(update={"heads": heads})
    sections = {
        "annotators": annotators,
        "recaption": recaption,
        "shard": shard,
        "train": train,
        "distill": distill,
    }
    return config.model_copy(update={"corpus": corpus, **sections})


def _with_absolute_models(section: Section, *names: str) -> Section:
    """A stage's config with the folders that its models are named by as they are from here."""
    update: dict[str, Any] = {}
    for name in names:
        named = getattr(section, name)
        if named is not None and named.model not in NO_MODELS:
            update[name] = named.model_copy(update={"model": _absolute_folder(named.model)})
    return section.model_copy(update=update)


def _absolute_folder(model: str) -> str:
    """A model by its folder's absolute path where it is one, after a prefix such as `local-dir:` or not."""
    prefix, colon, path = model.rpartition(":")
    folder = Path(path).expanduser()
    return f"{prefix}{colon}{folder.absolute()}" if folder.is_dir() else model
