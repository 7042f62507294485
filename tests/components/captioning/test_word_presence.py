"""The vision tower's own task: the tokens of the captions, weighed by how much they tell."""

import math

import pytest
import torch

from components.captioning.architecture import make_model, train_tokenizer
from components.captioning.word_presence import CaptionerWithWords, presence_loss, word_weights


def test_what_every_caption_has_counts_nothing_and_what_few_have_counts_most():
    weights = word_weights([{0, 1}, {0, 1, 2}, {0, 3}], vocabulary=5)
    rarity = {1: math.log(4 / 3), 2: math.log(4 / 2), 3: math.log(4 / 2)}
    total = rarity[1] + rarity[2]
    expected = [[0, 1, 0, 0, 0], [0, rarity[1] / total, rarity[2] / total, 0, 0], [0, 0, 0, 1, 0]]
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_the_loss_is_least_at_the_weights_themselves():
    words = word_weights([{0, 1}, {0, 1, 2}, {0, 3}], vocabulary=5)
    entropy = -(words * words.clamp(min=1e-9).log()).sum(-1).mean().item()
    best = presence_loss(words.clamp(min=1e-9).log(), words).item()
    assert best == pytest.approx(entropy, abs=1e-6)
    other = presence_loss(torch.zeros(3, 5), words).item()
    assert other == pytest.approx(math.log(5)) and other > best


def test_it_trains_the_tower_and_leaves_the_language_model_alone():
    tokenizer = train_tokenizer(["a red circle"], 300)
    captioner = make_model(
        tokenizer, image_size=32, channels=(8, 8, 16, 16), blocks=1, width=32, text_depth=1, heads=2
    )
    model = CaptionerWithWords(captioner, 32, len(tokenizer))
    words = word_weights([{5}, {6}], len(tokenizer))
    presence_loss(model.word_scores(model.image_tokens(torch.randn(2, 3, 32, 32))), words).backward()
    trained = {name for name, p in captioner.named_parameters() if p.grad is not None}
    seen = (".vision_tower.", ".multi_modal_projector.")
    assert trained == {name for name, _ in captioner.named_parameters() if any(part in name for part in seen)}
