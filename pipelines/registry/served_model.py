"""The model that MLflow serves: prompts in, PNGs out. Logged as code, run by MLflow.

    MLFLOW_TRACKING_URI=sqlite:///runs/mlflow.db mlflow models serve -m models:/straightshot@champion \
        --env-manager local
    curl localhost:5000/invocations -H 'content-type: application/json' \
        -d '{"dataframe_split": {"columns": ["prompt"], "data": [["a red circle"]]}, "params": {"seed": 1}}'

Each PNG says that a model made it, signed with STRAIGHTSHOT_CREDENTIALS, else with the user's own
credentials; STRAIGHTSHOT_PROVENANCE=off leaves it out.

MLflow copies this file and the components beside the weights, so a registered model is served by the code
that trained it. It imports nothing of pipelines, which is not copied.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

MAX_PROMPTS = 256  # per request; more is a batch job
MODEL = "a registered model"  # in the manifest; which one, the package does not know


class ServedModel(PythonModel):
    """The Generator behind MLflow's scoring interface."""

    def load_context(self, context: Any) -> None:
        """Load the model, after comparing its files with the registered hashes."""
        from components.generation.generator import Generator
        from components.provenance.png import png_writer

        folder = Path(context.artifacts["model"])
        registered, actual = context.model_config["files"], _files_of(folder)
        if wrong := sorted(p for p in registered | actual if registered.get(p) != actual.get(p)):
            raise MlflowException(f"{folder}: not as registered, changed or damaged: {', '.join(wrong)}")
        self.generator, self.writer = Generator.load(folder), png_writer()

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per prompt -> one row per image: `image`, a PNG in base64, and `caption`, what it is of.

        params: steps, seed, guidance, upsample (see the signature). A value out of range is an error 400.
        """
        from components.errors import InputError

        prompts = model_input["prompt"].tolist()
        _check(prompts)
        params = params or {}
        steps, seed, guidance = params.get("steps"), params.get("seed", 0), params.get("guidance")
        try:
            self.generator.generate([], steps=steps, guidance=guidance)  # bad settings fail before any work
            captions = prompts
            if params.get("upsample", True):
                captions = [prompt.caption for prompt in self.generator.upsample(prompts, seed=seed)]
            images = self.generator.generate(captions, steps=steps, seed=seed, guidance=guidance)
        except InputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        pngs = [self._png(*texts) for texts in zip(images, prompts, captions, strict=True)]
        return pd.DataFrame({"image": pngs, "caption": captions})

    def _png(self, pixels: np.ndarray, prompt: str, caption: str) -> str:
        """(H, W, 3) uint8 -> a PNG with its texts, in base64."""
        from PIL import Image

        png = self.writer.encode(Image.fromarray(pixels), {"prompt": prompt, "caption": caption}, MODEL)
        return base64.b64encode(png).decode("ascii")


def _files_of(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def _check(prompts: list[Any]) -> None:
    """Raise MLflow's error 400 for prompts that cannot be generated."""
    if not 0 < len(prompts) <= MAX_PROMPTS:
        raise MlflowException.invalid_parameter_value(
            f"{len(prompts)} prompts in one request; send 1 to {MAX_PROMPTS}"
        )
    for row, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise MlflowException.invalid_parameter_value(f"prompt {row} is empty; describe an image")


set_model(ServedModel())  # MLflow runs this file and serves the model that is set here
