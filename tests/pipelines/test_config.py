"""The run's config: presets, overrides with the types of YAML, and one line for whatever is wrong."""

import json
from pathlib import Path

import pytest

from pipelines.config import RunConfig, load_config, refuse_config, save_config, saved_config
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


def test_no_is_a_text_and_not_a_boolean_unless_a_boolean_is_asked(tmp_path):
    assert load_config("micro", ["train.precision=no"]).train.precision == "no"
    (tmp_path / "own.yaml").write_text("train: {precision: no, compile: no}\n")
    own = load_config(str(tmp_path / "own.yaml")).train
    assert (own.precision, own.compile) == ("no", False)
    assert load_config("micro", ["train.compile=yes"]).train.compile is True


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
    ("override", "message"),
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
def test_a_wrong_override_is_one_line_that_names_it(override, message):
    with pytest.raises(ConfigError) as error:
        load_config("micro", [override])
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert error.value.exit_status == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  imges: 5\n", "unknown field 'train.imges'; did you mean 'train.images'?"),
        ("train:\n  images: x\n", "train.images: input should be a valid integer"),
        ("train: [\n", "not YAML"),
        ("- a\n", "expected sections such as 'train:', got list"),
    ],
)
def test_a_wrong_preset_file_is_named(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(str(path))
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
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


def read(home: Path) -> tuple[RunConfig | None, list[str]]:
    """The saved config and the lines about what does not fit."""
    lines: list[str] = []
    return saved_config(home, lines.append), lines


@pytest.mark.parametrize("text", ["", "{", "\x00\x00", "[1]", "7", "null"])
def test_a_damaged_saved_config_is_as_if_there_were_none_and_named_in_one_line(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    config, (line,) = read(tmp_path)
    assert config is None
    assert line.startswith(f"{tmp_path / 'run.json'}: ") and len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda values: values["train"].update(gone=1), "train.gone"),
        (lambda values: values["train"]["network"].update(gone={"a": 1}), "train.network.gone"),
        (lambda values: values.update(renamed={"images": 1}), "renamed"),
        (lambda values: values["train"].update(batch_size="all"), "train.batch_size"),
        (lambda values: values.update(train_snapshots=[1]), "train_snapshots"),
        (lambda values: values.update(distill="of old"), "distill"),
        (lambda values: values["train"].update(gone=1, also=2), "train.gone, train.also"),
    ],
)
def test_a_saved_config_of_another_version_is_read_as_far_as_it_fits(tmp_path, change, names):
    config = load_config("micro", ["train.images=55", "filter.rows_per_fragment=9"])
    save_config(config, tmp_path)
    values = json.loads((tmp_path / "run.json").read_text())
    change(values)
    (tmp_path / "run.json").write_text(json.dumps(values))
    kept, (line,) = read(tmp_path)
    assert kept is not None
    assert (kept.filter.rows_per_fragment, kept.train.images) == (9, 55)
    assert f"not read: {names};" in line and "run.json" in line
    assert kept.train.batch_size == (
        RunConfig().train.batch_size if names == "train.batch_size" else config.train.batch_size
    )


def test_a_saved_config_with_fewer_fields_gets_the_defaults(tmp_path):
    save_config(load_config("micro", ["train.images=55"]), tmp_path)
    values = json.loads((tmp_path / "run.json").read_text())
    del values["distill"], values["train"]["batch_size"], values["ray"]
    (tmp_path / "run.json").write_text(json.dumps(values))
    config, lines = read(tmp_path)
    assert config is not None and lines == []
    assert (config.train.images, config.train.batch_size) == (55, RunConfig().train.batch_size)
    assert config.distill == RunConfig().distill


def test_a_run_does_not_go_on_with_a_config_that_does_not_fit(tmp_path):
    (tmp_path / "run.json").write_text('{"train": {"gone": 1}}')
    with pytest.raises(ConfigError, match=r"run\.json: .*train\.gone.* run again, with --preset and --set"):
        saved_config(tmp_path, refuse_config)


def test_a_config_is_frozen():
    config: RunConfig = load_config("micro")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]  # what the types forbid is what is tried
