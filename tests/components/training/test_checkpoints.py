"""Checkpoints: whole and newest, or passed over."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.errors import InputError
from components.training.checkpoints import MANIFEST, STATE, BackgroundCheckpoints, Checkpoints


class Killed(BaseException):
    """Stands for the process's end."""


def state(images: int) -> dict:
    return {"images_seen": images, "weights": torch.full((3,), float(images)), "curve": [(1, {"loss": 0.5})]}


def folders(store: Checkpoints) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


def two(tmp_path: Path) -> Checkpoints:
    """A store with checkpoints at 100 and 200, as when the process died before the older one was dropped."""
    store = Checkpoints(tmp_path / "checkpoints")
    store.save(100, state(100))
    shutil.copytree(store.folder, tmp_path / "older")
    store.save(200, state(200))
    shutil.copytree(tmp_path / "older", store.folder, dirs_exist_ok=True)
    return store


def test_what_was_saved_comes_back_and_only_the_newest_is_kept(tmp_path):
    store = Checkpoints(tmp_path / "a" / "checkpoints")
    assert store.latest() is None
    for images in (100, 200, 1_000_000):
        store.save(images, state(images))
        assert len(folders(store)) == 1
        latest = store.latest()
        assert latest["images_seen"] == images
        assert torch.equal(latest["weights"], state(images)["weights"])
        assert latest["curve"] == [(1, {"loss": 0.5})]
    assert folders(store) == ["000001000000"]


def test_several_are_kept_if_wanted(tmp_path):
    store = Checkpoints(tmp_path, keep=3)
    for images in (100, 200, 300, 400, 500):
        store.save(images, state(images))
        assert len(folders(store)) == min(images // 100, 3)
    assert folders(store) == ["000000000300", "000000000400", "000000000500"]
    cut(tmp_path / "000000000500" / STATE)
    assert store.latest()["images_seen"] == 400
    Checkpoints(tmp_path).save(500, state(500))  # fewer, from now on
    assert folders(store) == ["000000000500"]


def test_one_that_is_written_in_the_background_is_of_the_moment_it_was_saved(tmp_path):
    goes_on = threading.Event()
    store = BackgroundCheckpoints(tmp_path, before_rename=lambda: goes_on.wait(30))
    live = {"images_seen": 100, "nested": [{"weights": torch.zeros(3)}]}
    store.save(100, live)
    live["nested"][0]["weights"] += 1  # the training goes on
    assert store.latest() is None
    goes_on.set()
    store.wait()
    assert not store.latest()["nested"][0]["weights"].any()
    for images in (200, 300):
        store.save(images, live)
    store.wait()
    assert folders(store) == ["000000000300"] and store.latest()["nested"][0]["weights"].all()


def test_one_that_cannot_be_written_in_the_background_ends_the_training_at_the_next(tmp_path):
    def full() -> None:
        raise OSError("No space left on device")

    store = BackgroundCheckpoints(tmp_path, before_rename=full)
    store.save(100, state(100))
    with pytest.raises(OSError, match="No space left"):
        store.save(200, state(200))
    store.wait()
    assert store.latest() is None


def test_the_newest_of_several_counts(tmp_path):
    assert two(tmp_path).latest()["images_seen"] == 200


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a state cut short": lambda folder: cut(folder / STATE),
    "a flipped bit": lambda folder: flip(folder / STATE),
    "no state": lambda folder: (folder / STATE).unlink(),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "an empty manifest": lambda folder: (folder / MANIFEST).write_text(""),
    "a manifest that is a list": lambda folder: (folder / MANIFEST).write_text("[]"),
    "a manifest without a hash": lambda folder: (folder / MANIFEST).write_text("{}"),
    "binary in the manifest": lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"),
    "a file in its place": lambda folder: (shutil.rmtree(folder), folder.write_text("")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_older_one(tmp_path, damage):
    store = two(tmp_path)
    damage(store.folder / "000000000200")
    assert store.latest()["images_seen"] == 100


@pytest.mark.parametrize("damage", list(DAMAGES.values())[:-1], ids=list(DAMAGES)[:-1])
def test_training_again_takes_a_damaged_checkpoint_s_place(tmp_path, damage):
    store = two(tmp_path)
    for folder in list(store.folder.iterdir()):
        damage(folder)
    assert store.latest() is None
    store.save(200, state(200))
    assert store.latest()["images_seen"] == 200
    assert folders(store) == ["000000000200"]


def test_killed_before_the_rename_the_one_before_is_still_there(tmp_path):
    def kill() -> None:
        raise Killed

    store = Checkpoints(tmp_path)
    store.save(100, state(100))
    with pytest.raises(Killed):
        Checkpoints(tmp_path, before_rename=kill).save(200, state(200))
    assert store.latest()["images_seen"] == 100
    store.save(200, state(200))  # this process has the dead one's id
    assert store.latest()["images_seen"] == 200
    assert folders(store) == ["000000000200"]


def test_before_the_rename_it_is_whole(tmp_path):
    seen = []

    def look() -> None:
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.endswith(f".tmp-{os.getpid()}")
        whole = tmp_path.parent / "taken"
        shutil.copytree(temporary, whole / "000000000100")
        seen.append(Checkpoints(whole).latest()["images_seen"])

    Checkpoints(tmp_path, before_rename=look).save(100, state(100))
    assert seen == [100]


class Ends:
    """What a hostile pickle does when it is read."""

    def __reduce__(self):
        return Path.touch, (Path("was executed"),)


def test_a_checkpoint_that_holds_code_is_refused_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(8, {"model": Ends()})  # hashed as any other
    with pytest.raises(
        InputError, match=r"state\.pt is no checkpoint of a training: .* nothing was executed"
    ):
        checkpoints.latest()
    assert not Path("was executed").exists()
