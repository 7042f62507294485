"""The model that MLflow serves: prompts in, PNGs out. Logged as code by registry.py, run by MLflow.

    MLFLOW_TRACKING_URI=sqlite:///runs/mlflow.db mlflow models serve -m models:/straightshot@champion \
        --env-manager local
    curl localhost:5000/invocations -H 'content-type: application/json' \
        -d '{"dataframe_split": {"columns": ["prompt"], "data": [["a red circle"]]}, "params": {"seed": 1}}'

MLflow copies this file and the components beside the weights, so a registered model goes on being served
by the code that trained it. It imports nothing of pipelines, which is not copied.
"""

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

MAX_PROMPTS = 256  # per request; more is a batch job


class ServedModel(PythonModel):
    """The Generator behind MLflow's scoring interface."""

    def load_context(self, context: Any) -> None:
        """Load the weights, once they are known to be the registered ones."""
        from components.generation.generator import Generator

        folder = Path(context.artifacts["model"])
        wanted, found = context.model_config["weights"], _weights_of(folder)
        if found != wanted:
            raise MlflowException(
                f"the weights in {folder} are not the registered ones: {found}, not {wanted}"
            )
        self.generator = Generator.load(folder)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per prompt -> one row per image: column `image`, a PNG in base64.

        params: steps, seed, guidance, upsample (see the signature). A value out of range is an error 400.
        """
        prompts = model_input["prompt"].tolist()
        _check(prompts)
        given = params or {}
        try:
            images = self.generator.generate(
                prompts,
                steps=given.get("steps"),
                seed=given.get("seed", 0),
                guidance=given.get("guidance"),
                upsample=given.get("upsample", True),
            )
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return pd.DataFrame({"image": [_png(image) for image in images]})


def _weights_of(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every weights file."""
    paths = sorted(folder.rglob("*.safetensors"))
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def _check(prompts: list[Any]) -> None:
    """Raise MLflow's error 400 for what cannot be drawn."""
    if not 0 < len(prompts) <= MAX_PROMPTS:
        raise MlflowException.invalid_parameter_value(
            f"{len(prompts)} prompts in one request; send 1 to {MAX_PROMPTS}"
        )
    for row, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise MlflowException.invalid_parameter_value(f"prompt {row} is empty; say what to draw")


def _png(image: np.ndarray) -> str:
    """(H, W, 3) uint8 -> a PNG in base64."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


set_model(ServedModel())  # MLflow runs this file and takes what is set here
