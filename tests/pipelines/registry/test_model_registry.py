"""From a name to a model folder: aliases, versions, URIs and paths; errors of one line."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipelines.errors import ConfigError
from pipelines.registry.champion import rollback
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.model_registry import Registry, models, resolve
from pipelines.registry.model_version import QUALITY_TAG
from pipelines.store.receipts import sha256_file
from tests.pipelines.make_champion import make_champion


@dataclass(frozen=True)
class Shelf:
    """A HOME with two registered models: version 1 is `previous`, version 2 champion and challenger."""

    home: Path
    folders: tuple[Path, Path]

    def is_model(self, folder: Path, number: int) -> bool:
        """Whether `folder` holds the bytes of that version's model."""
        names = sorted(path.name for path in folder.iterdir())
        made = self.folders[number - 1]
        return names == sorted(p.name for p in made.iterdir()) and all(
            (folder / name).read_bytes() == (made / name).read_bytes() for name in names
        )


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    root = tmp_path_factory.mktemp("a home")
    folders = (write_model(root / "one/model", 1), write_model(root / "two/model", 2))
    registry = Registry(Tracker(root / "home"))
    for number, folder in enumerate(folders, start=1):
        with registry.tracker.run("promote", f"f{number}") as run:
            registry.register(folder, f"digest {number}", run, steps=1, tags={})
        make_champion(registry, str(number))
        registry.set_alias("challenger", str(number))
    return Shelf(root / "home", folders)


def write_model(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    weights = {"w": np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("reference", "number"),
    [
        ("champion", 2),
        ("challenger", 2),
        ("previous", 1),
        ("1", 1),
        ("models:/straightshot@champion", 2),
        ("models:/straightshot/1", 1),
    ],
)
def test_a_name_leads_to_the_bytes_that_were_registered(shelf, reference, number):
    assert shelf.is_model(resolve(reference, shelf.home), number)


def test_a_path_and_a_logged_model_lead_to_their_folders(shelf):
    assert resolve(str(shelf.folders[0]), shelf.home) == shelf.folders[0]
    client = Tracker(shelf.home).client
    source = client.get_model_version("straightshot", "1").source
    assert source.startswith("models:/m-")
    assert shelf.is_model(resolve(source, shelf.home), 1)


def test_the_versions_are_described(shelf):
    second, first = models(shelf.home)
    assert (second.version, second.aliases) == ("2", ("challenger", "champion"))
    assert (first.version, first.aliases) == ("1", ("previous",))
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert first.files[f"artifacts/model/{name}"] == sha256_file(shelf.folders[0] / name)
    assert {"MLmodel", "served_model.py", "code/"} <= first.files.keys()
    assert first.created_at.endswith("+00:00")
    assert first.quality is None
    assert QUALITY_TAG.startswith("straightshot.")
    assert models(shelf.home, name="another") == []


def test_a_package_holds_code_and_weights_and_no_pickle(shelf):
    package = resolve("1", shelf.home).parents[1]
    files = [path for path in package.rglob("*") if path.is_file()]
    assert (package / "code/components/evaluation/results.py").is_file()
    assert (package / "served_model.py").is_file()
    assert not [path.name for path in files if path.suffix in (".pkl", ".pickle", ".pyc", ".pt", ".bin")]
    pinned = (package / "requirements.txt").read_text().split()
    assert all("==" in line and "+" not in line for line in pinned)


def test_looking_in_an_empty_home_makes_nothing_there(tmp_path):
    with pytest.raises(ConfigError, match=r"no model was registered under .*; `straightshot run` makes one"):
        resolve("champion", tmp_path)
    with pytest.raises(ConfigError, match="no model was registered"):
        rollback(tmp_path)
    assert models(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("9", r"no '9' among the models 'straightshot' .*; there are challenger, champion, previous, 2, 1"),
        ("models:/straightshot@best", "no 'best' among the models"),
        ("models:/other@champion", "there are none"),
        ("models:/m-0123", "no logged model 'm-0123'"),
        ("models:/", r"models:/NAME@ALIAS"),
        ("chmapion", r"no model 'chmapion'; give champion, challenger, previous, a version number"),
    ],
)
def test_a_wrong_name_is_answered_with_what_there_is(shelf, reference, says):
    with pytest.raises(ConfigError, match=says) as raised:
        resolve(reference, shelf.home)
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_no_model_is_refused(shelf, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"is not a model folder: it has no model\.safetensors"):
        resolve(str(tmp_path), shelf.home)


@pytest.mark.parametrize(
    "name",
    [
        "artifacts/model/model.safetensors",
        "artifacts/model/config.json",
        "MLmodel",
        "code/components/malloc.py",
    ],
)
def test_a_changed_file_of_a_package_is_found(shelf, name):
    package = resolve("previous", shelf.home).parents[1]
    kept = (package / name).read_bytes()
    (package / name).write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    found = name if not name.startswith("code/") else "code"
    with pytest.raises(
        ConfigError, match=f"{found} is not as it was registered in models:/straightshot/1.*--repair"
    ):
        resolve("previous", shelf.home)
    (package / name).write_bytes(kept)
    assert shelf.is_model(resolve("previous", shelf.home), 1)


def test_a_file_that_was_added_to_a_package_is_found_but_not_what_running_its_code_leaves(shelf):
    package = resolve("previous", shelf.home).parents[1]
    (package / "code/components/__pycache__").mkdir()
    (package / "code/components/__pycache__/x.pyc").write_bytes(b"x")
    resolve("previous", shelf.home)
    (package / "code/components/torch.py").write_text("print('not ours')")
    with pytest.raises(ConfigError, match="code is not as it was registered"):
        resolve("previous", shelf.home)
    (package / "code/components/torch.py").unlink()
