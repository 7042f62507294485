"""Events of workers: every line arrives once, whole and in order, and an error arrives as an error."""

import pytest

from components.errors import InputError
from pipelines.errors import StageFailed, UnexpectedError
from pipelines.execution.worker_events import EventReader, EventWriter


def test_every_event_arrives_once_and_with_its_workers_name(tmp_path):
    reader = EventReader(tmp_path)
    assert reader.poll() == []
    first, second = EventWriter(tmp_path, "0"), EventWriter(tmp_path, "1")
    first.write(start=0)
    second.write(images=8)
    first.write(images=16)
    assert reader.poll() == [("0", {"start": 0}), ("0", {"images": 16}), ("1", {"images": 8})]
    second.write(images=24)
    assert reader.poll() == [("1", {"images": 24})]
    assert reader.poll() == []


def test_half_a_line_waits_for_its_other_half(tmp_path):
    reader = EventReader(tmp_path)
    with (tmp_path / "0.jsonl").open("w") as file:
        file.write('{"images": ')
        file.flush()
        assert reader.poll() == []
        file.write("8}\n")
        file.flush()
        assert reader.poll() == [("0", {"images": 8})]


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (InputError("labelled set: empty"), StageFailed, "labelled set: empty"),
        (KeyError("alt_text"), UnexpectedError, "KeyError: 'alt_text'"),
    ],
)
def test_an_error_is_raised_where_it_is_read_too(tmp_path, error, kind, text):
    with pytest.raises(type(error)), EventWriter(tmp_path, "0").reporting(Exception):
        raise error
    with pytest.raises(kind) as raised:
        EventReader(tmp_path).poll()
    assert str(raised.value) == text
    assert "test_worker_events.py" in raised.value.__notes__[0]


def test_an_error_that_is_not_reported_passes_without_an_event(tmp_path):
    with pytest.raises(RuntimeError), EventWriter(tmp_path, "0").reporting(OSError):
        raise RuntimeError("a peer is gone")
    assert EventReader(tmp_path).poll() == []
