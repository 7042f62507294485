"""The learned text encoder inside the DiT: word embeddings that have seen their neighbours.

A frozen language model hands over words in context; embeddings learned from nothing do not know that "red"
belongs to "circle". Two local layers tell them, so that attention finds an object, not a bag of words.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REACH = 2  # words to either side that a layer sees
LAYERS = 2


class WordEmbedding(nn.Module):
    """ids (B, L), mask (B, L) -> words in context (B, L, D)."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Neighbours(width) for _ in range(LAYERS))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        words = self.embedding(ids)
        for layer in self.layers:
            words = layer(words, mask)
        return words


class Neighbours(nn.Module):
    """words + SiLU(mix of each word and the REACH words to either side); padding is silence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear((2 * REACH + 1) * width, width)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        heard = F.layer_norm(words, words.shape[-1:]) * mask[..., None]
        padded = F.pad(heard, (0, 0, REACH, REACH))
        around = [padded[:, at : at + words.shape[1]] for at in range(2 * REACH + 1)]
        return words + F.silu(self.mix(torch.cat(around, dim=-1)))
