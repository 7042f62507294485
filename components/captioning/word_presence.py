"""Which tokens a caption has, told from the image alone: what the vision tower learns first.

A captioner that starts from nothing learns last what its language model can least do without: looks that have
to be recognised wherever they stand. Telling a caption's tokens as a set (SuperClass, Huang 2024) trains the
tower alone, at a fifth of a captioning step's cost.
"""

from typing import Any

import torch
from torch import Tensor, nn


class CaptionerWithWords(nn.Module):
    """A captioner beside a linear head over its image tokens, pooled by mean and by maximum."""

    def __init__(self, captioner: Any, width: int, vocabulary: int) -> None:
        super().__init__()
        self.captioner = captioner
        self.words = nn.Linear(2 * width, vocabulary)

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """What the language model sees of images (B, 3, S, S), (B, N, D)."""
        tokens: Tensor = self.captioner.model.get_image_features(pixels, return_dict=True).pooler_output
        return tokens

    def word_scores(self, image_tokens: Tensor) -> Tensor:
        """Scores of every token of the vocabulary, (B, V)."""
        scores: Tensor = self.words(torch.cat([image_tokens.mean(1), image_tokens.amax(1)], -1))
        return scores


def presence_loss(scores: Tensor, words: Tensor) -> Tensor:
    """Cross entropy of all tokens' softmax with the weights of those that the image's captions have.

    scores: of the vocabulary, (B, V). words: rows that sum to one, (B, V), see word_weights.
    """
    return -(words * scores.float().log_softmax(-1)).sum(-1).mean()


def word_weights(captions: list[set[int]], vocabulary: int) -> Tensor:
    """How much each token counts in each image's loss, (N, V): inverse document frequency, a row sums to one.

    captions: the tokens of each image's captions. What every caption has tells nothing and counts nothing.
    """
    present = torch.zeros(len(captions), vocabulary)
    for row, tokens in enumerate(captions):
        present[row, sorted(tokens)] = 1
    rarity = torch.log((1 + len(captions)) / (1 + present.sum(0)))
    weights = present * rarity
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
