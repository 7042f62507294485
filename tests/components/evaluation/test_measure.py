"""Measuring with generators whose images are known: one renders the right scenes, one mixes them up."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from components.evaluation.coverage import coverage_prompts
from components.evaluation.measure import (
    AS_IS,
    DEFAULT,
    EvaluationData,
    MeasuredModel,
    ModelRun,
    UpsampledPrompts,
    measure,
)
from components.evaluation.metrics import METRICS
from components.evaluation.prompts import EvalPrompt, caption_prompts, toy_prompts
from components.evaluation.reference import Reference
from components.randomness import derive_seed
from components.shards.writer import Sample
from components.toyworld.parsing import parse
from components.toyworld.prompts import CATEGORIES, FORMS, ToyPrompt, scene_for
from components.toyworld.render import render
from tests.components.evaluation.plain_judge import plain_judge

SIDE = 32
PER_FORM = 6
CAPTIONS = (
    "a large red circle at the centre, on a white background",
    "a small blue star at the top left, on a black background",
    "a small green cross at the right, on a grey background",
)


@dataclass
class SceneGenerator:
    """Renders a scene of what it is given; where that is in `wrong`, of `instead`."""

    wrong: frozenset[str] = frozenset()
    instead: str = "four purple squares on a brown background"
    calls: list[tuple[str, ...]] = field(default_factory=list)
    numbers: list[tuple[int, int, float | None]] = field(default_factory=list)

    def generate(self, prompts, *, steps, seed, guidance, first):
        self.calls.append(tuple(prompts))
        self.numbers.append((first, steps, guidance))
        return np.stack([self._render(text, derive_seed(seed, first + i)) for i, text in enumerate(prompts)])

    def _render(self, text: str, seed: int) -> np.ndarray:
        shown = self.instead if text in self.wrong else text
        prompt = ToyPrompt(shown, "long", parse(shown))
        return np.asarray(render(scene_for(prompt, np.random.default_rng(seed)), SIDE))


def data(prompts: Sequence[EvalPrompt] | None = None, **changes) -> EvaluationData:
    judge = plain_judge()
    generator = SceneGenerator()
    images = generator.generate(CAPTIONS * 4, steps=1, seed=5, guidance=None, first=0)
    features = judge.image_features([Image.fromarray(image) for image in images])
    settings = {
        "prompts": toy_prompts(PER_FORM, seed=1) if prompts is None else prompts,
        "reference": Reference(CAPTIONS * 4, features, features),
        "coverage": coverage_prompts(2, 40, 0),
        "coverage_seeds": 8,
        "judge": judge,
        "seed": 0,
        "batch_size": 7,
    }
    return EvaluationData(**{**settings, **changes})


def upsampled(of: EvaluationData, captions: dict[str, str] | None = None) -> UpsampledPrompts:
    texts = [(captions or {}).get(prompt.text, prompt.text) for prompt in of.prompts]
    how = ["rewritten" if a != b.text else "kept" for a, b in zip(texts, of.prompts, strict=True)]
    return UpsampledPrompts(tuple(texts), tuple(how), seconds=3.0)


def measured(generator: SceneGenerator, of: EvaluationData, captions: dict[str, str] | None = None):
    run = ModelRun("student", generator, 2, None)
    return measure(run, of, upsampled(of, captions), lambda count: None)


@pytest.fixture(scope="module")
def of() -> EvaluationData:
    return data()


@pytest.fixture(scope="module")
def truth(of) -> MeasuredModel:
    return measured(SceneGenerator(), of)


def test_every_text_is_generated_once_in_fixed_batches(of):
    generator, progress = SceneGenerator(), []
    run = ModelRun("teacher", generator, 3, 2.0)
    result = measure(run, of, upsampled(of), progress.append)
    texts = tuple(prompt.text for prompt in of.prompts)
    coverage = tuple(one.prompt.text for one in of.coverage for _ in range(8))
    generated = tuple(text for call in generator.calls for text in call)
    assert generated == texts + texts + CAPTIONS * 4 + coverage
    assert [first for first, *_ in generator.numbers[:5]] == [0, 7, 14, 21, 28]
    assert {numbers[1:] for numbers in generator.numbers} == {(3, 2.0)}
    assert sum(progress) == of.images == result.evaluation.images == len(generated)


def test_correct_scenes_follow_every_form_and_cover_what_is_open(truth):
    evaluation = truth.evaluation
    for shares in (evaluation.prompt_following, evaluation.prompt_following_as_is):
        assert list(shares) == list(FORMS)
    for shares in (evaluation.geneval, evaluation.geneval_as_is):
        assert list(shares) == list(CATEGORIES)
    assert evaluation.mean > 0.9 and evaluation.mean_as_is > 0.9
    assert evaluation.metrics["coverage"] < 0.35  # of eight images each


def test_a_model_that_only_understands_long_captions_is_told_apart_by_the_mode(of):
    """The cause that the README's one number hid: upsampled all is right, as is nothing."""
    long = "a large red circle at the centre, on a white background"
    generator = SceneGenerator(frozenset(prompt.text for prompt in of.prompts))
    captions = {prompt.text: f"{prompt.text.rstrip('.')} " for prompt in of.prompts}
    evaluation = measured(generator, of, captions).evaluation
    assert parse(long) is not None and evaluation.mean > 0.9
    assert evaluation.mean_as_is == 0
    assert evaluation.intervals["prompt_following_as_is"].high == 0
    assert evaluation.intervals["prompt_following"].low > 0.7


def test_the_verdicts_of_the_rows_add_up_to_the_evaluation(of):
    wrong = frozenset(prompt.text for prompt in of.prompts[::2])
    result = measured(SceneGenerator(wrong), of)
    evaluation, rows = result.evaluation, result.results
    assert [(row.mode, row.index) for row in rows] == [
        (mode, index) for mode in (DEFAULT, AS_IS) for index in range(len(of.prompts))
    ]
    for mode, shares, geneval in (
        (DEFAULT, evaluation.prompt_following, evaluation.geneval),
        (AS_IS, evaluation.prompt_following_as_is, evaluation.geneval_as_is),
    ):
        own = [(of.prompts[row.index], row) for row in rows if row.mode == mode]
        for form in FORMS:
            verdicts = [row.correct for prompt, row in own if prompt.form == form]
            assert len(verdicts) == PER_FORM and shares[form] == np.mean(verdicts)
        for category in CATEGORIES:
            verdicts = [row.geneval for prompt, row in own if prompt.category == category]
            assert geneval[category] == np.mean(verdicts)
        assert all(row.geneval is None for prompt, row in own if prompt.form != "geneval")
    assert 0.3 < evaluation.mean < 0.7
    interval = evaluation.intervals["prompt_following"]
    assert interval.mean == pytest.approx(evaluation.mean) and interval.low < interval.mean < interval.high


def test_the_rows_keep_what_was_generated_and_from_what(of):
    prompt = of.prompts[0].text
    rewritten = "two red circles on a grey background"
    rows = measured(SceneGenerator(), of, {prompt: rewritten}).results
    assert (rows[0].caption, rows[0].how) == (rewritten, "rewritten")
    assert (rows[1].caption, rows[1].how) == (of.prompts[1].text, "kept")
    as_is = rows[len(of.prompts)]
    assert (as_is.caption, as_is.how) == (prompt, "as is")
    score = plain_judge().score([Image.fromarray(rows[0].image)], [prompt])[0]
    assert rows[0].judge_score == pytest.approx(float(score))


def test_the_time_of_upsampling_is_told_apart(truth, of):
    evaluation = truth.evaluation
    assert evaluation.seconds_per_image > 0
    added = evaluation.seconds_per_image_upsampled - evaluation.seconds_per_image
    assert added == pytest.approx(3.0 / len(of.prompts))


def test_every_metric_of_the_table_is_measured_and_no_other(truth):
    assert list(truth.evaluation.metrics) == [metric.name for metric in METRICS]
    for metric in METRICS:
        assert metric.show(None) == "–" and metric.show(0.123456) in ("0.123", "0.1235")


def test_distances_are_of_the_captions_images_and_memorisation_of_the_prompts(of, truth):
    """A model that shows one thing for every caption is far in Fréchet and kernel, and only there."""
    wrong = measured(SceneGenerator(frozenset(CAPTIONS)), of).evaluation.metrics
    right = truth.evaluation.metrics
    assert wrong["frechet"] > 3 * right["frechet"] and wrong["kernel"] > right["kernel"] + 0.01
    unchanged = ("coverage", "nearest", "judge_score")
    assert [wrong[name] for name in unchanged] == [right[name] for name in unchanged]


def test_a_domain_that_no_scorer_covers_is_left_to_the_judge():
    texts = ("a red circle", "two blue stars on a black background")
    of = data([EvalPrompt(text) for text in texts], coverage=())
    result = measured(SceneGenerator(), of)
    evaluation = result.evaluation
    assert [(row.mode, row.correct, row.geneval) for row in result.results] == [(DEFAULT, None, None)] * 2
    assert evaluation.prompt_following == evaluation.prompt_following_as_is == evaluation.geneval == {}
    assert evaluation.mean is None and evaluation.intervals == {}
    assert set(evaluation.metrics) == {metric.name for metric in METRICS} - {"coverage"}
    assert evaluation.images == 2 + len(CAPTIONS * 4)


def test_the_same_model_measured_again_is_the_same_to_the_bit(of, truth):
    again = measured(SceneGenerator(), of)
    assert again.evaluation.to_entry() == truth.evaluation.to_entry()
    assert [row.correct for row in again.results] == [row.correct for row in truth.results]


def test_held_out_captions_become_prompts_once_each():
    captions = ["a cat", "a dog", "a cat", " ", "a bird", "a fish"]
    held_out = [Sample(f"{i:032x}", b"", "png", {"caption_short": text}) for i, text in enumerate(captions)]
    prompts = caption_prompts(held_out, 4)
    assert [prompt.text for prompt in prompts] == ["a cat", "a dog", "a bird"]
    assert {prompt.form for prompt in prompts} == {prompt.category for prompt in prompts} == {None}
