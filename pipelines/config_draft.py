"""From plain values to a checked config: overrides, defaults beneath, and one line for whatever is wrong.

Used by config.py for the run's config; nothing here knows a stage.
"""

import difflib
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Generic, TypeVar, Union

import yaml
from pydantic import BaseModel, ValidationError

from components.errors import one_line
from pipelines.errors import ConfigError

Loc = tuple[str | int, ...]  # a path of field names
Model = TypeVar("Model", bound=BaseModel)


def merge_defaults(values: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Set in `values` what `defaults` has and they have not, section by section."""
    for name, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(values.setdefault(name, {}), dict):
            merge_defaults(values[name], default)
        else:
            values.setdefault(name, default)


SET_FORM = "stage.field=value, such as --set train.images=200000"


class ConfigDraft(Generic[Model]):
    """Plain values on their way to a config of class `model`, each remembering who set it.

    Every error is a ConfigError of one line: the source, the field, what is wrong, the nearest right name.
    """

    def __init__(self, model: type[Model], values: dict[str, Any], sources: dict[Loc, str]) -> None:
        self.model = model
        self.values = values
        self.sources = sources
        self.raw: dict[Loc, str] = {}  # the text behind an override, before YAML gave it a type

    def override(self, text: str, option: str = "--set", form: str = SET_FORM) -> None:
        """Apply `section.field=value` to the values. option, form: of the command, as messages name them."""
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{option} {text}: expected {form}")
        loc = tuple(name.strip().split("."))
        try:
            typed = yaml.load(value, PlainLoader)
        except yaml.YAMLError as error:
            raise ConfigError(f"{option} {text}: not a YAML value ({one_line(error)}); quote it") from error
        self.raw[loc] = value
        self.put(loc, typed, f"{option} {text}")

    def put(self, loc: Loc, value: Any, source: str) -> None:
        """Set one value; sections on the way are made."""
        at = self.values
        for depth, name in enumerate(loc[:-1]):
            inner = at.get(str(name))
            if not isinstance(inner, dict):
                if inner is not None or not _has_fields(self.model, loc[: depth + 1]):
                    self._check_name(loc[: depth + 1], source)
                    raise ConfigError(f"{source}: '{dotted(loc[: depth + 1])}' has no fields of its own")
                inner = at[str(name)] = {}
            at = inner
        at[str(loc[-1])] = value
        self.sources[loc] = source

    def build(self) -> Model:
        """Check everything at once; the first fault is raised as one line."""
        self._spread_seed()
        # A section that is given in part keeps the other values of its own default, not of its class.
        merge_defaults(self.values, self.model().model_dump())
        try:
            return self.model.model_validate(self.values)
        except ValidationError as error:
            if self._as_text(error):
                return self.build()
            raise self._explain(error) from error

    def _spread_seed(self) -> None:
        """Give the run's seed to every section that has a seed and does not set it."""
        for name in self.model.model_fields:
            section = _model_at(self.model, (name,))
            values = self.values.get(name) or {}
            if section is not None and "seed" in section.model_fields and isinstance(values, dict):
                self.values[name] = {"seed": self.values.get("seed", 0), **values}

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
        value = fault["input"]
        got = f", got {value!r}" if loc and not isinstance(value, dict | BaseModel) else ""
        return ConfigError(f"{source}: {dotted(loc)}: {one_line(wanted)}{got}".replace(": :", ":"))

    def _source(self, loc: Loc) -> str:
        """Who set this value: who last set something in it, else the most specific source that is known."""
        inside = [source for at, source in self.sources.items() if at[: len(loc)] == loc]
        if loc and inside:
            return inside[-1]
        for end in range(len(loc), -1, -1):
            if loc[:end] in self.sources:
                return self.sources[loc[:end]]
        return "config"

    def _check_name(self, loc: Loc, source: str) -> None:
        """Raise for a name that does not exist, with the nearest one that does."""
        parent = _model_at(self.model, loc[:-1])
        name = str(loc[-1])
        if parent is None or name in parent.model_fields:
            return
        prefix = dotted(loc[:-1])
        kind = "section or field" if not prefix else "field"
        dot = f"{prefix}." if prefix else ""
        near = [f"{dot}{n}" for n in difflib.get_close_matches(name, parent.model_fields, n=1, cutoff=0.6)]
        near += [] if prefix else _sections_with(self.model, name)  # images=… where train.images=… was meant
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(parent.model_fields)}"
        raise ConfigError(f"{source}: unknown {kind} '{dotted(loc)}'; {hint}")


def fit_to(model: type[Model], values: dict[str, Any]) -> tuple[Model | None, list[str]]:
    """The config without the values that `model` refuses, and their dotted names.

    None when what is left is refused as well.
    """
    dropped: list[Loc] = []
    while True:
        # A section that is given in part keeps the other values of its own default, not of its class.
        merge_defaults(values, model().model_dump())
        try:
            return model.model_validate(values), [dotted(loc) for loc in dropped]
        except ValidationError as error:
            for fault in error.errors():
                loc = _place_of(values, fault["loc"])
                if not loc or loc in dropped:  # nothing to leave out, or its default is refused as well
                    return None, [dotted(loc) for loc in dropped]
                dropped.append(loc)
                section = values
                for name in loc[:-1]:
                    section = section[str(name)]
                del section[str(loc[-1])]


def _place_of(values: Any, loc: Loc) -> Loc:
    """The longest start of `loc` that names a value in nested dicts (a list's items go with the list)."""
    place: Loc = ()
    for name in loc:
        if not isinstance(values, dict) or name not in values:
            break
        place, values = (*place, name), values[name]
    return place


class PlainLoader(yaml.SafeLoader):
    """YAML without dates, and with YAML 1.2's booleans: 2026-11-20 names a snapshot, `no` a precision."""


BOOLEAN, DATE = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"
PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (BOOLEAN, DATE)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
PlainLoader.add_implicit_resolver(BOOLEAN, re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), PlainLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({one_line(error)})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {one_line(error)}") from error
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: expected sections such as 'train:', got {type(values).__name__}")
    return dict(values)


def _model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The config class at a path of field names; None where there is no class of ours."""
    return _model_in(_annotation_at(model, loc))


def _has_fields(model: type[BaseModel], loc: Loc) -> bool:
    """Whether values can be set below this path: in a class of ours, or in a mapping by name."""
    return _model_at(model, loc) is not None or typing.get_origin(_annotation_at(model, loc)) is dict


def _annotation_at(model: type[BaseModel], loc: Loc) -> Any:
    """The type of the value at a path of field names and of a mapping's keys; None where there is none."""
    annotation: Any = model
    for name in loc:
        if typing.get_origin(annotation) is dict:
            annotation = typing.get_args(annotation)[1]
            continue
        section = _model_in(annotation)
        field = section.model_fields.get(str(name)) if section else None
        annotation = field.annotation if field else None
    return annotation


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as `M` or `M | None`."""
    if typing.get_origin(annotation) in (Union, UnionType):
        models = (_model_in(inner) for inner in typing.get_args(annotation))
        return next((model for model in models if model is not None), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _sections_with(model: type[BaseModel], name: str) -> list[str]:
    """The fields of that name one level down."""
    return [
        f"{section}.{name}"
        for section in model.model_fields
        if (inner := _model_at(model, (section,))) is not None and name in inner.model_fields
    ]


def dotted(loc: Loc) -> str:
    return ".".join(str(name) for name in loc)
