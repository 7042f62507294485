"""The report page: self-contained, complete, safe against what a crawl holds, and readable without sight."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from components.evaluation.results import Evaluation, Metrics
from components.reporting.report import TEXT_SHOWN, render_report, write_report
from components.reporting.report_data import (
    GateCheck,
    GateVerdict,
    RejectedRecord,
    RejectedRecords,
)
from tests.components.reporting.small_report import BARE, HOSTILE, whole_run

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.text += " "
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def test_the_page_needs_nothing_outside_itself_and_runs_nothing():
    text = render_report(whole_run())
    page = Page(text)
    assert not page.open, "a tag is left open"
    assert not page.all("script") and not page.all("iframe")
    assert not re.search(r"\son\w+=", re.sub(r">[^<]*<", "><", text)), "an event handler"
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
    assert not re.search(r"@import|url\((?!#)", text)


def test_every_section_says_what_the_run_did():
    words = Page(render_report(whole_run())).words
    for shown in (
        "One step draws 78% of prompts exactly",
        "toy:40, preset micro",
        "Web records kept 69% 690 of 1,000",
        "Faster an image 100×",
        "passed now champion, version 3",
        "✓ passed: prompt following 0.780 ≥ 0.500 – not checked: no champion",
        "raw corpus 1,000",
        "Turned away by filter: 300 of 1,000",
        "a web address alt_url Alt text 250 25%",
        "images seen t0.0-0.5 mean 64 0.75 0.625 96 0.25 0.375",
        "failed while it was worked on errored Error 1 0.1%",
        "Turned away by recaption: 10 of 700",
        "Student, 1 step 0.780 exact, by the default command; 95%: 0.750–0.800; teacher 0.800",
        "Student, 1 step 0.540 exact, prompts as they are; teacher 0.600",
        "Coverage above floor +0.125 distance to the corpus 0.250, floor 0.125",
        "teacher, 50 steps 0.800 0.770–0.820 100% 0.80 0.80",
        "undistilled, 1 step 0.400 0.370–0.420 50% 0.40 0.40",
        "student, 1 step 0.540 90% 0.54 0.54",
        "scorer, on true renders 0.995 0.99 1.00",
        "By GenEval’s looser rules, by the default command",
        "student, 1 step 0.250 0.125 floor 0.125",
        "student, 1 step 0.5 0.250 floor 0.25 –",
        "student, 1 step 1 2.0 ms –",
        "Protocol 5a5a5a5a5a5a",
        "Protocol 6b6b6b6b6b6b",
        "Right ✓ short a blue square generated from a large blue square (rewritten)",
        "Wrong ✗ long A green star generated from the prompt as it is (refused: words)",
        "what exact means",
        "protocol one at exact now 0.900 protocol two at exact then 0.983",
        "Captions Entirely true Complete short 0.970 – long 0.940 0.910",
        "alt text 0.10 shape short 0.30 a red circle long 0.40 a large red circle on white",
        "filter 1,000 700 299 1 3.5 s 900 MB abababababab",
        "train – – – – 1 min 01 s 1,800 MB",
        "all 1 min 14 s 1,800 MB",
        "4f" * 32,
        "torch 2.13.0",
        "straightshot ui look around",
        "does not follow the prompt",
        "no alt text (null)",
        "empty alt text",
    ):
        assert shown in words, shown


def test_a_run_that_has_only_begun_says_which_stages_are_missing():
    page = Page(render_report(BARE))
    assert "This run has not been evaluated yet" in page.words
    for stage in ("evaluate", "filter", "recaption", "train"):
        assert f"straightshot run --select {stage}+" in page.words
    assert {link["href"][1:] for link in page.all("a") if link["href"] != "#main"} <= {
        section.get("id") for section in page.all("section")
    }


def test_a_refused_model_is_said_to_be_refused_and_why():
    refused = GateVerdict(False, "4", (GateCheck("Fréchet distance 9 > 1", False),))
    words = Page(render_report(replace(whole_run(), promotion=refused))).words
    assert "refused the champion stays" in words
    assert "The gate: refused ✗ failed: Fréchet distance 9 > 1" in words


def test_a_corpus_without_a_scorer_is_shown_by_its_judge():
    data = whole_run()
    unscored = tuple(
        Evaluation(e.model, e.steps, e.images, {"judge_score": 0.25}) for e in data.metrics.evaluations
    )
    words = Page(render_report(replace(data, metrics=Metrics(unscored, {}), judged=()))).words
    assert "One step reaches 100% of the teacher" in words
    assert "judge score; teacher 0.250" in words and "scorer, on true renders" not in words
    assert "Exact prompt following" not in words and "no image is called right or wrong" in words


def test_metrics_of_an_older_version_are_not_called_exact():
    """Their prompts counted as followed by looser rules, and as they are they were not measured."""
    older = tuple(
        Evaluation(model, steps, 60, {"frechet": 0.5}, {"colors": 0.98})
        for model, steps in (("teacher", 50), ("student", 1))
    )
    words = Page(render_report(replace(whole_run(), metrics=Metrics(older, {"colors": 1.0})))).words
    assert "One step draws 98% of prompts" in words and "As an older version" in words
    assert "Exact prompt following" not in words and "98% of prompts exactly" not in words


def test_hostile_text_is_shown_and_not_obeyed():
    text = render_report(whole_run())
    assert "&lt;img src=x onerror=" in text
    assert "<img src=x" not in text
    assert not set("\x00\u202e\ud800") & set(text)
    text.encode("utf-8")


def test_a_hostile_reason_for_a_missing_image_stays_words():
    (group, *_) = whole_run().rejected
    hostile = RejectedRecord(None, HOSTILE, HOSTILE, HOSTILE, f"cut {HOSTILE}")
    page = Page(render_report(replace(BARE, rejected=(replace(group, examples=(hostile,)),))))
    assert not page.open and not page.all("img")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.words.count("<img src=x onerror=") == 4


def test_rejects_are_shown_by_stage_and_reason_and_copies_beside_their_originals():
    page = Page(render_report(whole_run()))
    for shown in (
        "By filter cannot be decoded image_broken 12 records not a <JPEG>",
        "no alt text alt_missing 3 records no alt text (null) empty alt text nearly the same image again",
        "near_duplicate 1 record a copy of it withdrawn (a takedown) withdrawn 2 records What was withdrawn",
        "By recaption the caption does not fit the image caption_score 1 record",
    ):
        assert shown in page.words, shown
    words = [image["alt"] for image in page.all("img")]
    copy = words.index("Copy, nearly the same image again")
    assert words[copy + 1] == "What it is a copy of"


def test_what_the_rule_found_is_not_said_twice_of_an_image_that_cannot_be_shown():
    record = RejectedRecord(None, "a text", detail="PNG without an end", problem="PNG without an end")
    group = RejectedRecords("filter", "image_broken", 1, (record,))
    words = Page(render_report(replace(BARE, rejected=(group,)))).words
    assert words.count("PNG without an end") == 1 and "no image to show a text PNG without an end" in words


def test_crawled_text_is_bounded():
    long = RejectedRecord(
        None, "word " * 100_000, "https://x.example/" + "y" * 100_000, "z" * 100_000, "p" * 100_000
    )
    rejected = (RejectedRecords("filter", "alt_too_long", 1, (long,)),)
    assert len(render_report(replace(BARE, rejected=rejected))) < len(render_report(BARE)) + 14 * TEXT_SHOWN


def test_every_image_and_plot_has_words_for_who_cannot_see_it():
    page = Page(render_report(whole_run()))
    assert all(image.get("alt") for image in page.all("img"))
    graphics = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    assert graphics and all(svg.get("role") == "img" and svg.get("aria-label") for svg in graphics)
    assert "generated from a small red circle at left" in page.words
    assert "Wrong image of “A green star”" in {image["alt"] for image in page.all("img")}
    assert "“a red circle” generated by the student in 1 step" in {image["alt"] for image in page.all("img")}
    assert all(header.get("scope") for header in page.all("th"))
    assert page.tags[0][0] == "html" and page.tags[0][1]["lang"] == "en"


def test_the_same_run_is_the_same_page(tmp_path: Path):
    first, second = tmp_path / "a.html", tmp_path / "b.html"
    assert write_report(first, whole_run()) == first
    write_report(second, whole_run())
    assert first.read_bytes() == second.read_bytes()
    write_report(first, BARE)  # a report is replaced whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]
