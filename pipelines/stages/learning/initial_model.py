"""The model that train starts from where its config names one: `train.init`.

Its weights, text encoder and autoencoder are taken; what the config says of them has to be so. `load_config`
sets what preset and command leave open to what the model has (`settings_of`).
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import ConfigError
from pipelines.stage import INIT, Work

if TYPE_CHECKING:
    from components.generation.model_folder import Model, ModelCard

CARD = "config.json"  # of a model folder
OF_THE_TEXT = ("vocabulary", "text_length", "text_features")  # fields of a card's network that its text gives


def settings_of(folder: Path) -> dict[str, dict[str, Any]]:
    """What a model's card fixes of train's config, as plain values. Without torch."""
    try:
        card = json.loads((folder / CARD).read_bytes())
        network = {name: value for name, value in card["dit"].items() if name not in OF_THE_TEXT}
        sections = {name: card.get(name, {}) for name in ("diffusion", "text", "autoencoder")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"train.init: {folder / CARD} is damaged or of no model; give another") from error
    return {"network": network, **sections}


def initial_folder(work: Work) -> Path | None:
    """The folder of the model that train starts from, if it does not start anew."""
    return next((given.path for given in work.inputs.get(INIT, ())), None)


def load_initial_model(folder: Path, config: Any) -> "Model":
    """The model that train starts from. Raises ConfigError, one line, where the config is of another."""
    from components.generation.model_folder import load_model

    model = load_model(folder, upsampler=False)
    _refuse_contradictions(model.card, config, folder)
    return model


def _refuse_contradictions(card: "ModelCard", config: Any, folder: Path) -> None:
    text = {name: getattr(card.dit, name) for name in OF_THE_TEXT}
    pairs = {
        "network": (config.network.model_copy(update=text), card.dit),
        "diffusion": (config.diffusion, card.diffusion),
        "text": (config.text, card.text),
        "autoencoder": (config.autoencoder.card, card.autoencoder),
    }
    for section, (configured, initial) in pairs.items():
        for name in type(initial).model_fields:
            ours, its = getattr(configured, name), getattr(initial, name)
            if ours != its:
                raise ConfigError(
                    f"train.{section}.{name} is {ours}, and the model of train.init, {folder}, has {its};"
                    " set it to that, or name another model"
                )
