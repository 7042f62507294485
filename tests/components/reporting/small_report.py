"""What a whole run has to report, made up, with hostile text in it."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from components.evaluation.bootstrap import Interval
from components.evaluation.results import Evaluation, Metrics
from components.reporting.plots import LossCurve
from components.reporting.report_data import (
    AltExample,
    CaptionExample,
    CaptionTruth,
    GateCheck,
    GateVerdict,
    GeneratedCell,
    JudgedImage,
    JudgedImages,
    ModelGroup,
    ModelHistory,
    PromptSample,
    RejectedRecord,
    RejectedRecords,
    ReportData,
    ScoredCaption,
    StageRow,
)

BARE = ReportData(corpus="toy:40", preset="micro", snapshot="default", home="runs", finished="2026-11-21")


HOSTILE = '</script><img src=x onerror="alert(1)"> \x00\u202e\ud800 & "quoted"'


def encoded(form: str = "PNG", side: int = 32, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, len(mode)), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels, mode).save(data, form)
    return data.getvalue()


def evaluation(model: str, steps: int, default: float, as_is: float, **timings: float) -> Evaluation:
    return Evaluation(
        model,
        steps,
        60,
        {"coverage": 0.25, "frechet": 0.5, "judge_score": 0.25},
        {"short": default, "geneval": default},
        {"short": as_is, "geneval": as_is},
        {"colors": 0.96},
        {"colors": 0.86},
        {"prompt_following": Interval(default - 0.03, default + 0.02, default)},
        **timings,
    )


def whole_run() -> ReportData:
    cells = tuple(
        GeneratedCell(model, steps, encoded(), correct=steps != 1)
        for model, steps in (("teacher", 50), ("student", 1), ("student", 2), ("student", 4))
    )
    return replace(
        BARE,
        stages=(
            StageRow(
                "filter",
                3.5,
                900,
                "ab" * 8,
                1000,
                700,
                299,
                1,
                {"alt_url": 250, "duplicate": 49, "errored": 1},
            ),
            StageRow("recaption", 9.0, 1200, "cd" * 8, 700, 690, 10, 0, {"caption_score": 10}),
            StageRow("shard", 1.0, 600, "ef" * 8, 690, 690, 0, 0),
            StageRow("train", 61.0, 1800, "01" * 8),
        ),
        kept=(AltExample(encoded("JPEG"), "a red circle", "https://toy.example/1", judge_score=0.41),),
        rejected=(
            RejectedRecords(
                *("filter", "image_broken", 12),
                (RejectedRecord(None, HOSTILE, "https://toy.example/2", "cut short", "not a <JPEG>"),),
            ),
            RejectedRecords(
                *("filter", "alt_missing", 3),
                (RejectedRecord(encoded("JPEG"), None), RejectedRecord(encoded("JPEG"), "  ")),
            ),
            RejectedRecords(
                *("filter", "near_duplicate", 1),
                (RejectedRecord(encoded("JPEG"), "a copy", detail="of it", original=encoded("JPEG")),),
            ),
            RejectedRecords("filter", "withdrawn", 2),
            RejectedRecords("recaption", "caption_score", 1, (RejectedRecord(encoded("JPEG"), "a text"),)),
        ),
        captions=(
            CaptionExample(
                encoded(),
                (
                    ScoredCaption("alt text", "shape", 0.1),
                    ScoredCaption("short", "a red circle", 0.3),
                    ScoredCaption("long", "a large red circle on white", 0.4),
                ),
            ),
        ),
        losses=(
            LossCurve(
                "train",
                "teacher",
                [32, 64, 96],
                [1.0, 0.5, 0.25],
                held_out=[(64, {"t0.0-0.5": 0.75, "mean": 0.625}), (96, {"t0.0-0.5": 0.25, "mean": 0.375})],
            ),
            LossCurve("distill", "student", [32, 64], [0.5, 0.125]),
        ),
        caption_truth=(CaptionTruth("short", 0.97, None), CaptionTruth("long", 0.94, 0.91)),
        samples=(PromptSample("a red circle", cells, "single_object", "a small red circle at left"),),
        judged=(
            JudgedImages(
                "student, 1 step, by the default command",
                (JudgedImage("a blue square", encoded(), True, "short", "a large blue square", "rewritten"),),
                (JudgedImage("A green star", encoded(), False, "long", None, "refused: words"),),
            ),
        ),
        history=ModelHistory(
            ("at", "exact"),
            "what exact means",
            (
                ModelGroup("protocol one", (("now", "0.900"),)),
                ModelGroup("protocol two", (("then", "0.983"),)),
            ),
        ),
        metrics=Metrics(
            (
                evaluation("teacher", 50, 0.8, 0.6, seconds_per_image=0.2),
                evaluation("undistilled", 1, 0.4, 0.1),
                evaluation("student", 1, 0.78, 0.54, seconds_per_image=0.002),
            ),
            {"short": 0.99, "geneval": 1.0},
            {"prompts_digest": "5a" * 32, "reference_digest": "6b" * 32},
            {"coverage": 0.125, "frechet": 0.25},
        ),
        promotion=GateVerdict(
            True, "3", (GateCheck("prompt following 0.780 ≥ 0.500", True), GateCheck("no champion", None))
        ),
        libraries={"torch": "2.13.0"},
        digests={"corpus": "4f" * 32},
        config="train:\n  images: 96\n",
        commands=(("straightshot ui", "look around"),),
    )
