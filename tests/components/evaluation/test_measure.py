"""Measuring with generators whose images are known: one renders the right scenes, one mixes them up."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from components.evaluation.measure import (
    EvalPrompt,
    GeneratedImages,
    caption_prompts,
    generate_images,
    measure,
    reference_features,
    toy_prompts,
)
from components.evaluation.metrics import METRICS, MetricInputs
from components.judge.judge import Judge
from components.randomness import derive_seed
from components.shards.writer import Sample
from components.toyworld.prompts import CATEGORIES, scene_for
from components.toyworld.render import render

SIDE = 32


class SceneGenerator:
    """Renders a correct scene of each prompt; with `shift`, of the prompt that many places on."""

    def __init__(self, prompts: Sequence[EvalPrompt], shift: int = 0) -> None:
        self.prompts, self.shift = list(prompts), shift
        self.calls: list[tuple[int, int, int]] = []

    def generate(self, prompts, *, steps, seed, guidance, first):
        self.calls.append((first, len(prompts), steps))
        return np.stack([self._render(first + i, text) for i, text in enumerate(prompts)])

    def _render(self, index: int, text: str) -> np.ndarray:
        assert self.prompts[index].text == text, "noise and prompt do not belong together"
        prompt = self.prompts[(index + self.shift) % len(self.prompts)]
        rng = np.random.default_rng(derive_seed(0, "scene", index))
        return np.asarray(render(scene_for(prompt.toy, rng), SIDE))


class Pooled(torch.nn.Module):
    """A judge's network that can be computed by hand: 4 x 4 mean colours; every text is a grey page."""

    def encode_image(self, pixels: torch.Tensor, normalize: bool) -> torch.Tensor:
        return F.normalize(F.adaptive_avg_pool2d(pixels, 4).flatten(1) + 1e-3, dim=1)

    def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
        return F.normalize(torch.ones(len(tokens), 48), dim=1)


def plain_judge() -> Judge:
    return Judge(
        model=Pooled(),
        preprocess=lambda image: torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1),
        tokenizer=lambda texts: torch.zeros(len(texts), 1),
        device=torch.device("cpu"),
    )


def rendered(prompts: Sequence[EvalPrompt], shift: int = 0) -> GeneratedImages:
    return generate_images(
        SceneGenerator(prompts, shift),
        [prompt.text for prompt in prompts],
        steps=1,
        seed=0,
        guidance=None,
        batch_size=7,
        on_images=lambda count: None,
    )


def test_generating_covers_every_prompt_once_in_fixed_batches():
    prompts = toy_prompts(4, seed=0)
    generator, progress = SceneGenerator(prompts), []
    generated = generate_images(
        generator,
        [prompt.text for prompt in prompts],
        steps=3,
        seed=0,
        guidance=2.0,
        batch_size=10,
        on_images=progress.append,
    )
    assert generated.images.shape == (24, SIDE, SIDE, 3)
    assert generator.calls == [(0, 10, 3), (10, 10, 3), (20, 4, 3)]
    assert progress == [10, 10, 4]


def test_correct_scenes_follow_every_prompt_and_mixed_up_ones_do_not():
    prompts, judge = toy_prompts(10, seed=1), plain_judge()
    truth = rendered(prompts)
    reference = judge.image_features([Image.fromarray(image) for image in truth.images])
    right = measure(truth, prompts, model="teacher", steps=50, judge=judge, reference=reference)
    assert list(right.evaluation.prompt_following) == list(CATEGORIES)
    assert right.evaluation.mean > 0.98
    assert right.evaluation.metrics["frechet"] == pytest.approx(0, abs=1e-9)
    assert right.evaluation.images == 60
    assert right.evaluation.seconds_per_image == pytest.approx(truth.seconds / 60)
    wrong = measure(
        rendered(prompts, shift=31), prompts, model="student", steps=1, judge=judge, reference=reference
    )
    assert wrong.evaluation.mean < 0.5
    assert wrong.evaluation.metrics["frechet"] > 1e-4
    assert len(wrong.correct) == 60 and set(wrong.correct) <= {True, False}


def test_verdicts_and_scores_add_up_to_the_evaluation():
    prompts, judge = toy_prompts(5, seed=2), plain_judge()
    measured = measure(
        rendered(prompts, shift=3),
        prompts,
        model="student",
        steps=2,
        judge=judge,
        reference=np.eye(48, dtype=np.float32),
    )
    for name, share in measured.evaluation.prompt_following.items():
        verdicts = [v for v, p in zip(measured.correct, prompts, strict=True) if p.category == name]
        assert share == sum(verdicts) / len(verdicts)
    judge_score = measured.evaluation.metrics["judge_score"]
    assert judge_score == pytest.approx(float(measured.judge_scores.mean()))
    first = judge.score([Image.fromarray(measured.images[0])], [prompts[0].text])[0]
    assert measured.judge_scores[0] == pytest.approx(first)


def test_every_metric_of_the_table_is_measured_and_no_other():
    prompts, judge = toy_prompts(1, seed=3), plain_judge()
    reference = np.eye(48, dtype=np.float32)
    measured = measure(rendered(prompts), prompts, model="student", steps=1, judge=judge, reference=reference)
    assert list(measured.evaluation.metrics) == [metric.name for metric in METRICS]
    inputs = MetricInputs(
        measured.images,
        judge.image_features([Image.fromarray(image) for image in measured.images]),
        judge.text_features([prompt.text for prompt in prompts]),
        reference,
    )
    for metric in METRICS:
        assert measured.evaluation.metrics[metric.name] == metric.compute(inputs)
        assert metric.show(None) == "–" and metric.show(0.123456) in ("0.123", "0.1235")


def test_a_domain_that_no_scorer_covers_is_left_to_the_judge():
    prompts = [EvalPrompt("a cat"), EvalPrompt("two dogs")]
    pixels = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    measured = measure(
        GeneratedImages(pixels, 1.0),
        prompts,
        model="student",
        steps=1,
        judge=plain_judge(),
        reference=np.eye(48, dtype=np.float32),
    )
    assert measured.correct == (None, None)
    assert measured.evaluation.prompt_following == {} and measured.evaluation.mean is None


def test_held_out_captions_become_prompts_once_each():
    captions = ["a cat", "a dog", "a cat", " ", "a bird", "a fish"]
    held_out = [Sample(f"{i:032x}", b"", "png", {"caption_short": text}) for i, text in enumerate(captions)]
    assert [q.text for q in caption_prompts(held_out, 4)] == ["a cat", "a dog", "a bird"]
    assert [q.category for q in caption_prompts(held_out, 1)] == [None]


def test_the_reference_is_seen_as_training_sees_it():
    import io

    data = io.BytesIO()
    page = Image.new("RGBA", (96, 64), (0, 0, 0, 0))  # transparent, wider than high
    page.paste((255, 0, 0, 255), (16, 0, 80, 64))
    page.save(data, "PNG")
    features = reference_features(plain_judge(), [Sample("0" * 32, data.getvalue(), "png", {})], SIDE)
    red = plain_judge().image_features([Image.new("RGB", (SIDE, SIDE), (255, 0, 0))])
    assert np.allclose(features, red, atol=0.01), "not the centre square, or not on white"
