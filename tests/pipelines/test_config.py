"""The run's config: presets, overrides with the types of YAML, and one line for whatever is wrong."""

from pathlib import Path

import pytest

from pipelines.config import RunConfig, load_config, save_config, saved_config
from pipelines.errors import ConfigError
from pipelines.graph import STAGES
from pipelines.presets import preset_path, presets


@pytest.mark.parametrize("preset", presets())
def test_every_preset_is_valid_and_says_what_it_is_for(preset):
    config = load_config(preset)
    assert config.preset == preset
    comment = [line for line in preset_path(preset).read_text().splitlines() if line.startswith("#")]
    assert f"--preset {preset}" in " ".join(comment)


def test_there_is_a_section_for_every_stage():
    for stage in STAGES:
        assert isinstance(getattr(load_config("micro"), stage.name), stage.config_type)


def test_an_override_has_the_type_that_yaml_gives_it():
    config = load_config("micro", ["train.images=123", "train.flow.shift=1e-1", "train.compile=false"])
    assert (config.train.images, config.train.flow.shift, config.train.compile) == (123, 0.1, False)
    assert load_config("micro", ["train_snapshots=[a, b]"]).snapshots == ("a", "b")


def test_an_override_of_a_text_is_a_text_whatever_it_looks_like():
    assert load_config("micro", ["snapshot=2026-11-20"]).snapshot == "2026-11-20"
    assert load_config("micro", ["snapshot=12"]).snapshot == "12"
    assert load_config("micro", snapshot="on").snapshot == "on"


def test_overrides_come_after_the_preset_and_flags_after_both():
    plain = load_config("micro")
    changed = load_config("micro", ["seed=7"], corpus="toy:11")
    assert (changed.seed, changed.corpus) == (7, "toy:11")
    assert changed.train.images == plain.train.images
    assert load_config("micro", ["corpus=toy:5"], corpus="toy:6").corpus == "toy:6"
    assert load_config("micro", corpus=None) == plain


def test_the_runs_seed_reaches_every_section_that_does_not_set_its_own():
    config = load_config("micro", ["seed=5", "distill.seed=9"])
    assert (config.train.seed, config.shard.seed, config.distill.seed) == (5, 5, 9)


def test_a_preset_may_be_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("corpus: toy:9\ntrain:\n  images: 77\nsnapshot: 2026-11-20\n")
    config = load_config(str(path))
    assert (config.corpus, config.train.images, config.snapshot) == ("toy:9", 77, "2026-11-20")


def test_paths_are_kept_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = load_config("micro", ["annotators.labelled=l.parquet"], corpus="parquet:web.parquet")
    assert config.corpus == f"parquet:{tmp_path / 'web.parquet'}"
    assert config.annotators.labelled == str(tmp_path / "l.parquet")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.imges=5", "--set train.imges=5: unknown field 'train.imges'; did you mean 'train.images'?"),
        ("trian.images=5", "unknown section or field 'trian'; did you mean 'train'?"),
        ("checkpoint_images=5", "did you mean 'train.checkpoint_images'?"),
        ("train.network.widht=5", "unknown field 'train.network.widht'; did you mean 'train.network.width'?"),
        ("train.images=many", "--set train.images=many: train.images: input should be a valid integer"),
        ("train.images=0", "train.images: input should be greater than 0, got 0"),
        ("train.images", "expected stage.field=value"),
        ("=5", "expected stage.field=value"),
        ("train.images=[", "not a YAML value"),
        ("train.images.x=1", "'train.images' has no fields of its own"),
        ("train=5", "--set train=5: train: input should be"),
        ("snapshot=../up", "a snapshot's name is letters, digits"),
        ("seed=-1", "--set seed=-1: seed: input should be greater than or equal to 0, got -1"),
    ],
)
def test_a_wrong_override_is_one_line_that_names_it(override, said):
    with pytest.raises(ConfigError) as error:
        load_config("micro", [override])
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert error.value.exit_status == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train:\n  imges: 5\n", "unknown field 'train.imges'; did you mean 'train.images'?"),
        ("train:\n  images: x\n", "train.images: input should be a valid integer"),
        ("train: [\n", "not YAML"),
        ("- a\n", "expected sections such as 'train:', got list"),
    ],
)
def test_a_wrong_preset_file_is_named(tmp_path, text, said):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(str(path))
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_an_unknown_preset_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'micro'"):
        load_config("mirco")
    with pytest.raises(ConfigError, match="no such file"):
        load_config("nothing.yaml")


def test_the_config_of_a_run_is_found_again(tmp_path):
    config = load_config("micro", ["train.images=55", "snapshot=2026-11-20"])
    assert saved_config(tmp_path) is None
    save_config(config, tmp_path)
    assert saved_config(tmp_path) == config


@pytest.mark.parametrize("text", ["", "{", '{"train": {"gone": 1}}', "[1]", "7"])
def test_a_saved_config_that_no_longer_fits_is_said_in_one_line(tmp_path: Path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ConfigError) as error:
        saved_config(tmp_path)
    assert "run.json" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_config_is_frozen():
    config: RunConfig = load_config("micro")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]  # what the types forbid is what is tried
