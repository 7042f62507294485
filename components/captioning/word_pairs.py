"""Which words stand near each other in an image's captions, told from the image: the vision tower's own task.

A captioner that starts from nothing learns last what its language model can least do without: looks that have
to be recognised wherever they stand, and where each of them stands. Telling a caption's words as a set
(SuperClass, Huang 2024) trains the tower alone, at a fifth of a captioning step's cost, but says nothing of
what belongs together. Pairs do, as visual n-grams (Li 2017) do: "square" with "red", and with "left".
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MOST_WORDS = 160  # tokens of which pairs are made: those that tell most
WINDOW = 6  # tokens from the first of a pair to the second, at most
LEAST_SHARE = 0.001  # of the images have a pair that counts
SMALLEST = 1e-6  # below it a token of the image adds nothing to a pair's score


class WordPairs:
    """The pairs of words near each other in each image's captions, and how much each of them counts.

    captions: of each image, its captions as tokens. words: the tokens that pairs are made of, by their sum of
    inverse document frequencies. A pair is a place in a (W, W) matrix, in the order in which its words stand,
    each word with itself, too. What every image has tells nothing and counts nothing (inverse document
    frequency); what fewer than LEAST_SHARE of them have counts nothing, either.
    """

    def __init__(self, captions: Sequence[Sequence[Sequence[int]]]) -> None:
        images = len(captions)
        having = Counter(token for of_image in captions for token in {t for c in of_image for t in c})
        rarity = {token: np.log((1 + images) / (1 + count)) for token, count in having.items()}
        telling = sorted(having, key=lambda token: (-having[token] * rarity[token], token))
        self.words = telling[:MOST_WORDS]
        place = {token: number for number, token in enumerate(self.words)}
        self.rows = [self._pairs_of(of_image, place) for of_image in captions]
        present = np.zeros(len(self.words) ** 2, np.int64)
        for row in self.rows:
            present[row] += 1
        counts = present >= max(1.0, LEAST_SHARE * images)
        self.rarity = torch.from_numpy(np.where(counts, np.log((1 + images) / (1 + present)), 0.0)).float()

    def _pairs_of(self, captions: Sequence[Sequence[int]], place: dict[int, int]) -> np.ndarray:
        """Places of the pairs in the flattened matrix."""
        width, pairs = len(self.words), set[int]()
        for caption in captions:
            numbers = [place.get(token, -1) for token in caption]
            for at, first in enumerate(numbers):
                if first >= 0:
                    near = [second for second in numbers[at + 1 : at + 1 + WINDOW] if second >= 0]
                    pairs.update(first * width + second for second in (first, *near))
        return np.array(sorted(pairs), np.int64)

    def __getitem__(self, images: Sequence[int]) -> Tensor:
        """The weights of some images' pairs, (B, W * W); rows sum to one, or zero if nothing counts."""
        weights = torch.zeros(len(images), len(self.words) ** 2)
        for row, image in enumerate(images):
            pairs = torch.from_numpy(self.rows[image])
            weights[row, pairs] = self.rarity[pairs]
        return weights / weights.sum(1, keepdim=True).clamp(min=1e-9)


class CaptionerWithPairs(nn.Module):
    """A captioner beside a head that tells pairs of words from its image tokens.

    image_tokens: of an image. A pair's score is the log of a sum over the image's tokens, each of which has a
    factor for either word, from its features and its place: it is high where one token shows both.
    """

    def __init__(self, captioner: Any, width: int, words: int, image_tokens: int) -> None:
        super().__init__()
        self.captioner = captioner
        self.first, self.second = nn.Linear(width, words), nn.Linear(width, words)
        self.places = nn.Parameter(torch.zeros(2, image_tokens, words))

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """What the language model sees of images (B, 3, S, S), (B, N, D)."""
        tokens: Tensor = self.captioner.model.get_image_features(pixels, return_dict=True).pooler_output
        return tokens

    def pair_scores(self, image_tokens: Tensor) -> Tensor:
        """Scores of every pair of words, (B, W * W)."""
        first, second = self.first(image_tokens) + self.places[0], self.second(image_tokens) + self.places[1]
        most_first, most_second = first.amax(1, keepdim=True), second.amax(1, keepdim=True)
        together = (first - most_first).exp().mT @ (second - most_second).exp()
        return ((together + SMALLEST).log() + most_first.mT + most_second).flatten(1)


def pair_loss(scores: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy of all pairs' softmax with the weights of those that the image's captions have.

    scores: (B, W * W). weights: rows that sum to one, (B, W * W), see WordPairs.
    """
    return -(weights * scores.float().log_softmax(-1)).sum(-1).mean()
