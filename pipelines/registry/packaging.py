"""A model folder as an MLflow model, with code, signature and pinned requirements, and back.

The weights stay safetensors and the code stays code: nothing in the package is a pickle.
"""

import importlib.metadata
import shutil
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
from pipelines.store.receipts import json_digest, sha256_file

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
    "diffusers",
    "einops",
    "huggingface-hub",
    "open-clip-torch",
    "c2pa-python",
    "cryptography",
)
CODE, MODEL_IN_PACKAGE = "code/", "artifacts/model/"  # in a package
PACKAGE_COPIES = "package"  # in the run's artifacts: the small files of the package, to restore them from
DOWNLOADS = "models"  # HOME/models/<of the address>: models of a remote registry
MODEL_FILES = ("config.json", "model.safetensors")  # what makes a folder a model


def log_served_model(tracker: Tracker, run: TrackedRun, folder: Path, *, steps: int) -> str:
    """Log `folder` into the run as a pyfunc model from code; returns MLflow's id of it.

    steps: the default of a request without `steps`.
    """
    import mlflow

    with tracker.as_default(), mlflow.start_run(run_id=run.id), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns that there is no example request
        logged = mlflow.pyfunc.log_model(
            name=PACKAGED_NAME,
            python_model=str(SERVED_CODE),
            artifacts={"model": str(folder)},
            code_paths=[str(COMPONENTS)],
            model_config={"files": files_of(folder)},
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


def files_of(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file of a model folder, as in served_model.py."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}


def hashes_of(package: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file of an MLflow model; its code, some hundred files, as one entry.

    Without what running the code leaves behind (__pycache__).
    """
    hashes = {path: digest for path, digest in files_of(package).items() if "__pycache__" not in path}
    code = {path: hashes.pop(path) for path in list(hashes) if path.startswith(CODE)}
    return {**hashes, CODE: json_digest(code)}


def code_here() -> str:
    """What hashes_of says of a package's code, where it is that of this checkout."""
    files = {path: digest for path, digest in files_of(COMPONENTS).items() if "__pycache__" not in path}
    return json_digest({f"{CODE}{COMPONENTS.name}/{path}": digest for path, digest in files.items()})


def damaged_files(package: Path, registered: Mapping[str, str]) -> list[str]:
    """What of a package is not as it was registered: changed, missing or new, in name order.

    Where an older version of this project hashed only some of the files, only these.
    """
    actual = hashes_of(package) if package.is_dir() else {}
    names = registered.keys() | actual.keys() if CODE in registered else registered.keys()
    return sorted(path for path in names if registered.get(path) != actual.get(path))


def upload(tracker: Tracker, location: str, source: Path, path: str) -> None:
    """Put a file or a folder into a remote MLflow model, in the place of what is there."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with tracker.as_default(), tempfile.TemporaryDirectory() as folder:
        repository = get_artifact_repository(location)
        if source.is_dir():
            repository.log_artifacts(str(source), path)
            return
        named = Path(folder) / Path(path).name
        shutil.copyfile(source, named)
        parent = Path(path).parent.as_posix()
        repository.log_artifact(str(named), None if parent == "." else parent)


def local_package(tracker: Tracker, location: str, downloads: Path | None = None) -> Path:
    """The folder of an MLflow model; a remote one is fetched once, to `downloads`, else to HOME/models."""
    if not is_remote(location):
        return Path(url2pathname(urlparse(location).path))
    local = (downloads or tracker.home / DOWNLOADS) / download_name(location)
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
    return local


def download_name(location: str) -> str:
    """The folder under HOME/models of the MLflow model at this address."""
    return sha256(location.encode()).hexdigest()[:16]


def is_remote(location: str) -> bool:
    """Whether an MLflow model lies elsewhere than in a folder of this machine."""
    return urlparse(location).scheme not in ("", "file")


def folder_within(package: Path) -> Path:
    """The model folder of an MLflow model, as its file MLmodel names it. Raises ConfigError."""
    try:
        document = yaml.safe_load((package / "MLmodel").read_text(encoding="utf-8"))
        relative = document["flavors"]["python_function"]["artifacts"]["model"]["path"]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
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
