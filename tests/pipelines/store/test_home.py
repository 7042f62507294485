"""HOME: made, writable, with room; a folder, or in a bucket."""

import os

import pytest

from pipelines.errors import ConfigError
from pipelines.store.home import HOME_VARIABLE, home_path, open_home


@pytest.mark.parametrize("url", ["s3://bucket", "s3:/bucket/", "gs://b/runs", "file:///tmp/x", "memory://"])
def test_a_url_is_refused_in_one_line_and_nothing_is_written(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    for open_it in (home_path, open_home):
        with pytest.raises(
            ConfigError, match=r"^HOME \w+://\S*: HOME is a folder, or s3://BUCKET/PREFIX; give one"
        ) as error:
            open_it(url)
        assert len(str(error.value).splitlines()) == 1
    monkeypatch.setenv(HOME_VARIABLE, url)
    with pytest.raises(ConfigError, match="HOME is a folder"):
        open_home(None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["runs", "a:b", "2026-11-20T10:00", "C:/runs"])
def test_a_folder_is_made_whatever_its_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert open_home(name) == tmp_path / name
    assert list((tmp_path / name).iterdir()) == []


def test_what_a_killed_process_left_is_swept_when_it_is_old(tmp_path):
    for name, age in (("report.html.tmp-1", 2 * 86400), ("run.json.tmp-2", 60)):
        (tmp_path / name).write_text("")
        times = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (times, times))
    open_home(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json.tmp-2"]
