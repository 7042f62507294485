"""A model folder as an MLflow model, with code, signature and pinned requirements, and back.

The weights stay safetensors and the code stays code: nothing in the package is a pickle.
"""

import importlib.metadata
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import url2pathname

import yaml

from components.durable import flush_folder, rename
from pipelines.errors import ConfigError
from pipelines.registry.mlflow_run import TrackedRun
from pipelines.registry.mlflow_store import Tracker
from pipelines.store.receipts import sha256_file

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

SERVED_CODE = Path(__file__).with_name("served_model.py")
COMPONENTS = Path(__file__).parents[2] / "components"
PACKAGED_NAME = "student"
# What served_model.py and the components it reaches import; test_serving.py compares.
REQUIRED = (
    "mlflow",
    "torch",
    "numpy",
    "pandas",
    "pillow",
    "pydantic",
    "safetensors",
    "tokenizers",
    "transformers",
    "einops",
    "open-clip-torch",
    "c2pa-python",
    "cryptography",
)
DOWNLOADS = "models"  # HOME/models/<of the address>: models of a remote registry
MODEL_FILES = ("config.json", "model.safetensors")  # what makes a folder a model


def log_served_model(
    tracker: Tracker, run: TrackedRun, folder: Path, *, weights: Mapping[str, str], steps: int
) -> str:
    """Log `folder` into the run as a pyfunc model from code; returns MLflow's id of it.

    weights: `weights_of` the folder. steps: the default of a request without `steps`.
    """
    import mlflow

    with tracker.as_default(), mlflow.start_run(run_id=run.id), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns that there is no example request
        logged = mlflow.pyfunc.log_model(
            name=PACKAGED_NAME,
            python_model=str(SERVED_CODE),
            artifacts={"model": str(folder)},
            code_paths=[str(COMPONENTS)],
            model_config={"weights": dict(weights)},
            signature=signature(steps),
            pip_requirements=requirements(),
        )
    return str(logged.model_id)


def model_folder(path: Path) -> Path:
    """`path`, if it is a model folder; ConfigError otherwise."""
    if not path.is_dir():
        raise ConfigError(
            f"no model '{path}'; give champion, challenger, previous, a version number, models:/NAME@ALIAS"
            f" or a folder with {' and '.join(MODEL_FILES)}"
        )
    missing = [name for name in MODEL_FILES if not (path / name).is_file()]
    if missing:
        raise ConfigError(f"{path} is not a model folder: it has no {' and no '.join(missing)}")
    return path


def weights_of(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every weights file, a frozen text encoder's too, as in served_model.py."""
    paths = sorted(folder.rglob("*.safetensors"))
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}


def unpacked(tracker: Tracker, location: str) -> Path:
    """The model folder inside an MLflow model; a remote one is fetched to HOME/models once."""
    parsed = urlparse(location)
    if parsed.scheme in ("", "file"):
        return _folder_within(Path(url2pathname(parsed.path)))
    local = tracker.home / DOWNLOADS / sha256(location.encode()).hexdigest()[:16]
    if not local.exists():
        import mlflow

        local.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=local.parent, prefix="fetching-") as temporary:
            fetched = mlflow.artifacts.download_artifacts(
                artifact_uri=location, dst_path=temporary, tracking_uri=tracker.uri
            )
            flush_folder(Path(fetched))
            with suppress(OSError):  # another process was first
                rename(Path(fetched), local)
    return _folder_within(local)


def _folder_within(package: Path) -> Path:
    """The model folder that the file MLmodel names."""
    try:
        document = yaml.safe_load((package / "MLmodel").read_text(encoding="utf-8"))
        relative = document["flavors"]["python_function"]["artifacts"]["model"]["path"]
    except (OSError, KeyError, TypeError) as error:
        raise ConfigError(f"{package} holds no model of Straightshot's ({error})") from error
    return model_folder(package / relative)


def signature(steps: int) -> "ModelSignature":
    """Column `prompt` in; columns `image` (a PNG in base64) and `caption` out; a request's parameters."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    parameters = [
        ParamSpec("steps", "integer", steps),
        ParamSpec("seed", "long", 0),
        ParamSpec("guidance", "double", None),  # None: as the model was distilled
        ParamSpec("upsample", "boolean", True),
    ]
    return ModelSignature(
        inputs=Schema([ColSpec("string", "prompt")]),
        outputs=Schema([ColSpec("string", "image"), ColSpec("string", "caption")]),
        params=ParamSchema(parameters),
    )


def requirements() -> list[str]:
    """What serving needs, each pinned to the version in use, without a local part such as +cpu."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIRED]
