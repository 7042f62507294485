"""The learned text encoder inside the DiT: token embeddings mixed with those of their neighbours.

A frozen language model gives each token in context; embeddings learned from nothing do not know that "red"
belongs to "circle". Two local layers mix neighbours, so that attention finds an object, not a bag of tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RADIUS = 2  # tokens to either side that a layer mixes in
LAYERS = 2


class TokenEmbedding(nn.Module):
    """ids (B, L), mask (B, L) -> tokens in context (B, L, D)."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(NeighbourMixing(width) for _ in range(LAYERS))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        tokens = self.embedding(ids)
        for layer in self.layers:
            tokens = layer(tokens, mask)
        return tokens


class NeighbourMixing(nn.Module):
    """tokens + SiLU(linear map of each token and RADIUS tokens to either side); padding counts as zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear((2 * RADIUS + 1) * width, width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        normalised = F.layer_norm(tokens, tokens.shape[-1:]) * mask[..., None]
        padded = F.pad(normalised, (0, 0, RADIUS, RADIUS))
        windows = [padded[:, at : at + tokens.shape[1]] for at in range(2 * RADIUS + 1)]
        return tokens + F.silu(self.mix(torch.cat(windows, dim=-1)))
