"""The blend: its shares, its purity, and what happens where a caption is missing."""

from collections import Counter

import pytest
from pydantic import ValidationError

from components.shards.blend import Blend, DrawnCaption, draw_caption
from pipelines.config import load_config
from pipelines.errors import ConfigError

ALL = {"alt": "an alt text", "short": "a red circle", "long": "a large red circle on a black background"}
DRAWS = 20_000


def shares(blend: Blend, captions: dict[str, str | None]) -> dict[str, float]:
    """How often each kind is drawn over many keys."""
    drawn = Counter(draw_caption(blend, captions, 0, f"{n:032x}", 0).kind for n in range(DRAWS))
    return {kind: count / DRAWS for kind, count in drawn.items()}


def test_kinds_are_drawn_in_the_blends_shares():
    # Four standard deviations of a share of .05 in 20,000 draws are .006.
    assert shares(Blend(), ALL) == pytest.approx({"alt": 0.05, "short": 0.475, "long": 0.475}, abs=0.014)


def test_a_missing_kind_gives_its_share_to_the_others_in_proportion():
    drawn = shares(Blend(alt=0.2, short=0.2, long=0.6), {**ALL, "short": None})
    assert drawn == pytest.approx({"alt": 0.25, "long": 0.75}, abs=0.014)


def test_an_empty_caption_is_a_missing_one():
    assert (
        draw_caption(Blend(alt=0.0, short=0.5, long=0.5), {"short": "", "long": "b"}, 0, "k", 0).text == "b"
    )


def test_a_kind_of_share_zero_is_never_drawn_but_where_it_is_all_there_is():
    blend = Blend(alt=0.0, short=1.0, long=0.0)
    assert shares(blend, ALL) == {"short": 1.0}
    assert draw_caption(blend, {"alt": "a", "short": None}, 0, "k", 0) == DrawnCaption("alt", "a")


def test_a_record_without_captions_has_an_empty_one():
    assert draw_caption(Blend(), {"alt": None}, 0, "k", 0) == DrawnCaption("", "")


def test_the_draw_is_a_function_of_seed_key_and_epoch():
    kinds = [draw_caption(Blend(), ALL, 7, "k", epoch).kind for epoch in range(64)]
    assert kinds == [draw_caption(Blend(), ALL, 7, "k", epoch).kind for epoch in range(64)]
    assert len(set(kinds)) > 1, "an epoch sees another caption"
    assert kinds != [draw_caption(Blend(), ALL, 8, "k", epoch).kind for epoch in range(64)]
    assert kinds != [draw_caption(Blend(), ALL, 7, "l", epoch).kind for epoch in range(64)]


def test_the_draw_is_the_same_on_every_machine():
    kinds = "".join(draw_caption(Blend(), ALL, 0, "0" * 32, epoch).kind[0] for epoch in range(16))
    assert kinds == "lsllslllllssslll"


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"alt": 0.5}, "must be 1, got 1.45"),
        ({"alt": -0.05, "short": 0.55, "long": 0.5}, "0 or more"),
        ({"alt": float("nan")}, "0 or more"),
        ({"alt": 0.05, "lnog": 0.0}, "no kind of caption is named 'lnog'; there are alt, short, long"),
    ],
)
def test_a_blend_that_is_none_is_refused_in_one_line(shares, message):
    with pytest.raises(ValidationError) as caught:
        Blend(**shares)
    (fault,) = caught.value.errors()
    assert message in fault["msg"]
    assert "\n" not in fault["msg"]


def test_the_command_sets_one_share_and_says_what_is_wrong_with_it():
    shares = load_config("micro", ["train.blend.alt=0.025", "train.blend.short=0.5"]).train.blend
    assert shares == Blend(alt=0.025, short=0.5, long=0.475)
    with pytest.raises(ConfigError, match=r"train\.blend: blend: alt \+ short \+ long must be 1") as caught:
        load_config("micro", ["train.blend.alt=0.5"])
    assert "\n" not in str(caught.value)


def test_a_blend_is_written_as_plain_shares():
    blend = Blend(alt=0.2, short=0.3, long=0.5)
    assert blend.model_dump() == {"alt": 0.2, "short": 0.3, "long": 0.5}
    assert Blend.model_validate(blend.model_dump()) == blend
    assert Blend().model_dump() == {"alt": 0.05, "short": 0.475, "long": 0.475}
