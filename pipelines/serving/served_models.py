"""The model that is served: loaded, described, and replaced when the registry names another."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from components.errors import REASON_LENGTH, one_line
from components.generation.generator import Generator
from pipelines.registry.comparison import COLUMNS, LEGEND, MeasuredModel, compared
from pipelines.registry.model_registry import registered_reference, registry_of, resolve
from pipelines.registry.model_version import ModelVersion

STOP_SECONDS = 10.0
KINDS = {  # of a model's card, in words
    "flow": "flow, integrated with guidance",
    "consistency": "consistency model",
    "mean_flow": "average velocity (MeanFlow)",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model that answers requests. name: as it was asked for; version: None where it is a folder."""

    name: str
    generator: Generator
    version: ModelVersion | None

    @property
    def label(self) -> str:
        """What it is called in answers and images: straightshot/3, or a folder's own name."""
        return f"{self.version.name}/{self.version.version}" if self.version else Path(self.name).name

    @cached_property
    def card(self) -> dict[str, Any]:
        return model_card(self)


def model_card(loaded: LoadedModel) -> dict[str, Any]:
    """What is known of the model, for its page: what it is, how it is sampled, what was measured of it."""
    model, version = loaded.generator.model, loaded.version
    card = model.card
    about: dict[str, Any] = {
        "model": loaded.label,
        "kind": KINDS[card.kind],
        "image size": ", ".join(f"{size.width} × {size.height}" for size in model.sizes),
        "steps": card.steps,
        "guidance": card.guidance,
        "parameters": sum(weights.numel() for weights in model.network.parameters()),
        "images seen in training": card.images_seen,
        "text": "own vocabulary" if card.text.model == "learned" else card.text.model,
        "autoencoder": card.autoencoder.model,
        "prompt upsampler": "yes" if model.upsampler else "no",
    }
    if version is not None:
        about |= {"aliases": ", ".join(version.aliases) or None, "registered": version.created_at}
    if version is None or version.quality is None:
        return {"about": about, "measured": None}
    (group,) = compared([MeasuredModel((), version.quality)])
    numbers = [{"name": name, "value": value} for name, value in zip(COLUMNS, group.rows[0], strict=True)]
    return {"about": about, "measured": {"how": group.title, "numbers": numbers, "legend": LEGEND}}


class ModelSource:
    """Where the served model comes from, and whether there is a newer one.

    model: as `straightshot generate --model` takes it. An alias is looked up again at each poll; a version
    number, a URI of a version and a folder stay what they are.
    """

    def __init__(self, model: str, home: Path, batch_images: int) -> None:
        self.model, self.home, self.batch_images = model, home, batch_images
        self._registered = registered_reference(model)

    @property
    def follows(self) -> bool:
        """Whether another model may come under this name."""
        return self._registered is not None and not self._registered[1].isdecimal()

    def load(self) -> LoadedModel:
        """The model as of now. Raises ConfigError where there is none, InputError where it does not load."""
        version = self.version()
        folder = resolve(f"models:/{version.name}/{version.version}" if version else self.model, self.home)
        return LoadedModel(self.model, Generator.load(folder, batch_size=self.batch_images), version)

    def version(self) -> ModelVersion | None:
        """The registered version that the name means now; None for a folder."""
        if self._registered is None:
            return None
        name, reference = self._registered
        registry = registry_of(self.home, name=name)
        with registry.tracker.answering():
            return registry.version(reference)


class CurrentModel:
    """The model for new requests. Those that were taken before a promotion are answered by the one before."""

    def __init__(
        self, source: ModelSource, poll_seconds: float, on_load: Callable[[Generator], object]
    ) -> None:
        """on_load: called with each model before it answers its first request."""
        self.source, self.poll_seconds, self.on_load = source, poll_seconds, on_load
        self.loaded = self._load()
        self.problem: str | None = None  # why the last look at the registry failed, for /health
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="model watcher", daemon=True)
        if source.follows:
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _load(self) -> LoadedModel:
        loaded = self.source.load()
        # The first pass through a model takes longer than the others, at each size.
        for size in loaded.generator.sizes:
            loaded.generator.generate(["warm up"], size=size)
        self.on_load(loaded.generator)
        return loaded

    def _follow(self) -> None:
        while not self._stop.wait(self.poll_seconds):
            try:
                self._replace()
                self.problem = None
            except Exception as error:  # noqa: BLE001  whatever fails there, the loaded model still serves
                problem = one_line(error, REASON_LENGTH)
                if problem != self.problem:
                    logger.warning("still serving %s: %s", self.loaded.label, problem)
                self.problem = problem

    def _replace(self) -> None:
        version, before = self.source.version(), self.loaded
        if version is None or before.version is None or version.version == before.version.version:
            return
        self.loaded = self._load()
        logger.warning("serving %s, before %s", self.loaded.label, before.label)
