"""The prompt upsampler: tries again what its checks refuse, and leaves alone what says all."""

from collections.abc import Sequence

import pytest

from components.toyworld.parsing import parse
from components.toyworld.refinement import is_consistent, refines
from components.training.config import OptimizerConfig, TrainingConfig
from components.upsampling.partial_texts import RecordCaptions
from components.upsampling.prompt_checks import PromptChecks
from components.upsampling.prompt_editor import PromptEditor
from components.upsampling.prompt_upsampler import NO_ANSWER, PromptUpsampler, UpsampledPrompt, unchanged
from components.upsampling.prompt_upsampler_config import PromptUpsamplerConfig
from components.upsampling.prompt_upsampler_fit import fit_prompt_editor
from components.upsampling.read_prompt import MOST_PROMPT_TOKENS
from components.upsampling.upsampler_card import UpsamplerCard

# Two things that fall into one place in two thirds of the captions, and so in about as many of the samples.
PLACES = [("left", "right"), ("right", "left"), *[("left", "left"), ("right", "right")] * 2]
RECORDS = [
    RecordCaptions(f"{number:08x}", f"a red star at {a} and a blue star at {b}")
    for number, (a, b) in enumerate(PLACES)
]
TRAINING = TrainingConfig(
    images=3_200,
    batch_size=16,
    optimizer=OptimizerConfig(learning_rate=5e-3, warmup_images=160),
    ema_halflife_images=160,
    precision="no",
)
CONFIG = PromptUpsamplerConfig(width=32, depth=2, heads=2, vocabulary=300, training=TRAINING)
PROMPTS = ["a red star and a blue star"] * 64


@pytest.fixture(scope="module")
def editor() -> PromptEditor:
    return fit_prompt_editor(RECORDS, CONFIG, seed=0)


def upsampler(
    editor: PromptEditor, tries: int, checks: Sequence[str] = ("toy_statements",)
) -> PromptUpsampler:
    card = UpsamplerCard(checks=tuple(checks), tries=tries, keep_complete=True)
    return PromptUpsampler(editor, PromptChecks(card))


def test_what_is_refused_is_tried_again(editor):
    once, often = upsampler(editor, 1)(PROMPTS, seed=1), upsampler(editor, 4)(PROMPTS, seed=1)
    shares = [sum(one.outcome == "rewritten" for one in results) / 64 for results in (once, often)]
    # Of fifteen samples one is nearly always right.
    assert 0.2 < shares[0] < 0.75 and shares[1] > 0.95
    for one in often:
        if one.outcome == "rewritten":
            stated = parse(one.caption)
            assert stated is not None and is_consistent(stated) and refines(stated, parse(one.prompt))
    first = [one for one in often if one.tries == 1]
    assert first == [one for one in once if one.outcome == "rewritten"]
    assert {one.tries for one in often} >= {1, 2}


def test_a_prompt_whose_captions_are_all_refused_stays_as_it_is(editor):
    prompts = ["a red star and a zebra", "a red star at left and a blue star at left"]
    for prompt, one in zip(prompts, upsampler(editor, 2)(prompts), strict=True):
        assert one == UpsampledPrompt(prompt, prompt, "refused", 2, "toy_statements")
        assert one.how == "refused: toy_statements"


def test_a_prompt_in_free_words_is_upsampled_from_plain_ones(editor):
    (one,) = upsampler(editor, 4)(["red star, blue star pls"])
    assert one.prompt == "red star, blue star pls" and one.outcome == "rewritten"
    stated = parse(one.caption)
    assert stated is not None and refines(stated, parse("a red star and a blue star"))
    whole = "huge red star, left, black backdrop"
    said = "a large red star at left on a black background"
    assert upsampler(editor, 4)([whole]) == [UpsampledPrompt(whole, said, "rewritten")]
    elsewhere = PromptChecks(UpsamplerCard(checks=("words",)))
    assert elsewhere.in_plain_words(whole) == whole


def test_a_prompt_that_says_all_goes_through_unchanged(editor):
    whole = "a large red star at left on a black background"
    assert upsampler(editor, 4)([whole]) == unchanged([whole])
    assert upsampler(editor, 4)(["", "  "]) == unchanged(["", "  "])


def test_a_prompt_that_is_too_long_to_be_answered_is_refused(editor):
    endless = "a red star and " * MOST_PROMPT_TOKENS
    (one,) = upsampler(editor, 2, [])([endless])
    assert one == UpsampledPrompt(endless, endless, "refused", 2, NO_ANSWER)


def test_the_result_is_a_function_of_prompt_seed_and_index(editor):
    up = upsampler(editor, 3)
    together = up(PROMPTS[:12], seed=3)
    alone = [up([prompt], seed=3, first=index)[0] for index, prompt in enumerate(PROMPTS[:12])]
    assert alone == together != up(PROMPTS[:12], seed=4)
