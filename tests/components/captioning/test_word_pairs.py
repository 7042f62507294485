"""The vision tower's own task: which words stand near each other in an image's captions."""

import math

import pytest
import torch

from components.captioning.architecture import make_model, train_tokenizer
from components.captioning.word_pairs import WINDOW, CaptionerWithPairs, WordPairs, pair_loss


def weights(captions, image) -> dict[tuple[int, int], float]:
    """Of one image, by the tokens of each pair."""
    pairs = WordPairs(captions)
    matrix = pairs[[image]].reshape(len(pairs.words), -1)
    return {
        (pairs.words[first], pairs.words[second]): matrix[first, second].item()
        for first, second in matrix.nonzero().tolist()
    }


def test_what_every_caption_has_counts_nothing_and_what_few_have_counts_most():
    captions = [[[0, 1]], [[0, 1, 2]], [[0, 3]]]
    rarity = {2: math.log(4 / 3), 1: math.log(4 / 2)}  # by how many images have a pair
    total = 2 * rarity[2] + 3 * rarity[1]
    assert weights(captions, 1) == pytest.approx(
        {
            (1, 1): rarity[2] / total,
            (0, 1): rarity[2] / total,
            (2, 2): rarity[1] / total,
            (0, 2): rarity[1] / total,
            (1, 2): rarity[1] / total,
        }
    )


def test_pairs_are_of_one_caption_in_order_and_no_further_apart_than_the_window():
    captions = [[[1, *[0] * WINDOW, 2], [3, 4]], [[0]]]
    pairs = set(weights(captions, 0)) - {(token, token) for token in range(5)}
    assert pairs == {(1, 0), (0, 2), (3, 4)}


def test_the_loss_is_least_at_the_weights_themselves():
    pairs = WordPairs([[[0, 1]], [[0, 1, 2]], [[0, 3]]])
    target = pairs[[0, 1, 2]]
    entropy = -(target * target.clamp(min=1e-9).log()).sum(-1).mean().item()
    best = pair_loss(target.clamp(min=1e-9).log(), target).item()
    assert best == pytest.approx(entropy, abs=1e-6)
    other = pair_loss(torch.zeros(3, 16), target).item()
    assert other == pytest.approx(math.log(16)) and other > best


def test_a_pair_scores_high_where_one_token_of_the_image_shows_both_words():
    model = CaptionerWithPairs(None, width=4, words=2, image_tokens=2)
    with torch.no_grad():
        model.first.weight.zero_()
        model.second.weight.zero_()
        model.first.weight[0, 0] = model.second.weight[1, 1] = 5.0  # features 0 and 1 are words 0 and 1
    apart = torch.tensor([[[1.0, 0, 0, 0], [0, 1, 0, 0]]])
    together = torch.tensor([[[1.0, 1, 0, 0], [0, 0, 0, 0]]])
    difference = (model.pair_scores(together) - model.pair_scores(apart)).reshape(2, 2)
    both, one_each = math.exp(10) + 1, 2 * math.exp(5)  # sums over the two tokens
    assert difference[0, 1].item() == pytest.approx(math.log(both / one_each), abs=1e-4)
    assert difference[0, 0].item() == pytest.approx(0, abs=1e-4)


def test_a_word_of_a_place_is_told_from_where_a_look_is():
    """Two images with the same looks, each in another place, have other pairs."""
    pairs = WordPairs([[[0, 2, 1, 3]], [[0, 3, 1, 2]]] * 4)  # 0, 1: looks; 2, 3: places
    torch.manual_seed(0)
    model = CaptionerWithPairs(None, width=2, words=4, image_tokens=2)
    images = 4 * torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]])
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss = pair_loss(model.pair_scores(images), pairs[[0, 1]])
        loss.backward()
        optimizer.step()
    target = pairs[[0, 1]]
    entropy = -(target * target.clamp(min=1e-9).log()).sum(-1).mean().item()
    assert loss.item() - entropy < 0.1 * (math.log(16) - entropy)


def test_it_trains_the_tower_and_leaves_the_language_model_alone():
    tokenizer = train_tokenizer(["a red circle"], 300)
    captioner = make_model(
        tokenizer, image_size=32, channels=(8, 8, 16, 16), blocks=1, width=32, text_depth=1, heads=2
    )
    pairs = WordPairs([[[5, 7]], [[6, 7]]])
    model = CaptionerWithPairs(captioner, 32, len(pairs.words), 4)
    pair_loss(model.pair_scores(model.image_tokens(torch.randn(2, 3, 32, 32))), pairs[[0, 1]]).backward()
    trained = {name for name, p in captioner.named_parameters() if p.grad is not None}
    seen = (".vision_tower.", ".multi_modal_projector.")
    assert trained == {name for name, _ in captioner.named_parameters() if any(part in name for part in seen)}
