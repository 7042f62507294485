"""Which records changed their fate between two outputs of the filter, of rows that were made so."""

import pyarrow as pa
import pytest

from components.corpus.rejection import Rejection
from components.corpus.schemas import FILTERED, Reason
from pipelines.errors import ConfigError
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.records.diff import ABSENT, KEPT, Fate, diff
from pipelines.stage import Input, Stage, StageConfig, run_stage
from pipelines.stages.data.part_records import FILTERED_FOLDER, reject_row, write_table_part

SHORT, SPAM = Rejection(Reason.ALT_TOO_SHORT, "2 characters"), Rejection(Reason.ALT_SPAM, "buy now")


class Fates(StageConfig):
    fates: dict[str, str]


def write(work):
    """A part as the filter writes it: key -> kept, short or spam."""
    kept = [_row(key) for key, fate in work.config.fates.items() if fate == "kept"]
    rejects = [
        reject_row(
            "filter",
            {"key": key, "alt_text": f"text {key}", "url": None},
            {"short": SHORT, "spam": SPAM}[fate],
        )
        for key, fate in work.config.fates.items()
        if fate != "kept"
    ]
    table = pa.Table.from_pylist(kept, schema=FILTERED)
    return [write_table_part(work.parts, "part-00000", FILTERED_FOLDER, table, rejects)]


def _row(key):
    text = dict.fromkeys(("sha256", "phash", "language"), "x")
    values = {"key": key, "image": b"x", "alt_text": f"text {key}", "url": None, "width": 1, "height": 1}
    return {**values, **text, "judge_score": 0.5}


def make(home, snapshot="s", **fates):
    return run_stage(
        Stage("filter", 1, Fates, ("corpus",), write),
        Fates(fates=fates),
        {"corpus": (Input("corpus", "somewhere", "digest"),)},
        home=home,
        snapshot=snapshot,
        engine=Engine(),
        progress=Progress(quiet=True),
    ).fingerprint


def test_every_record_whose_fate_changed_is_named_with_both_fates(tmp_path):
    old = make(tmp_path, a="kept", b="kept", c="short", d="spam", e="kept")
    new = make(tmp_path, a="kept", b="spam", c="spam", d="spam", f="kept")
    found = diff(tmp_path, None, None)
    assert (found.before, found.after, found.same) == (f"filter/{old}", f"filter/{new}", 2)
    assert {change.key: (change.before, change.after) for change in found.changes} == {
        "b": (Fate(KEPT), Fate("alt_spam", "buy now")),
        "c": (Fate("alt_too_short", "2 characters"), Fate("alt_spam", "buy now")),
        "e": (Fate(KEPT), Fate(ABSENT)),
        "f": (Fate(ABSENT), Fate(KEPT)),
    }
    assert sum(found.moves.values()) == 4
    assert all(change.alt_text == f"text {change.key}" for change in found.changes)
    back = diff(tmp_path, new[:8], old[:8])
    assert {c.key: (c.after, c.before) for c in back.changes} == {
        c.key: (c.before, c.after) for c in found.changes
    }


def test_what_cannot_be_compared_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no output of the filter"):
        diff(tmp_path, None, None)
    one = make(tmp_path, a="kept")
    with pytest.raises(ConfigError, match="there is nothing to compare it with"):
        diff(tmp_path, None, None)
    other = make(tmp_path, snapshot="t", a="kept")
    with pytest.raises(ConfigError, match="a record of two snapshots is two records"):
        diff(tmp_path, one, other)
    with pytest.raises(ConfigError, match=f"'abc' names no output of the filter, or several.*{one}"):
        diff(tmp_path, "abc", other)
