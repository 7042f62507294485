"""The reference: images as training sees them, captions that have true renders, and the floors of both."""

import io

import numpy as np
import pytest
from PIL import Image

from components.evaluation.reference import (
    make_reference,
    memorisation_floor,
    true_render_floors,
    true_renders,
)
from components.shards.writer import Sample
from components.toyworld.captions import caption_long, state_all
from components.toyworld.detection import detect
from components.toyworld.layout import draw_scene
from components.toyworld.render import render
from components.toyworld.scene import Scene
from components.toyworld.statements import are_exact
from tests.components.evaluation.plain_judge import plain_judge

SIDE = 32


def sample(image: Image.Image, **meta: str | None) -> Sample:
    data = io.BytesIO()
    image.save(data, "PNG")
    return Sample("0" * 32, data.getvalue(), "png", dict(meta))


def scenes(count: int, seed: int) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [draw_scene(rng) for _ in range(count)]


def captioned(scene: Scene) -> Sample:
    return sample(render(scene, SIDE), caption_long=caption_long(scene))


def test_images_are_seen_as_training_sees_them():
    page = Image.new("RGBA", (96, 64), (0, 0, 0, 0))  # transparent, wider than high
    page.paste((255, 0, 0, 255), (16, 0, 80, 64))
    records = [sample(page, caption_long="red")] * 2
    reference = make_reference(plain_judge(), records, records, SIDE)
    red = plain_judge().image_features([Image.new("RGB", (SIDE, SIDE), (255, 0, 0))])
    assert np.allclose(reference.held_out, red, atol=0.01), "not the centre square, or not on white"
    assert np.allclose(reference.training, red, atol=0.01)


def test_a_record_without_a_long_caption_is_no_reference_and_two_are_needed():
    page = Image.new("RGB", (SIDE, SIDE))
    with_caption, without = sample(page, caption_long="black"), sample(page, caption_short="a page")
    records = [with_caption, without, sample(page, caption_long=None), with_caption]
    assert make_reference(plain_judge(), records, [without], SIDE).captions == ("black", "black")
    with pytest.raises(ValueError, match="1 held-out records have a long caption"):
        make_reference(plain_judge(), records[:3], records, SIDE)
    with pytest.raises(ValueError, match="no training record"):
        make_reference(plain_judge(), records, [], SIDE)


def test_true_renders_show_what_their_captions_say():
    drawn = scenes(20, 0)
    renders = true_renders([caption_long(scene) for scene in drawn], SIDE, seed=0)
    exact = [are_exact(state_all(scene), detect(image)) for scene, image in zip(drawn, renders, strict=True)]
    assert np.mean(exact) > 0.9


@pytest.mark.parametrize(
    "caption",
    [
        "a photograph of my cat",
        "two red circles, two blue squares and a green star",  # more than a scene holds
        "a red circle at the left, right of a blue square at the right",  # impossible
        "",
    ],
)
def test_a_caption_of_no_scene_has_no_true_render(caption):
    assert true_renders([caption], SIDE, seed=0) == []


def test_the_floors_of_true_renders_are_near_zero_and_wrong_captions_are_not():
    drawn = scenes(120, 1)
    records = [captioned(scene) for scene in drawn]
    training = [captioned(scene) for scene in scenes(40, 2)]
    judge = plain_judge()
    floors = true_render_floors(judge, make_reference(judge, records, training, SIDE), SIDE, seed=0)
    assert set(floors) == {"frechet", "kernel"}
    one_thing = [
        sample(render(scene, SIDE), caption_long="a large red circle at the centre, on a white background")
        for scene in drawn
    ]
    wrong = true_render_floors(judge, make_reference(judge, one_thing, training, SIDE), SIDE, seed=0)
    assert wrong["frechet"] > 5 * floors["frechet"]
    assert wrong["kernel"] > 5 * abs(floors["kernel"])
    open_corpus = [sample(render(scene, SIDE), caption_long="my holiday") for scene in drawn]
    assert true_render_floors(judge, make_reference(judge, open_corpus, training, SIDE), SIDE, seed=0) == {}


def test_held_out_images_that_stand_in_the_training_set_have_no_distance_to_it():
    records = [captioned(scene) for scene in scenes(10, 3)]
    others = [captioned(scene) for scene in scenes(10, 4)]
    judge = plain_judge()
    assert memorisation_floor(make_reference(judge, records, records, SIDE)) == pytest.approx(0, abs=1e-6)
    assert memorisation_floor(make_reference(judge, records, others, SIDE)) > 1e-4
