"""Verdicts prompt by prompt: read from samples, stored and found again, compared in pairs."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import InputError
from pipelines.registry.mlflow_store import Tracker
from pipelines.registry.verdicts import (
    VERDICTS_FILE,
    Verdicts,
    differences,
    logged_verdicts,
    read_verdicts,
)

SHORT, LONG = (True, False, True), (False,)
TWO_FORMS = Verdicts("p", {"default": {"short": SHORT, "long": LONG}, "as_is": {"short": SHORT}})


def of(default: dict[str, int], prompts: str = "p", asked: int = 100) -> Verdicts:
    """form -> how many of its prompts are right."""
    forms = {form: tuple(i < right for i in range(asked)) for form, right in default.items()}
    return Verdicts(prompts, {"default": forms})


def write_samples(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def row(index: int, correct: bool | None, **changes: Any) -> dict[str, Any]:
    plain = {"form": "short", "mode": "default", "model": "student", "steps": 1, "image": b""}
    return {"index": index, "correct": correct, **plain, **changes}


def test_they_are_read_in_the_order_of_the_prompts_for_one_model_and_its_steps(tmp_path):
    default = [row(2, False), row(0, True), row(1, None), row(3, True, form="long")]
    others = [row(0, False, model="teacher"), row(0, False, steps=2), row(0, True, form=None)]
    first = write_samples(tmp_path / "default.parquet", default + others)
    second = write_samples(tmp_path / "as_is.parquet", [row(0, False, mode="as_is")])
    old = write_samples(tmp_path / "old.parquet", [{"index": 0, "follows": True}])
    assert read_verdicts([first, second, old], 1, "p") == Verdicts(
        "p", {"default": {"short": (True, False), "long": (True,)}, "as_is": {"short": (False,)}}
    )
    assert read_verdicts([first], 4, "p") is None
    assert read_verdicts([old], 1, "p") is None


def test_they_come_back_as_they_were_written():
    assert Verdicts.from_json(TWO_FORMS.to_json()) == TWO_FORMS
    assert '"short": "101"' in TWO_FORMS.to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"prompts": "p", "default": {"short": "12"}}'])
def test_what_is_none_is_named(text):
    with pytest.raises(InputError, match=r"verdicts\.json: not a model's verdicts"):
        Verdicts.from_json(text)


def test_they_are_found_in_the_run_that_logged_them(tmp_path):
    tracker = Tracker(tmp_path)
    with tracker.run("promote", "f") as run:
        run.log_text(TWO_FORMS.to_json(), VERDICTS_FILE)
    with tracker.run("promote", "damaged") as damaged:
        damaged.log_text("{", VERDICTS_FILE)
    with tracker.run("promote", "none") as none:
        pass
    assert logged_verdicts(tracker, run.id) == TWO_FORMS
    assert [logged_verdicts(tracker, gone) for gone in (damaged.id, none.id, "0" * 32)] == [None] * 3


def test_the_difference_is_of_the_mean_over_forms_and_certain_where_every_pair_agrees():
    candidate, champion = of({"short": 80, "long": 60}), of({"short": 90, "long": 60})
    (difference,) = differences(candidate, champion).values()
    assert difference.mean == pytest.approx(-0.05)
    assert difference.low < -0.05 < difference.high < 0
    same = differences(champion, champion)["default"]
    assert (same.low, same.mean, same.high) == (0, 0, 0)
    assert differences(candidate, champion) == differences(candidate, champion)


def test_only_the_same_prompts_make_pairs():
    ours = of({"short": 80})
    for theirs in (
        None,
        of({"short": 80}, prompts="q"),
        of({"short": 80}, asked=99),
        of({"short": 80, "long": 1}),
        Verdicts("p", {"as_is": {"short": SHORT}}),
    ):
        assert differences(ours, theirs) == {}
    assert differences(None, ours) == {}
    assert differences(of({"short": 1}, prompts=""), of({"short": 1}, prompts="")) == {}
