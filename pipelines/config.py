"""The run's config: every stage's own config as a section, plus what concerns the whole run.

`load_config` takes a preset (a YAML file), lays the command's `--set stage.field=value` and flags over it,
and checks the whole once. Whatever is wrong is one ConfigError that names the file or flag, the field and
the nearest right name.
"""

import difflib
import json
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipelines.errors import ConfigError
from pipelines.presets import DEFAULT_PRESET, preset_path
from pipelines.stages.annotators import AnnotatorsConfig
from pipelines.stages.distill import DistillConfig
from pipelines.stages.evaluate import EvaluateConfig
from pipelines.stages.filter import FilterConfig
from pipelines.stages.promote import PromoteConfig
from pipelines.stages.recaption import RecaptionConfig
from pipelines.stages.shard import ShardConfig
from pipelines.stages.train import TrainConfig

SAVED = "run.json"  # HOME/run.json: the config of the last run

# What only holds on the toy web: its truth is in English, a judge fitted on it has this floor, and a scorer
# reads its scenes from the pixels.
TOY_WEB_DEFAULTS = {
    "filter": {"alt_text": {"languages": ["en"]}, "judge_threshold": -0.05},
    "evaluate": {"domain": "toy"},
}
OPEN_WEB_DEFAULTS = {"evaluate": {"domain": "open"}, "promote": {"min_prompt_following": None}}

Loc = tuple[str | int, ...]


class ToySettings(BaseModel):
    """The toy web that `corpus = toy:N` asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    labelled: int = Field(default=2000, ge=1)  # images with true captions, disjoint from the web


class RunConfig(BaseModel):
    """Everything a run depends on. Sections are the stages' own configs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    preset: str = DEFAULT_PRESET  # where it came from; shown, never hashed
    corpus: str = "toy:4000"  # toy:N | parquet:PATH | folder:PATH | webdataset:PATH
    snapshot: str = "default"  # the corpus snapshot that the data stages make
    train_snapshots: tuple[str, ...] = ()  # snapshots whose shards train reads; empty: this run's
    seed: int = Field(default=0, ge=0)  # for every section that has a seed and does not set its own
    ray: str = "local"  # local | auto | ray://host:port
    workers: int | None = Field(default=None, ge=1)  # actors per pool; by default one per CPU
    toy: ToySettings = ToySettings()
    annotators: AnnotatorsConfig = AnnotatorsConfig()
    filter: FilterConfig = FilterConfig()
    recaption: RecaptionConfig = RecaptionConfig()
    shard: ShardConfig = ShardConfig()
    train: TrainConfig = TrainConfig()
    distill: DistillConfig = DistillConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    promote: PromoteConfig = PromoteConfig()

    @field_validator("snapshot")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not name or not all(letter.isalnum() or letter in "-_." for letter in name) or name[0] == ".":
            raise ValueError("a snapshot's name is letters, digits, '-', '_' and '.', such as 2026-11-20")
        return name

    @property
    def snapshots(self) -> tuple[str, ...]:
        """The snapshots that train reads, in name order."""
        return tuple(sorted(set(self.train_snapshots))) or (self.snapshot,)


def load_config(preset: str = DEFAULT_PRESET, overrides: Iterable[str] = (), **flags: Any) -> RunConfig:
    """The config of `preset` (a name, or a path of a YAML file), overridden. A flag of None is not set.

    Raises ConfigError for an unknown preset, section, field or value.
    """
    path = preset_path(preset)
    draft = _Draft(_read_yaml(path), {(): str(path)})
    for override in overrides:
        draft.override(override)
    for name, value in flags.items():
        if value is not None:
            draft.put((name,), value, f"--{name.replace('_', '-')}")
    draft.put(("preset",), preset, "--preset")
    draft.apply_corpus_defaults()
    return _with_absolute_paths(draft.build())


def save_config(config: RunConfig, home: Path) -> None:
    """Keep the config of a run under HOME, so that later commands need only --home."""
    text = json.dumps(config.model_dump(mode="json"), indent=1)
    temporary = home / f"{SAVED}.tmp"
    temporary.write_text(text + "\n")
    temporary.replace(home / SAVED)


def saved_config(home: Path) -> RunConfig | None:
    """The config of the last run under HOME; None when there was none."""
    path = home / SAVED
    if not path.exists():
        return None
    try:
        return _Draft(dict(json.loads(path.read_text())), {(): str(path)}).build()
    except (ValueError, TypeError, ConfigError) as error:
        told = str(error) if isinstance(error, ConfigError) else f"{path}: {_one_line(error)}"
        raise ConfigError(
            f"{told}; it is of another version or damaged: run again with --preset and --set as before"
        ) from error


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
    upsampler = config.train.upsampler
    if (folder := Path(upsampler.model).expanduser()).is_dir():
        upsampler = upsampler.model_copy(update={"model": str(folder.absolute())})
    train = config.train.model_copy(update={"upsampler": upsampler})
    return config.model_copy(update={"corpus": corpus, "annotators": annotators, "train": train})


def merge_defaults(values: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Set in `values` what `defaults` has and they have not, section by section."""
    for name, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(values.setdefault(name, {}), dict):
            merge_defaults(values[name], default)
        else:
            values.setdefault(name, default)


class _Draft:
    """Plain values on their way to a RunConfig, each remembering who set it."""

    def __init__(self, values: dict[str, Any], sources: dict[Loc, str]) -> None:
        self.values = values
        self.sources = sources
        self.raw: dict[Loc, str] = {}  # the text behind an override, before YAML gave it a type

    def override(self, text: str) -> None:
        """Lay `section.field=value` over the values."""
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--set {text}: expected stage.field=value, such as --set train.images=200000")
        loc = tuple(name.strip().split("."))
        try:
            typed = yaml.load(value, _PlainLoader)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text}: not a YAML value ({_one_line(error)}); quote it") from error
        self.raw[loc] = value
        self.put(loc, typed, f"--set {text}")

    def put(self, loc: Loc, value: Any, source: str) -> None:
        """Set one value; sections on the way are made."""
        at = self.values
        for depth, name in enumerate(loc[:-1]):
            inner = at.get(str(name))
            if not isinstance(inner, dict):
                if inner is not None or not _has_fields(loc[: depth + 1]):
                    self._check_name(loc[: depth + 1], source)
                    raise ConfigError(f"{source}: '{_dotted(loc[: depth + 1])}' has no fields of its own")
                inner = at[str(name)] = {}
            at = inner
        at[str(loc[-1])] = value
        self.sources[loc] = source

    def apply_corpus_defaults(self) -> None:
        """Lay what the toy web asks for, or any other corpus, beneath what was given."""
        corpus = str(self.values.get("corpus", RunConfig.model_fields["corpus"].default))
        merge_defaults(self.values, TOY_WEB_DEFAULTS if corpus.startswith("toy:") else OPEN_WEB_DEFAULTS)

    def build(self) -> RunConfig:
        """Check everything at once; the first fault is raised as one line."""
        self._spread_seed()
        # A section that is given in part keeps the other values of its own default, not of its class.
        merge_defaults(self.values, RunConfig().model_dump())
        try:
            return RunConfig.model_validate(self.values)
        except ValidationError as error:
            if self._as_text(error):
                return self.build()
            raise self._explain(error) from error

    def _spread_seed(self) -> None:
        """Give the run's seed to every section that has a seed and does not set it."""
        for name in RunConfig.model_fields:
            section = _model_at((name,))
            given = self.values.get(name) or {}
            if section is not None and "seed" in section.model_fields and isinstance(given, dict):
                self.values[name] = {"seed": self.values.get("seed", 0), **given}

    def _as_text(self, error: ValidationError) -> bool:
        """Where text was wanted and YAML read an override as a number, take the override as it was typed."""
        changed = False
        for fault in error.errors():
            raw = self.raw.pop(fault["loc"], None) if fault["type"] == "string_type" else None
            if raw is not None:
                self.put(fault["loc"], raw, self.sources[fault["loc"]])
                changed = True
        return changed

    def _explain(self, error: ValidationError) -> ConfigError:
        fault = error.errors()[0]
        loc: Loc = fault["loc"]
        source = self._source(loc)
        if fault["type"] == "extra_forbidden":
            self._check_name(loc, source)
        wanted = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        wanted = wanted[:1].lower() + wanted[1:]
        given = fault["input"]
        shown = f", got {given!r}" if loc and not isinstance(given, dict | BaseModel) else ""
        return ConfigError(f"{source}: {_dotted(loc)}: {_one_line(wanted)}{shown}".replace(": :", ":"))

    def _source(self, loc: Loc) -> str:
        """Who set this value: the most specific source that is known."""
        for end in range(len(loc), -1, -1):
            if loc[:end] in self.sources:
                return self.sources[loc[:end]]
        return "config"

    def _check_name(self, loc: Loc, source: str) -> None:
        """Raise for a name that does not exist, with the nearest one that does."""
        parent = _model_at(loc[:-1])
        name = str(loc[-1])
        if parent is None or name in parent.model_fields:
            return
        prefix = _dotted(loc[:-1])
        kind = "section or field" if not prefix else "field"
        dot = f"{prefix}." if prefix else ""
        near = [f"{dot}{n}" for n in difflib.get_close_matches(name, parent.model_fields, n=1, cutoff=0.6)]
        near += [] if prefix else _sections_with(name)  # images=… where train.images=… was meant
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(parent.model_fields)}"
        raise ConfigError(f"{source}: unknown {kind} '{_dotted(loc)}'; {hint}")


class _PlainLoader(yaml.SafeLoader):
    """YAML without dates: 2026-11-20 is the name of a snapshot."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({_one_line(error)})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {_one_line(error)}") from error
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: expected sections such as 'train:', got {type(values).__name__}")
    return dict(values)


def _model_at(loc: Loc) -> type[BaseModel] | None:
    """The config class at a path of field names; None where there is no class of ours."""
    return _model_in(_annotation_at(loc))


def _has_fields(loc: Loc) -> bool:
    """Whether values can be set below this path: in a class of ours, or in a mapping by name."""
    return _model_at(loc) is not None or typing.get_origin(_annotation_at(loc)) is dict


def _annotation_at(loc: Loc) -> Any:
    """The type of the value at a path of field names and of a mapping's keys; None where there is none."""
    annotation: Any = RunConfig
    for name in loc:
        if typing.get_origin(annotation) is dict:
            annotation = typing.get_args(annotation)[1]
            continue
        model = _model_in(annotation)
        field = model.model_fields.get(str(name)) if model else None
        annotation = field.annotation if field else None
    return annotation


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as `M` or `M | None`."""
    if typing.get_origin(annotation) in (Union, UnionType):
        found = (_model_in(inner) for inner in typing.get_args(annotation))
        return next((model for model in found if model is not None), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _sections_with(name: str) -> list[str]:
    """The fields of that name one level down."""
    return [
        f"{section}.{name}"
        for section in RunConfig.model_fields
        if (model := _model_at((section,))) is not None and name in model.model_fields
    ]


def _dotted(loc: Loc) -> str:
    return ".".join(str(name) for name in loc)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
