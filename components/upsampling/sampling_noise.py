"""Sampling of a language model's tokens, as a function of a seed for each row."""

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 2**14  # numbers of a stream that are drawn at once: one call for many tokens


class GumbelNoise:
    """Noise of one row: with it on the logits, the largest is a sample of the softmax (Gumbel-max trick).

    A row has a stream of its own, so a sample does not depend on the others of its batch.
    """

    def __init__(self, seed: int) -> None:
        self.stream = torch.Generator().manual_seed(seed)
        self._drawn: list[Tensor] = []  # for the next tokens, the last one first

    def next(self, size: int) -> Tensor:
        """Standard Gumbel noise (V,) for the next token; `size` is the same in all calls."""
        if not self._drawn:
            uniform = torch.rand(max(1, BLOCK // size), size, generator=self.stream)
            gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
            self._drawn = list(gumbel.unbind())[::-1]
        return self._drawn.pop()


def sample(
    scores: Tensor, noises: Sequence[GumbelNoise], *, temperature: float = 1.0, min_p: float = 0.0
) -> list[int]:
    """A token of each row of scores (B, V); -inf is never chosen.

    min_p: tokens below this part of the likeliest one's probability are left out (Nguyen 2024).
    """
    scores = scores.float().cpu() / temperature
    if min_p:
        likeliest = scores.amax(-1, keepdim=True)
        scores = scores.masked_fill(scores < likeliest + torch.tensor(min_p).log(), -torch.inf)
    noise = torch.stack([row.next(scores.shape[-1]) for row in noises])
    tokens: list[int] = (scores + noise).argmax(-1).tolist()
    return tokens
