"""What a user gets for a mistake: one line that says what, where and what to do; nothing half-written."""

import errno
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer import BadParameter

from components.errors import InputError
from dags.cli.app import repeat_options
from dags.cli.messages import DEBUG_HINT, ending_of
from pipelines.errors import ConfigError, GateRefused, StageFailed, UnexpectedError
from pipelines.store.home import open_home


def rows(path, **columns):
    pq.write_table(pa.table(columns), path)
    return f"parquet:{path}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--preset", "mirco"], "did you mean 'micro'"),
        (["run", "--set", "train.imges=3"], "did you mean 'train.images'"),
        (["run", "--set", "train.images=x"], "train.images: input should be a valid integer"),
        (["run", "--select", "trian"], "did you mean 'train'"),
        (["run", "--force", "trian"], "did you mean 'train'"),
        (["run", "--corpus", "web:x"], "corpus"),
        (["run", "--corpus", "toy:x"], "expected toy:N"),
        (["run", "--snapshot", "a/b"], "a snapshot's name"),
        (["run", "--hoem", "x"], "No such option: --hoem"),
        (["run", "--home"], "--home"),
        (["rnu"], "No such command 'rnu'"),
        (["generate"], "PROMPT"),
        (["generate", "a red circle", "-n", "0"], "-n"),
        (["export", "--to", "tflite", "-o", "x"], "'diffusers', 'onnx'"),
        (["export", "--to", "onnx", "--model", ".", "-o", "x"], "is not a model folder"),
    ],
)
def test_a_usage_error_is_one_line_and_status_2(straightshot, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setenv("STRAIGHTSHOT_HOME", str(tmp_path / "home"))
    status, out, err = straightshot(*arguments)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert out == ""
    assert not [path for path in (tmp_path / "home").glob("*/*") if path.is_dir()]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"x"], "url": ["u"]}, "alt_text"),
        ({"image": [b"x"], "alt_text": [3]}, "alt_text"),
        ({"photo": [b"x"], "alt_text": ["a"]}, "image"),
    ],
)
def test_a_corpus_with_a_wrong_column_is_named_before_any_work(straightshot, tmp_path, columns, message):
    corpus = rows(tmp_path / "web.parquet", **columns)
    labelled = tmp_path / "labelled.parquet"
    rows(labelled, image=[b"x"], caption_short=["a"], caption_long=["a"])
    home = tmp_path / "home"
    options = ["--corpus", corpus, "--set", f"annotators.labelled={labelled}", "--home", home]
    status, _, err = straightshot("run", "--preset", "micro", *options)
    assert status == 2
    assert message in err and "web.parquet" in err
    assert len(err.splitlines()) == 1
    assert not [path for path in home.glob("*/*") if path.is_dir()]


def test_a_corpus_that_is_not_there_is_named(straightshot, tmp_path):
    options = ["--corpus", f"parquet:{tmp_path}/gone", "--set", f"annotators.labelled={__file__}"]
    status, _, err = straightshot("run", *options, "--home", tmp_path / "home")
    assert status == 2
    assert "gone" in err and len(err.splitlines()) == 1


def test_a_home_that_cannot_be_written_is_named_before_any_work(straightshot, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = straightshot("run", "--preset", "micro", "--home", tmp_path / "file" / "home")
    assert status == 2
    assert f"HOME {tmp_path / 'file' / 'home'} cannot be written" in err
    assert len(err.splitlines()) == 1


def test_a_home_without_room_is_named_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="MB free and a run needs"):
        open_home(tmp_path, free_bytes=2**62)


def test_no_space_on_the_way_says_what_to_do():
    ending = ending_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/home/runs/x"))
    assert ending.exit_status == 1
    assert ending.text == "/home/runs/x: no space left, free some; the same command goes on from here"


@pytest.mark.parametrize(
    ("error", "exit_status", "text"),
    [
        (ConfigError("train.images: too few"), 2, "train.images: too few"),
        (InputError("steps is 0; it must be 1 or more"), 2, "steps is 0; it must be 1 or more"),
        (BadParameter("too low"), 2, "Invalid value: too low. See straightshot --help."),
        (StageFailed("train: diverged\n at 7"), 1, "train: diverged at 7"),
        (GateRefused("too low"), 3, "too low"),
        (ConnectionError("no route"), 1, "no route"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from here"),
        (ValueError("shapes\n differ"), 1, f"ValueError: shapes differ; {DEBUG_HINT}"),
        (AssertionError(), 1, f"AssertionError; {DEBUG_HINT}"),
        (UnexpectedError("KeyError: 'x'"), 1, f"KeyError: 'x'; {DEBUG_HINT}"),
    ],
)
def test_a_mistake_and_a_bug_are_one_line_each_and_only_the_bug_hints_at_debug(error, exit_status, text):
    ending = ending_of(error)
    assert (ending.exit_status, ending.text) == (exit_status, text)


def test_a_bug_in_a_command_keeps_its_hint_and_with_debug_its_traceback(straightshot, tmp_path, monkeypatch):
    def broken(home):
        raise ValueError("a bug of ours")

    monkeypatch.setattr("pipelines.status.status_of", broken)
    status, out, err = straightshot("status", "--home", tmp_path)
    assert (status, out, err) == (1, "", f"straightshot: ValueError: a bug of ours; {DEBUG_HINT}\n")
    status, _, err = straightshot("status", "--home", tmp_path, "--debug")
    assert status == 1 and "in broken" in err


def test_a_dry_run_shows_the_plan_and_touches_nothing(straightshot, tmp_path):
    home = tmp_path / "home"
    status, out, _ = straightshot("run", "--preset", "micro", "--home", home, "--dry-run")
    assert status == 0
    assert all(stage in out for stage in ("annotators", "filter", "promote"))
    assert not home.exists()


def test_status_of_an_empty_home_is_missing(straightshot, tmp_path):
    status, out, _ = straightshot("status", "--json", "--home", tmp_path / "home")
    assert status == 0
    assert out.count('"state": "missing"') == 8
    assert not (tmp_path / "home").exists()


def test_there_is_no_model_to_generate_with_before_the_first_run(straightshot, tmp_path):
    status, _, err = straightshot("generate", "a red circle", "--home", tmp_path)
    assert status == 2
    assert "straightshot run" in err and len(err.splitlines()) == 1


def test_there_is_nothing_to_evaluate_with_before_the_first_run(straightshot, tmp_path):
    status, _, err = straightshot("evaluate", "--home", tmp_path)
    assert status == 2
    assert "there was no run" in err and "straightshot run" in err and len(err.splitlines()) == 1


def test_models_of_an_empty_home_are_none(straightshot, tmp_path):
    status, out, _ = straightshot("models", "--home", tmp_path)
    assert status == 0
    assert "No model is registered" in out


def test_an_option_of_run_takes_several_values():
    options = ["run", "--force", "train", "distill", "--set", "a.b=1", "c.d=2", "--home", "h"]
    assert repeat_options(options) == [
        *("run", "--force", "train", "--force", "distill", "--set", "a.b=1", "--set", "c.d=2", "--home", "h")
    ]
    assert repeat_options(["generate", "--set", "a", "b"]) == ["generate", "--set", "a", "b"]
    assert repeat_options(["study", "--set", "a=1", "b=2", "captions"]) == (
        ["study", "--set", "a=1", "--set", "b=2", "captions"]
    )
    assert repeat_options(["run", "--select", "+train", "evaluate+"]) == [
        *("run", "--select", "+train", "--select", "evaluate+")
    ]


def test_debug_shows_the_traceback(straightshot, tmp_path):
    status, _, err = straightshot("run", "--preset", "mirco", "--debug", "--home", tmp_path)
    assert status == 2
    assert "Traceback" in err and err.splitlines()[-1].startswith("straightshot: ")


def test_a_refused_run_leaves_no_config_behind_and_holds_no_snapshots_name(straightshot, tmp_path):
    options = ["--preset", "micro", "--corpus", "toy:20", "--set", "toy.labelled=5", "--home", tmp_path]
    status, _, err = straightshot("run", *options, "--select", "train")
    assert status == 2 and "run it too: --select +train" in err
    options += ["--set", "train_snapshots=[gone]"]
    status, _, err = straightshot("run", *options)
    assert status == 2 and "no snapshot 'gone' is registered" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "run.json").exists() and not (tmp_path / "registered").exists()
