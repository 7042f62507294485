"""The run's page is gathered from what the stages left: their receipts, parts, curves and decisions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.captioning.kinds import CAPTION_KINDS
from components.corpus.schemas import CORPUS, captioned_schema
from components.evaluation.results import Evaluation, Metrics
from components.filtering.alt_text import AltTextRules
from components.toyworld.web import write_toy_web
from pipelines.config import RunConfig
from pipelines.execution.progress import Progress
from pipelines.graph import stage_named
from pipelines.planning.planned import Planned, State
from pipelines.registry.journal import PROMOTE, Change, Journal
from pipelines.registry.mlflow_store import Tracker
from pipelines.report import PAGE, write_run_report
from pipelines.report_data import collect
from pipelines.report_samples import JUDGED_SHOWN, judged_images
from pipelines.stage import Input, run_stage
from pipelines.stages import filter as filter_stage
from pipelines.stages.data.reject_examples import SHOWN
from pipelines.store.receipts import Counts, FileEntry, Receipt
from tests.pipelines.one_by_one import OneByOne
from tests.small_judge import save_judge

ROWS = 240


def fresh(
    home: Path, name: str, counts: dict[str, int] | None = None, info: dict[str, Any] | None = None
) -> Planned:
    """A finished stage, of the files that lie in HOME/<name>/made."""
    out = home / name / "made"
    files = tuple(
        FileEntry(path=path.relative_to(out).as_posix(), bytes=path.stat().st_size, sha256="0" * 64)
        for path in sorted(out.rglob("*"))
        if path.is_file()
    )
    receipt = Receipt(
        stage=name,
        version=1,
        snapshot="default",
        fingerprint="made",
        config={},
        inputs={},
        input_fingerprints={},
        libraries={"torch": "2.13.0"},
        counts=Counts.model_validate(counts or {}),
        reasons={},
        info=info or {},
        files=files,
        digest=f"digest of {name}",
        seconds=2.0,
        peak_rss_mb=100.0,
        finished_at="2026-11-21T09:12:00+00:00",
    )
    return Planned(stage_named(name), "default", State.FRESH, "", "made", out, receipt)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def config(home) -> RunConfig:
    toy = write_toy_web(home / "crawl", records=ROWS, seed=4, labelled=1)
    return RunConfig(corpus=f"parquet:{toy.web}")


@pytest.fixture(scope="module")
def filtered(home, config) -> Planned:
    """A real output of the filter stage: the page must find the rejected records' images by its keys."""
    save_judge(home / "annotators" / "made" / "judge")
    receipt = run_stage(
        filter_stage.STAGE,
        filter_stage.FilterConfig(rows_per_fragment=64, alt_text=AltTextRules(languages=("en",))),
        {
            "corpus": (Input("corpus", config.corpus, "c" * 64),),
            "annotators": (Input("annotators", str(home / "annotators" / "made"), "a" * 64),),
        },
        home=home,
        snapshot="default",
        engine=OneByOne(),
        progress=Progress(quiet=True),
    )
    out = home / "filter" / receipt.fingerprint
    return Planned(filter_stage.STAGE, "default", State.FRESH, "", receipt.fingerprint, out, receipt)


@pytest.fixture(scope="module")
def plan(home, filtered) -> list[Planned]:
    """A whole run: a real filter output, and small outputs of the other stages in their own forms."""
    rows = [
        row
        for path in sorted((filtered.path / "filtered").iterdir())
        for row in pq.ParquetFile(path).read().to_pylist()
    ]
    captions = {"captioner": "c", "prompt_hash": "h", "score_short": 0.5, "score_long": 0.6}
    captioned = [{**row, "caption_short": "short", "caption_long": "long", **captions} for row in rows]
    for number in range(3):
        write_table(
            home / "recaption/made/captioned" / f"part-{number:05d}.parquet",
            captioned[number::3],
            captioned_schema(CAPTION_KINDS),
        )
    for stage, losses in (("train", [1.0, 0.5]), ("distill", [0.25, 0.125])):
        points = [{"images_seen": 32 * (i + 1), "values": {"loss": loss}} for i, loss in enumerate(losses)]
        if stage == "train":
            points[-1]["values"] |= {"validation_loss": 0.7, "validation_loss_t0.0-0.2": 0.9}
        write_text(home / stage / "made" / "curve.json", json.dumps(points))
    write_evaluation(home / "evaluate" / "made", rows[0]["image"])
    decision = {"verdict": "promoted", "checks": [{"name": "x", "passed": True, "text": "good enough"}]}
    write_text(home / "promote" / "made" / "decision.json", json.dumps(decision))
    counts = {"in": len(rows), "kept": len(rows)}
    truth = {"short": {"entirely_true": 0.95}, "long": {"entirely_true": 0.9, "complete": 0.8}}
    return [
        fresh(home, "annotators", info={"caption_truth": truth}),
        filtered,
        fresh(home, "recaption", counts),
        fresh(home, "train"),
        fresh(home, "distill"),
        fresh(home, "evaluate"),
        fresh(home, "promote", info={"version": "7"}),
    ]


FORMS = ("short", "long")
PROMPTS = 4  # the forms take turns


def write_evaluation(out: Path, image: bytes) -> None:
    """Not all images of prompt 1 are kept. Right are the even prompts by default, the odd ones as is."""
    metrics = {"frechet": 1.0, "judge_score": 0.5}
    evaluations = tuple(
        Evaluation(model, steps, PROMPTS, metrics, {"short": 0.5}, {"short": 0.5}, seconds_per_image=0.1)
        for model, steps in (("teacher", 50), ("undistilled", 1), ("student", 1), ("student", 2))
    )
    write_text(out / "metrics.json", Metrics(evaluations, {}).to_json())
    write_text(out / "timings.json", Metrics(evaluations, {}).timings_json())
    for evaluation in evaluations:
        rows = [
            {
                "index": index,
                "prompt": f"prompt {index}",
                "caption": f"caption {index}" if mode == "default" else f"prompt {index}",
                "how": "rewritten" if mode == "default" else "kept",
                "form": FORMS[index % 2],
                "category": None,
                "mode": mode,
                "model": evaluation.model,
                "steps": evaluation.steps,
                "correct": (index % 2 == 0) == (mode == "default"),
                "image": image if index != 1 or evaluation.model == "student" else None,
            }
            for mode in ("default", "as_is")
            for index in range(PROMPTS)
        ]
        write_table(out / "samples" / f"{evaluation.model}-{evaluation.steps}.parquet", rows)


def write_table(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_rejects_are_gathered_by_reason_with_the_images_that_were_stored(home, config, plan, filtered):
    """The texts cleaned; where nothing was stored, the image is said to be missing."""
    groups = collect(home, config, plan).rejected
    often = filtered.receipt.reasons
    assert [(group.stage, group.reason, group.records) for group in groups] == [
        ("filter", reason, often[reason]) for reason in sorted(often, key=lambda r: (-often[r], r))
    ]
    for group in groups:
        assert len(group.examples) == min(SHOWN, group.records)
        assert all(bool(example.thumbnail) != bool(example.problem) for example in group.examples)
    by_reason = {group.reason: group.examples for group in groups}
    assert all(example.original for example in by_reason["near_duplicate"])
    assert not any(example.original for example in by_reason["alt_missing"])
    assert all("&amp;" not in (example.alt_text or "") for group in groups for example in group.examples)

    files = [e for e in filtered.receipt.files if not e.path.startswith("reject_examples/")]
    receipt = filtered.receipt.model_copy(update={"files": tuple(files)})
    older = collect(home, config, [replace(filtered, receipt=receipt)]).rejected
    assert [(group.reason, len(group.examples)) for group in older] == [
        (group.reason, len(group.examples)) for group in groups
    ]
    assert {example.problem for group in older for example in group.examples} == {"no small image is stored"}


def test_the_whole_run_is_gathered(home, config, plan, filtered):
    data = collect(home, config, plan)
    assert [row.stage for row in data.stages] == [one.stage.name for one in plan]
    rows = {row.stage: row for row in data.stages}
    assert (rows["filter"].records_in, rows["filter"].kept) == (ROWS, filtered.receipt.counts.kept)
    assert rows["train"].records_in is None
    assert rows["filter"].rejects == filtered.receipt.reasons
    assert len(data.kept) == 12 and all(example.image and example.alt_text for example in data.kept)
    assert [[c.kind for c in e.captions] for e in data.captions] == [["alt text", "short", "long"]] * 8
    assert [(e.captions[1].text, e.captions[2].score) for e in data.captions] == [
        ("short", pytest.approx(0.6))
    ] * 8
    assert [(c.stage, c.model, list(c.images_seen), list(c.values)) for c in data.losses] == [
        ("train", "teacher", [32, 64], [1.0, 0.5]),
        ("distill", "student", [32, 64], [0.25, 0.125]),
    ]
    assert [c.held_out for c in data.losses] == [((64, {"t0.0-0.2": 0.9, "mean": 0.7}),), ()]
    truth = [(t.kind, t.entirely_true, t.complete) for t in data.caption_truth]
    assert truth == [("short", 0.95, None), ("long", 0.9, 0.8)]
    assert [(s.prompt, s.caption, s.kind) for s in data.samples] == [
        ("prompt 0", "caption 0", "short"),
        ("prompt 2", "caption 2", "short"),
        ("prompt 3", "caption 3", "long"),
    ]
    assert [(c.model, c.steps, c.correct) for c in data.samples[0].cells] == [
        ("teacher", 50, True),
        ("undistilled", 1, True),
        ("student", 1, True),
        ("student", 2, True),
    ]
    assert data.metrics.of("student", 1).mean == 0.5
    assert data.metrics.of("student", 1).seconds_per_image == 0.1
    assert data.problems == ()
    assert (data.promotion.promoted, data.promotion.version) == (True, "7")
    assert data.digests["corpus"] == "c" * 64 and data.digests["train"] == "digest of train"


def test_right_and_wrong_images_are_of_the_judged_student_with_what_each_was_generated_from(
    home, config, plan
):
    default, as_is = collect(home, config, plan).judged
    assert default.title == "student, 1 step, by the default command"
    assert as_is.title == "student, 1 step, prompts as they are"
    assert [(i.prompt, i.caption, i.how, i.correct) for i in (*default.right, *default.wrong)] == [
        ("prompt 0", "caption 0", "rewritten", True),
        ("prompt 2", "caption 2", "rewritten", True),
        ("prompt 1", "caption 1", "rewritten", False),
        ("prompt 3", "caption 3", "rewritten", False),
    ]
    assert [(i.prompt, i.caption, i.how) for i in as_is.right] == [
        ("prompt 1", None, "kept"),
        ("prompt 3", None, "kept"),
    ]


def test_no_form_crowds_out_the_others():
    row = {"model": "student", "steps": 1, "mode": "default", "correct": True, "image": b"", "caption": None}
    rows = [{**row, "prompt": f"short {i}", "form": "short"} for i in range(20)]
    rows += [{**row, "prompt": "long 0", "form": "long"}, {**row, "prompt": "of two steps", "steps": 2}]
    (shown,) = judged_images(rows, 1)
    assert [image.prompt for image in shown.right][:3] == ["short 0", "long 0", "short 1"]
    assert len(shown.right) == JUDGED_SHOWN and shown.wrong == ()


def test_models_of_two_protocols_are_shown_in_two_tables(home, config, plan, tmp_path):
    journal = Journal(Tracker(tmp_path))

    def promoted(
        to: str, prompts: str, reference: str, model: str = "straightshot", **metrics: float
    ) -> None:
        protocol = {"prompts_digest": prompts, "reference_digest": reference, "steps": 1} if prompts else {}
        change = Change(PROMOTE, model, None, to, metrics=metrics, protocol=protocol)
        journal.finish(journal.begin(change))

    promoted("1", "", "")
    promoted("2", "old", "r", prompt_following=0.983)
    promoted("3", "new", "r", prompt_following=0.8, prompt_following_as_is=0.6, frechet=2.0)
    promoted("4", "new", "s", prompt_following=0.9, prompt_following_as_is=0.7, frechet=1.0)
    promoted("9", "new", "s", model="another")
    history = collect(tmp_path, config, []).history
    assert [group.title.split(" by ")[-1] for group in history.groups] == [
        "protocol new, 1 step",
        "protocol old, 1 step",
        "Not measured, or not known how",
    ]
    columns = [history.columns.index(name) for name in ("version", "exact", "as is", "Fréchet")]
    rows = [[tuple(row[i] for i in columns) for row in group.rows] for group in history.groups]
    assert rows[0] == [("4", "0.900", "0.700", "1"), ("3", "0.800", "0.600", "–")]  # another reference
    assert rows[1] == [("2", "0.983", "–", "–")] and rows[2] == [("1", "–", "–", "–")]
    assert collect(home, config, plan).history is None


def test_the_page_is_written_under_home_and_again_over_itself(home, config, plan):
    path = write_run_report(home, config, plan)
    assert path == home / PAGE
    first = path.read_bytes()
    assert write_run_report(home, config, plan).read_bytes() == first
    assert b"good enough" in first and b"prompt 2" in first


def test_a_run_that_has_done_nothing_has_a_page(tmp_path, config):
    planned = [Planned(stage_named("filter"), "default", State.MISSING, "never ran")]
    assert "has not been evaluated yet" in write_run_report(tmp_path, config, planned).read_text()


def test_a_refused_model_is_shown_although_its_stage_has_no_receipt(tmp_path, config):
    decision = {"verdict": "refused", "checks": [{"name": "x", "passed": False, "text": "too weak"}]}
    write_text(tmp_path / "promote" / "made" / "decision.json", json.dumps(decision))
    failed = Planned(
        stage_named("promote"), "default", State.FAILED, "refused", "made", tmp_path / "promote/made"
    )
    promotion = collect(tmp_path, config, [failed]).promotion
    assert (promotion.promoted, promotion.version) == (False, None)
    assert [check.text for check in promotion.checks] == ["too weak"]


def test_files_that_cannot_be_read_are_named_on_the_page_and_the_rest_is_shown(tmp_path, config):
    write_text(tmp_path / "evaluate/made/metrics.json", '{"teacher": 1')
    write_text(tmp_path / "promote/made/decision.json", '{"verdict": "promoted"}')
    write_text(tmp_path / "train/made/curve.json", '[{"images_seen": 32, "values": {"loss": 0.5}}]')
    planned = [fresh(tmp_path, name) for name in ("train", "evaluate", "promote")]
    data = collect(tmp_path, config, planned)
    assert (data.metrics, data.promotion, len(data.losses)) == (None, None, 1)
    metrics, decision = data.problems
    assert metrics.startswith(f"{tmp_path / 'evaluate/made/metrics.json'}: not a metrics.json")
    assert decision.startswith(f"{tmp_path / 'promote/made/decision.json'}: not a gate's decision")
    page = write_run_report(tmp_path, config, planned).read_text()
    assert page.count("<li>" + str(tmp_path)) == 2


def test_a_hostile_corpus_does_not_break_its_page(home, filtered, tmp_path):
    """Records that nothing can decode: rejected by the filter, and shown as what they are."""
    image = Image.new("RGB", (64, 64))
    bad = [b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, image.tobytes(), b"<svg onload=alert(1)>"]
    rows = [
        {"image": data, "alt_text": f"a red circle number {i}", "url": f"u{i}"} for i, data in enumerate(bad)
    ]
    rows.append({"image": None, "alt_text": "<script>alert(1)</script>", "url": None})
    good = next((filtered.path / "filtered").iterdir())
    keep = pq.ParquetFile(good).read().to_pylist()[0]
    rows.append({name: keep[name] for name in CORPUS.names})
    write_table(tmp_path / "web.parquet", rows, CORPUS)
    receipt = run_stage(
        filter_stage.STAGE,
        filter_stage.FilterConfig(),
        {
            "corpus": (Input("corpus", f"parquet:{tmp_path / 'web.parquet'}", "c" * 64),),
            "annotators": (Input("annotators", str(home / "annotators" / "made"), "a" * 64),),
        },
        home=tmp_path,
        snapshot="default",
        engine=OneByOne(),
        progress=Progress(quiet=True),
    )
    out = tmp_path / "filter" / receipt.fingerprint
    planned = [Planned(filter_stage.STAGE, "default", State.FRESH, "", receipt.fingerprint, out, receipt)]
    page = write_run_report(
        tmp_path, RunConfig(corpus=f"parquet:{tmp_path / 'web.parquet'}"), planned
    ).read_text()
    assert page.count("image broken") == 5
    assert "<script>" not in page and "&lt;script&gt;" in page
