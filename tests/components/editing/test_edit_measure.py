"""Measuring edits: only what was taken away counts, and the truth has no error."""

import io

import numpy as np
import pytest
from PIL import Image

from components.conditioning.autoencoder import from_pixels, to_pixels
from components.editing.measure import (
    BASELINES,
    LEVELS,
    PROTOCOL,
    HeldOut,
    held_out_images,
    make_edits,
    measure,
    trivial_answer,
)
from components.errors import InputError
from components.shards.writer import Sample
from components.toyworld.captions import state_all
from components.toyworld.layout import Wanted, draw_scene_of
from components.toyworld.manners import draw_manner, write
from components.toyworld.render import render
from tests.components.evaluation.plain_judge import plain_judge

SIDE, COUNT = 32, 5


def scenes() -> HeldOut:
    """True renders, with true captions of all that is there."""
    rng, images, captions = np.random.default_rng(0), [], []
    for look in (
        ("red", "circle"),
        ("blue", "square"),
        ("green", "triangle"),
        ("red", "star"),
        ("blue", "cross"),
    ):
        scene = draw_scene_of(rng, [Wanted(look)])
        images.append(np.asarray(render(scene, SIDE)))
        captions.append(write(state_all(scene), draw_manner(rng)))
    return HeldOut(np.stack(images), tuple(captions))


HELD_OUT = scenes()


class Answering:
    """In place of an Editor: it answers every edit with what it is given, and the known part put back."""

    batch_size = 2

    def __init__(self, answers: np.ndarray) -> None:
        self.answers = dict(zip(HELD_OUT.captions, answers, strict=True))
        self.seeds: list[object] = []

    def steps_of(self, edits, steps):
        return steps or 3

    def edit(self, edits, captions, seeds, *, steps):
        self.seeds += seeds
        answers = from_pixels(np.stack([self.answers[caption] for caption in captions]))
        return np.concatenate(
            [to_pixels(edit.restore(answer)[None]) for edit, answer in zip(edits, answers, strict=True)]
        )


def measured(answers: np.ndarray):
    editor, done = Answering(answers), []
    results = measure(editor, plain_judge(), HELD_OUT, steps=None, seed=1, scored=True, on_images=done.append)
    assert sum(done) == len(set(editor.seeds)) == len(PROTOCOL) * COUNT
    return results


def test_the_truth_has_no_error_and_a_trivial_answer_the_error_of_what_was_taken_away():
    results = measured(HELD_OUT.images)
    measurement = results.measurement
    assert (measurement.images, measurement.scored, measurement.truth_exact.mean) == (COUNT, COUNT, 1.0)
    assert [(row.edit, row.method, row.steps) for row in measurement.rows] == [
        row for edit in PROTOCOL for row in ((edit, BASELINES[edit], None), (edit, "model", 3))
    ]
    edits = make_edits(HELD_OUT.images, 1)
    for trivial, model in zip(measurement.rows[::2], measurement.rows[1::2], strict=True):
        assert model.rmse.mean <= 1 and model.judge_distance.mean < 1e-4  # grey values and means are whole
        assert model.exact.mean == 1.0
        assert trivial.rmse.low > 2 and trivial.judge_distance.mean > 1e-5
        own = []
        for edit, truth in zip(edits[trivial.edit], HELD_OUT.images, strict=True):
            answer = to_pixels(trivial_answer(edit)[None])[0]
            lost = edit.unknown(from_pixels(answer[None])[0] - from_pixels(truth[None])[0])
            own.append(float(lost.square().sum() / edit.unknown_numbers) ** 0.5 * LEVELS)
        assert trivial.rmse.mean == pytest.approx(np.mean(own), rel=1e-5)


def test_a_wrong_known_part_costs_nothing_and_a_wrong_unknown_part_does():
    """An answer that is the truth but for its known part has it put back: the truth again."""
    edits = make_edits(HELD_OUT.images, 1)["inpaint"]
    pairs = zip(edits, HELD_OUT.images, strict=True)
    spoiled = np.stack([np.where(edit.hole[0].numpy()[..., None], image, 0) for edit, image in pairs])
    rows = {row.edit: row for row in measured(spoiled).measurement.rows if row.method == "model"}
    assert rows["inpaint"].rmse.mean == 0 and rows["inpaint"].exact.mean == 1
    assert rows["sketch"].rmse.mean > 5 and rows["sketch"].exact.mean < 1


def test_holes_are_a_quarter_and_differ_and_inputs_are_a_function_of_the_seed():
    edits, again, other = (make_edits(HELD_OUT.images, seed) for seed in (1, 1, 2))
    holes = [edit.hole for edit in edits["inpaint"]]
    assert all(hole.sum() == SIDE * SIDE / 4 for hole in holes)
    assert len({hole.numpy().tobytes() for hole in holes}) > 1
    for name in PROTOCOL:
        pairs = list(zip(edits[name], again[name], strict=True))
        assert all(np.array_equal(a.start, b.start) for a, b in pairs)
    assert any((a.hole != b.hole).any() for a, b in zip(edits["inpaint"], other["inpaint"], strict=True))
    few = [len(np.unique(to_pixels(edit.start[None]).reshape(-1, 3), axis=0)) for edit in edits["sketch"]]
    assert max(few) <= 6


def test_where_no_scorer_covers_the_images_nothing_is_called_exact():
    editor = Answering(HELD_OUT.images)
    results = measure(
        editor, plain_judge(), HELD_OUT, steps=2, seed=1, scored=False, on_images=lambda count: None
    )
    assert results.measurement.scored == 0 and results.measurement.truth_exact is None
    assert all(row.exact is None for row in results.measurement.rows)


def test_held_out_records_want_a_long_caption():
    file = io.BytesIO()
    Image.fromarray(HELD_OUT.images[0]).save(file, "PNG")
    with_caption = Sample("aa", file.getvalue(), "png", {"caption_long": "a red circle"})
    without = Sample("bb", file.getvalue(), "png", {"caption_long": None})
    held_out = held_out_images([with_caption, without, with_caption], SIDE)
    assert held_out.captions == ("a red circle",) * 2
    assert np.array_equal(held_out.images, HELD_OUT.images[[0, 0]])
    with pytest.raises(InputError, match="1 held-out records have a long caption, and two are needed"):
        held_out_images([with_caption, without], SIDE)
