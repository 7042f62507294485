"""Measuring with painters whose answers are known: one that draws the truth, one that draws it wrongly."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from components.evaluation.measure import (
    Drawn,
    EvalPrompt,
    caption_prompts,
    draw,
    measure,
    reference_features,
    toy_prompts,
)
from components.judge.judge import Judge
from components.randomness import derive_seed
from components.shards.writer import Sample
from components.toyworld.prompts import CATEGORIES, scene_for
from components.toyworld.render import render

SIDE = 32


class Painter:
    """Draws the true scene of each question; `shift` makes it answer the question that many places on."""

    def __init__(self, questions: Sequence[EvalPrompt], shift: int = 0) -> None:
        self.questions, self.shift = list(questions), shift
        self.asked: list[tuple[int, int, int]] = []

    def generate(self, prompts, *, steps, seed, guidance, first, upsample):
        assert not upsample, "said at length twice"
        self.asked.append((first, len(prompts), steps))
        return np.stack([self._paint(first + i, text) for i, text in enumerate(prompts)])

    def _paint(self, index: int, text: str) -> np.ndarray:
        assert self.questions[index].text == text, "noise and prompt have come apart"
        question = self.questions[(index + self.shift) % len(self.questions)]
        rng = np.random.default_rng(derive_seed(0, "painter", index))
        return np.asarray(render(scene_for(question.prompt, rng), SIDE))


class Pooled(torch.nn.Module):
    """A judge's network that is plain to see through: 4 x 4 mean colours; every text is a grey page."""

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


def painted(questions: Sequence[EvalPrompt], shift: int = 0) -> Drawn:
    return draw(
        Painter(questions, shift),
        [question.text for question in questions],
        steps=1,
        seed=0,
        guidance=None,
        batch_size=7,
        on_images=lambda count: None,
    )


def test_drawing_covers_every_question_once_in_fixed_batches():
    questions = toy_prompts(4, seed=0)
    painter, heard = Painter(questions), []
    drawn = draw(
        painter,
        [question.text for question in questions],
        steps=3,
        seed=0,
        guidance=2.0,
        batch_size=10,
        on_images=heard.append,
    )
    assert drawn.images.shape == (24, SIDE, SIDE, 3)
    assert painter.asked == [(0, 10, 3), (10, 10, 3), (20, 4, 3)]
    assert heard == [10, 10, 4]


def test_a_painter_of_the_truth_follows_every_prompt_and_one_that_mixes_them_up_does_not():
    questions, judge = toy_prompts(10, seed=1), plain_judge()
    truth = painted(questions)
    reference = judge.image_features([Image.fromarray(image) for image in truth.images])
    right = measure(truth, questions, model="teacher", steps=50, judge=judge, reference=reference)
    assert list(right.evaluation.prompt_following) == list(CATEGORIES)
    assert right.evaluation.mean > 0.98
    assert right.evaluation.frechet == pytest.approx(0, abs=1e-9)
    assert right.evaluation.images == 60
    assert right.evaluation.seconds_per_image == pytest.approx(truth.seconds / 60)
    wrong = measure(
        painted(questions, shift=31), questions, model="student", steps=1, judge=judge, reference=reference
    )
    assert wrong.evaluation.mean < 0.5
    assert wrong.evaluation.frechet > 1e-4
    assert len(wrong.follows) == 60 and set(wrong.follows) <= {True, False}


def test_verdicts_and_scores_add_up_to_the_evaluation():
    questions, judge = toy_prompts(5, seed=2), plain_judge()
    found = measure(
        painted(questions, shift=3),
        questions,
        model="student",
        steps=2,
        judge=judge,
        reference=np.eye(48, dtype=np.float32),
    )
    for name, share in found.evaluation.prompt_following.items():
        mine = [v for v, q in zip(found.follows, questions, strict=True) if q.category == name]
        assert share == sum(mine) / len(mine)
    assert found.evaluation.judge_score == pytest.approx(float(found.judge_scores.mean()))
    first = judge.score([Image.fromarray(found.images[0])], [questions[0].text])[0]
    assert found.judge_scores[0] == pytest.approx(first)


def test_a_world_that_no_scorer_knows_is_left_to_the_judge():
    questions = [EvalPrompt("a cat"), EvalPrompt("two dogs")]
    pixels = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    found = measure(
        Drawn(pixels, 1.0),
        questions,
        model="student",
        steps=1,
        judge=plain_judge(),
        reference=np.eye(48, dtype=np.float32),
    )
    assert found.follows == (None, None)
    assert found.evaluation.prompt_following == {} and found.evaluation.mean is None


def test_held_out_captions_become_questions_once_each():
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
