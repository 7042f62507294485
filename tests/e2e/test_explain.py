"""`straightshot explain`: an alt text's verdict, as the filter of the last run would have it."""

import json

import pytest

from pipelines.config import load_config, save_config


def test_texts_and_a_file_are_explained_by_the_rules_of_the_last_run(straightshot, tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text('"ein Fuchs im Schnee"\nnull\n{"alt_text": "photo.jpg", "url": "u"}\n', encoding="utf-8")
    arguments = ("explain", "a fox &amp; a hen", "--file", file, "--json", "--home", tmp_path)
    objects = [json.loads(line) for line in straightshot(*arguments).out.splitlines()]
    assert [one["verdict"] for one in objects] == ["keep", "keep", "reject", "reject"]
    assert [one["reason"] for one in objects] == [None, None, "alt_missing", "alt_filename"]
    assert objects[0]["cleaned"] == "a fox & a hen"
    save_config(load_config("micro"), tmp_path)  # whose filter wants English
    objects = [json.loads(line) for line in straightshot(*arguments).out.splitlines()]
    assert [one["reason"] for one in objects] == [None, "alt_language", "alt_missing", "alt_filename"]
    out = straightshot("explain", "photo.jpg").out
    assert "  reject, alt_filename: extension .jpg\n" in out
    assert "✗ file name: extension .jpg\n" in out


def test_what_json_may_hold_is_explained(straightshot, tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text('"a fox \\ud800 in the snow"\n\n"a fox\u2028in the snow"\n', encoding="utf-8")
    for options in ((), ("--json",)):
        result = straightshot("explain", "--file", file, "--home", tmp_path, *options)
        assert (result.status, result.err) == (0, "") and result.out.count("in the snow") >= 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ('"fine"\nnot json\n', "line 2: not JSON"),
        ('{"text": "x"}\n', "line 1: no text, no null, and no object with alt_text"),
    ],
)
def test_a_file_that_holds_no_texts_is_one_line(straightshot, tmp_path, content, message):
    file = tmp_path / "texts.jsonl"
    if content is not None:
        file.write_text(content)
    status, out, err = straightshot("explain", "--file", file)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert message in err
