"""`straightshot study` on a finished micro run: trained, measured, gone on with, and on the page."""

import json
import shutil

import pytest

STUDY = """
title: Guidance of a student
question: How much guidance should a student absorb?
model: student
seeds: 2
seeded: [distill.seed]
base: [distill.images=64, evaluate.prompts_per_form=2]
variants:
  without: [distill.consistency.guidance=1]
  with 3: [distill.consistency.guidance=3]
measures:
  - {label: exact, value: prompt_following.mean, steps: 1}
  - {label: Fréchet, value: frechet, steps: 2, higher_is_better: false}
signs:
  - {measure: Fréchet, better: with 3, worse: without, source: nobody}
"""


def test_a_study_trains_measures_and_goes_on_where_it_was(micro_home, tmp_path, straightshot):
    home, file = tmp_path / "home", tmp_path / "guidance.yaml"
    shutil.copytree(micro_home, home, ignore=shutil.ignore_patterns("mlflow*"))  # which names its own HOME
    file.write_text(STUDY, encoding="utf-8")
    arguments = ("study", file, "--preset", "micro", "--home", home)
    assert "4 trainings, 4 of them to be made" in straightshot(*arguments, "--dry-run").out
    status, out, err = straightshot(*arguments, "--json")
    assert status == 0, err
    table = json.loads(out)
    (made,) = (path for path in (home / "study").iterdir() if path.is_dir())
    measured = {path.name: json.loads(path.read_text()) for path in (made / "cells").iterdir()}
    assert sorted(measured) == ["0-without-0.json", "0-without-1.json", "1-with-3-0.json", "1-with-3-1.json"]
    frechet = [cell["mean"] for cell in (row[1] for row in table["rows"].values())]
    by_hand = [
        sum(measured[f"{name}-{seed}.json"]["2"]["frechet"] for seed in (0, 1)) / 2
        for name in ("0-without", "1-with-3")
    ]
    assert frechet == pytest.approx(by_hand)
    assert table["signs"][0]["difference"]["mean"] == pytest.approx(by_hand[0] - by_hand[1])

    models = {path: path.stat().st_mtime_ns for path in (home / "distill").glob("*/model/model.safetensors")}
    assert len(models) == 5  # the run's own, and the study's
    shutil.rmtree(made)  # as if killed before it had measured anything
    again = straightshot(*arguments)
    assert again.status == 0
    assert json.loads((made / "table.json").read_text()) == table
    assert {path: path.stat().st_mtime_ns for path in models} == models
    sign = table["signs"][0]
    low, high = sign["difference"]["low"], sign["difference"]["high"]
    verdict = "agrees" if low > 0 else "DISAGREES" if high < 0 else "undecided"  # which, two seeds decide
    assert f"{verdict}: by Fréchet, 'with 3' better than 'without'" in again.out
    page = (home / "report.html").read_text(encoding="utf-8")
    assert page.count("Guidance of a student") >= 2  # the heading, and the figure's description
