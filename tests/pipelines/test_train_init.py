"""`train.init` in the config and in train's fingerprint."""

from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.errors import ConfigError
from pipelines.graph import stage_named
from pipelines.pipeline import Pipeline
from pipelines.sources import find_source
from pipelines.stage import INIT, TEACHER, Input, fingerprint
from pipelines.stages.train import STAGE
from tests.small_model import write_small_model


@pytest.fixture
def model(tmp_path) -> Path:
    return write_small_model(tmp_path / "model", upsampler=False)


@pytest.fixture
def preset(tmp_path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text("corpus: toy:20\ntrain: {network: {width: 32}, images: 64}\n")
    return str(path)


def test_what_the_preset_leaves_open_is_as_the_model_has_it(model, preset, monkeypatch):
    monkeypatch.chdir(model.parent)
    train = load_config(preset, ["train.init=model", "train.network.heads=4"]).train
    assert train.init == str(model)
    assert (train.network.image_size, train.network.patch, train.network.depth) == (16, 8, 1)
    assert (train.network.width, train.network.heads, train.text.max_length) == (32, 4, 32)
    assert (train.network.vocabulary, train.images) == (0, 64)


def test_another_model_under_the_same_path_is_another_run_and_the_same_under_another_is_not(
    model, preset, tmp_path
):
    def name(path: Path) -> str:
        config = load_config(preset, [f"train.init={path}"])
        (found,) = Pipeline(config, tmp_path).inputs.some_of("train", [INIT])[INIT]
        assert found.path == path
        inputs = {"shard": (Input("shard", "", "of shards"),), INIT: (found,)}
        return fingerprint(STAGE, "default", config.train, inputs)

    first, other = name(model), tmp_path / "other"
    assert name(write_small_model(other, upsampler=False)) == first
    model.rename(tmp_path / "before")
    write_small_model(model, seed=1, upsampler=False)
    assert name(model) != first == name(other)


def test_neither_the_name_of_the_model_nor_the_parts_of_a_batch_change_the_run(model, preset):
    settings = ([], ["train.accumulation=4"], [f"train.init={model}"])
    plain, in_parts, started = (load_config(preset, overrides).train for overrides in settings)
    assert (in_parts.accumulation, started.init) == (4, str(model))
    of_the_model = {name: getattr(started, name) for name in ("network", "text")}
    same = plain.model_copy(update=of_the_model)
    with pytest.raises(ConfigError, match=r"batch_size 32 cannot be shared .* in 5 parts each evenly"):
        load_config(preset, ["train.accumulation=5"])
    assert fingerprint(STAGE, "x", plain, {}) == fingerprint(STAGE, "x", in_parts, {})
    assert fingerprint(STAGE, "x", same, {}) == fingerprint(STAGE, "x", started, {})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json is damaged or of no model"),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            "is not a model folder: it has no model.saf",
        ),
        (lambda folder: folder.rename(folder.with_name("gone")), "^no model '.*model'; give champion"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_before_any_work(model, preset, damage, message):
    damage(model)
    with pytest.raises(ConfigError, match=message):
        load_config(preset, [f"train.init={model}"])


def test_another_teacher_under_the_same_path_is_another_run_and_none_is_one_line(tmp_path):
    config = load_config("micro", [f"distill.teacher={tmp_path / 'teacher'}"])
    with pytest.raises(ConfigError, match=r"distill.teacher: no folder at .*; give a model's or"):
        find_source(TEACHER, config, tmp_path / "home")
    digests = set()
    for weights in (b"one", b"other"):
        (tmp_path / "teacher" / "transformer").mkdir(parents=True, exist_ok=True)
        (tmp_path / "teacher" / "transformer" / "weights").write_bytes(weights)
        digests.add(find_source(TEACHER, config, tmp_path / "home").digest)
    assert len(digests) == 2
    moved = load_config("micro", ["distill.teacher=/elsewhere"])
    given = {TEACHER: (Input(TEACHER, "here", digests.pop()),)}
    names = [fingerprint(stage_named("distill"), "s", c.distill, given) for c in (config, moved)]
    assert names[0] == names[1]  # the content counts, not the name
