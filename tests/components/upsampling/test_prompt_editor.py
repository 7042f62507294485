"""The fitted upsampler's language model: it adds what captions have, and can lose nothing that was asked."""

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from components.captioning.packing import IGNORED
from components.toyworld.prompts import make_prompts
from components.training.checkpoints import Checkpoints
from components.training.config import OptimizerConfig, TrainingConfig
from components.upsampling.answer_drafts import AnswerDrafts
from components.upsampling.content_words import PREPOSITIONS, content_words, subject_words
from components.upsampling.language_model import LanguageModel
from components.upsampling.lfm2_decoder import Lfm2Decoder
from components.upsampling.partial_texts import RecordCaptions
from components.upsampling.prompt_cleaning import prompt_units, units_of
from components.upsampling.prompt_editor import MOST_INSERTED, PromptEditor
from components.upsampling.prompt_edits import joined
from components.upsampling.prompt_upsampler import PromptUpsampler, writer_of
from components.upsampling.prompt_upsampler_config import PromptUpsamplerConfig
from components.upsampling.prompt_upsampler_fit import answer_loss, fit_prompt_editor
from components.upsampling.read_prompt import MOST_PROMPT_TOKENS

THINGS = [" ".join(words) for words in itertools.product(("red", "blue", "green", "pink"), ("star", "cross"))]
PLACES = ("left", "right", "top")
RECORDS = [
    RecordCaptions(f"{number:08x}", f"a {thing} at {place}", f"a {thing}")
    for number, (thing, place) in enumerate(itertools.product(THINGS, PLACES))
]
TRAINING = TrainingConfig(
    images=4_800,
    batch_size=16,
    optimizer=OptimizerConfig(learning_rate=5e-3, warmup_images=160),
    ema_halflife_images=160,
    checkpoint_images=2_048,
    precision="no",
)
CONFIG = PromptUpsamplerConfig(width=32, depth=2, heads=2, vocabulary=300, training=TRAINING)
BRIEF = CONFIG.model_copy(
    update={"training": TRAINING.model_copy(update={"images": 64, "checkpoint_images": 32})}
)


@pytest.fixture(scope="module")
def editor() -> PromptEditor:
    return fit_prompt_editor(RECORDS, CONFIG, seed=0)


@pytest.fixture(scope="module")
def untrained() -> PromptEditor:
    return fit_prompt_editor(RECORDS, BRIEF, seed=0)


def test_it_adds_what_a_long_caption_has_and_keeps_the_prompt(editor):
    prompts = [f"a {thing}" for thing in THINGS for _ in range(8)]
    captions = editor(prompts, range(len(prompts)), min_p=0.2)
    places = [c.removeprefix(f"{p} at ") for p, c in zip(prompts, captions, strict=True)]
    # Of 64: sampled as often as they were in training.
    assert sum(place in PLACES for place in places) >= 60
    assert all(8 < places.count(place) < 36 for place in PLACES)


def test_what_it_has_never_seen_is_kept_all_the_same(editor):
    prompts = [f"a {colour} {thing}" for colour in ("mauve", "ochre") for thing in ("star", "zebra", "Haus")]
    for prompt, caption in zip(prompts, editor(prompts, range(6)), strict=True):
        assert caption.startswith(prompt)


def test_a_whole_caption_is_left_as_it_is(editor):
    captions = [record.long for record in RECORDS]
    kept = [a == b for a, b in zip(captions, editor(captions, range(len(captions))), strict=True)]
    assert sum(kept) > 0.9 * len(kept)


def test_without_any_training_it_loses_no_word_that_says_what_is_there(untrained):
    prompts = [prompt.text for prompt in make_prompts(12, 4)] + ["A well-known man's 3 dogs, 4 cats!"]
    for prompt, caption in zip(prompts, untrained(prompts, range(len(prompts))), strict=True):
        rest = iter(word.lower() for word in units_of(caption))
        for word in units_of(joined(prompt_units(prompt))):
            if subject_words(word) and content_words(word):
                said = any(w in (word.lower(), word.lower().removesuffix("s")) for w in rest)
                assert said, (word, prompt, caption)


def test_the_text_is_a_function_of_prompt_and_seed(editor):
    prompts = ["a red star", "a green cross and a big blue star", "", "a blue cross"] * 4
    together = editor(prompts, range(16))
    assert [editor([prompt], [seed])[0] for seed, prompt in enumerate(prompts)] == together
    assert editor(prompts, range(16, 32)) != together
    assert together[2] == "" and editor([], []) == [] and editor([" ", "please"], [0, 0])[0] == ""


def test_guessed_answers_save_passes_and_change_no_caption(editor, monkeypatch):
    """Whether they are good ones, bad ones that stand nowhere, or none at all."""
    prompts, passes = [f"a {thing} and a {thing}" for thing in THINGS], [0]

    def counted(decoder, *given):
        passes[0] += 1
        return scores(decoder, *given)

    def written() -> tuple[list[str], int]:
        passes[0] = 0
        return [editor([p], [seed])[0] for seed in range(4) for p in prompts], passes[0]

    scores = Lfm2Decoder.scores
    monkeypatch.setattr(Lfm2Decoder, "scores", counted)
    editor(prompts * 4, range(32))
    captions, passes_with = written()
    inserted = itertools.cycle(range(20, 90))
    for guess in (lambda *_: next(inserted), lambda *_: None):
        monkeypatch.setattr(AnswerDrafts, "guess", guess)
        others, passes_without = written()
        assert others == captions and len(set(captions)) > 10
    assert passes_with < 0.6 * passes_without


def test_capitals_and_marks_are_the_prompts(editor):
    captions = editor(["A Red Star.", "A GREEN CROSS", "a blue star"], range(3))
    assert captions[0].startswith("A Red Star at") and captions[1].startswith("A GREEN CROSS at")
    assert captions[2].startswith("a blue star at")


def test_nothing_is_put_between_a_noun_and_what_is_said_of_it(untrained):
    prompts = ["a star that sleeps and a man who is a doctor"] * 32
    for caption in untrained(prompts, range(32)):
        units = units_of(caption)
        assert units[units.index("that") - 1] == "star" and units[units.index("who") - 1] == "man"


def test_a_statement_is_kept_whole_and_a_place_stays_with_its_thing(untrained):
    prompts = ["The background is black. A star on the left."] * 32
    captions = untrained(prompts, range(32))
    assert all("he background is black." in caption for caption in captions)
    # Where "on" was not dropped: among these random words nothing else would put it there.
    assert sum("tar on" in caption for caption in captions) > 4


def test_a_preposition_goes_only_for_another(untrained):
    for caption in untrained(["a star with a cross"] * 64, range(64)):
        between = units_of(caption)[units_of(caption).index("star") + 1 :]
        assert PREPOSITIONS & set(between), caption


def test_a_prompt_too_long_has_no_caption_and_a_caption_has_an_end(untrained):
    endless = "a red star and " * MOST_PROMPT_TOKENS
    captions = untrained([endless, "a red star"], [0, 1])
    assert captions[0] == "" and captions[1]
    assert len(units_of(captions[1])) <= MOST_INSERTED + 3


def test_a_saved_editor_writes_the_same(editor, tmp_path: Path):
    editor.language_model.save(tmp_path / "one")
    loaded = writer_of(LanguageModel.load(tmp_path / "one", ours=True))
    assert isinstance(loaded, PromptEditor)
    prompts = [f"a {thing}" for thing in THINGS]
    assert loaded(prompts, range(8)) == editor(prompts, range(8))
    loaded.language_model.save(tmp_path / "other")
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "other" / path.name).read_bytes() == path.read_bytes()
    PromptUpsampler(editor).save(tmp_path / "upsampler")
    upsampler = PromptUpsampler.load(tmp_path / "upsampler")
    assert upsampler(prompts, seed=1) == PromptUpsampler(editor)(prompts, seed=1)


def test_a_fit_that_was_cut_off_goes_on_to_the_same_weights(untrained, tmp_path: Path):
    class CutOffError(Exception):
        pass

    def stop(captions: int, loss: float) -> None:
        seen.append(captions)
        if sum(seen) == 48:
            raise CutOffError

    seen: list[int] = []
    with pytest.raises(CutOffError):
        fit_prompt_editor(RECORDS, BRIEF, seed=0, checkpoints=Checkpoints(tmp_path), on_batch=stop)
    left: list[int] = []
    again = fit_prompt_editor(
        RECORDS, BRIEF, seed=0, checkpoints=Checkpoints(tmp_path), on_batch=lambda n, _: left.append(n)
    )
    assert sum(left) == 64 - 32  # from the checkpoint on
    for expected, resumed in zip(
        untrained.language_model.model.parameters(), again.language_model.model.parameters(), strict=True
    ):
        assert torch.equal(expected, resumed)


def test_without_records_there_is_nothing_to_fit():
    with pytest.raises(ValueError, match="no record has a long caption"):
        fit_prompt_editor([], BRIEF, seed=0)


def test_the_loss_is_the_answers_mean_cross_entropy_whatever_was_padded(editor):
    model = editor.language_model.model
    rows = [([5, 6, 7], [8, 9]), ([5], [10, 11, 12, 13])]
    tokens, labels = torch.zeros(2, 5, dtype=torch.long), torch.full((2, 5), IGNORED)
    total, count = 0.0, 0
    for row, (prompt, answer) in enumerate(rows):
        both = torch.tensor([*prompt, *answer])
        tokens[row, : len(both)], labels[row, len(prompt) : len(both)] = both, torch.tensor(answer)
        with torch.no_grad():
            logits = model(input_ids=both[None]).logits[0, len(prompt) - 1 : -1]
        total += F.cross_entropy(logits, torch.tensor(answer), reduction="sum").item()
        count += len(answer)
    with torch.no_grad():
        measured = answer_loss(model, {"tokens": tokens, "labels": labels}, torch.Generator()).loss
    assert measured.item() == pytest.approx(total / count, rel=1e-5)
