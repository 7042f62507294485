"""The prompt upsampler: writes the long form of a prompt, the same whatever else is in its batch."""

import itertools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from components.captioning.config import PromptUpsamplerConfig
from components.captioning.packing import IGNORED
from components.generation import prompt_upsampler as module
from components.generation.prompt_upsampler import (
    INSTRUCTION,
    MOST_PROMPT_TOKENS,
    TEMPERATURE,
    PromptUpsampler,
    _GumbelNoise,
)
from components.generation.prompt_upsampler_fit import answer_loss, fit_prompt_upsampler
from components.training.checkpoints import Checkpoints
from components.training.config import OptimizerConfig, TrainingConfig

THINGS = [" ".join(words) for words in itertools.product(("red", "blue", "green", "pink"), ("star", "cross"))]
PLACES = ("left", "right", "top")
PAIRS = [(f"a {thing}", f"a {thing} at {place}") for thing in THINGS for place in PLACES] * 4
TRAINING = TrainingConfig(
    images=4_800,
    batch_size=16,
    optimizer=OptimizerConfig(learning_rate=5e-3, warmup_images=160),
    ema_halflife_images=160,
    checkpoint_images=2_048,
)
CONFIG = PromptUpsamplerConfig(width=32, depth=2, heads=2, vocabulary=300, training=TRAINING)
BRIEF = CONFIG.model_copy(
    update={"training": TRAINING.model_copy(update={"images": 64, "checkpoint_images": 32})}
)


@pytest.fixture(scope="module")
def upsampler() -> PromptUpsampler:
    return fit_prompt_upsampler(PAIRS, CONFIG, seed=0)


def test_it_adds_what_a_long_caption_has_and_keeps_the_prompt(upsampler):
    prompts = [f"a {thing}" for thing in THINGS for _ in range(8)]
    captions = upsampler(prompts)
    places = [
        caption.removeprefix(f"{prompt} at ") for prompt, caption in zip(prompts, captions, strict=True)
    ]
    assert set(places) == set(PLACES)
    assert all(
        8 < places.count(place) < 36 for place in PLACES
    )  # of 64: sampled as often as they were in training


def test_the_text_is_a_function_of_prompt_seed_and_index(upsampler):
    prompts = ["a red star", "a green cross", "", "a blue cross"] * 4
    together = upsampler(prompts, seed=3)
    assert [upsampler([p], seed=3, first=i)[0] for i, p in enumerate(prompts)] == together
    assert upsampler(prompts, seed=4) != together
    assert together[2] == "" and upsampler([]) == [] and upsampler([" "]) == [" "]


def test_a_saved_upsampler_writes_the_same(upsampler, tmp_path):
    upsampler.save(tmp_path / "one")
    loaded = PromptUpsampler.load(tmp_path / "one", ours=True)
    prompts = [f"a {thing}" for thing in THINGS]
    assert loaded(prompts, seed=1) == upsampler(prompts, seed=1)
    loaded.save(tmp_path / "other")
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "other" / path.name).read_bytes() == path.read_bytes()


def test_a_fit_that_was_cut_off_goes_on_to_the_same_weights(tmp_path):
    class CutOffError(Exception):
        pass

    def stop(captions: int, loss: float) -> None:
        seen.append(captions)
        if sum(seen) == 48:
            raise CutOffError

    seen: list[int] = []
    whole = fit_prompt_upsampler(PAIRS, BRIEF, seed=0)
    with pytest.raises(CutOffError):
        fit_prompt_upsampler(PAIRS, BRIEF, seed=0, checkpoints=Checkpoints(tmp_path), on_batch=stop)
    left: list[int] = []
    again = fit_prompt_upsampler(
        PAIRS, BRIEF, seed=0, checkpoints=Checkpoints(tmp_path), on_batch=lambda n, _: left.append(n)
    )
    assert sum(left) == 64 - 32  # from the checkpoint on
    for expected, resumed in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(expected, resumed)


def test_without_pairs_there_is_nothing_to_fit():
    with pytest.raises(ValueError, match="no record has both a short and a long caption"):
        fit_prompt_upsampler([], BRIEF, seed=0)


def test_what_is_no_language_model_is_named_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^upsampler '.*' cannot be loaded \(.*\); give a folder") as caught:
        PromptUpsampler.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_loss_is_the_answers_mean_cross_entropy_whatever_was_padded(upsampler):
    model = upsampler.model
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


def test_the_noise_samples_the_softmax_at_the_temperature():
    expected = torch.tensor([0.55, 0.3, 0.1, 0.05])
    scores = (TEMPERATURE * expected.log()).expand(20_000, -1)
    samples = _GumbelNoise(range(20_000))(torch.zeros(0), scores).argmax(1)
    shares = torch.bincount(samples, minlength=4) / len(samples)
    assert torch.allclose(shares, expected, atol=4 * 0.5 / len(samples) ** 0.5)


def test_a_model_that_follows_instructions_is_instructed(upsampler, tmp_path):
    upsampler.save(tmp_path)
    instructed = PromptUpsampler.load(tmp_path)
    instructed.tokenizer.chat_template = "{{ messages[0]['role'] }}: {{ messages[0]['content'] }}"
    inputs = []
    fake = {"generate": lambda **kwargs: inputs.append(kwargs["input_ids"]) or kwargs["input_ids"]}
    instructed.model = SimpleNamespace(device="cpu", **fake)
    assert instructed(["a  red\nstar"]) == ["a  red\nstar"]  # it generated nothing
    expected = f"user: {INSTRUCTION.format(prompt='a red star')}"
    assert instructed.tokenizer.decode(inputs[0][0]) == expected


def test_a_prompt_without_end_is_cut(upsampler):
    endless = "a red star " * 10_000
    ids = upsampler.tokenizer(upsampler._model_prompt(endless)).input_ids
    assert len(ids) <= MOST_PROMPT_TOKENS + 2
    assert upsampler([endless, "a red star"])[1] == upsampler(["", "a red star"])[1]


def test_an_answer_of_several_lines_is_its_first_and_an_empty_one_the_prompt(upsampler, monkeypatch):
    answers = {"a red star": " one line \nanother", "a blue star": "\n"}
    monkeypatch.setattr(
        upsampler.tokenizer, "batch_decode", lambda tokens, **_: list(answers.values()), raising=False
    )
    monkeypatch.setattr(module, "MOST_TOKENS", 1)
    assert upsampler(list(answers)) == ["one line", "a blue star"]
