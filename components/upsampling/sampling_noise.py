"""Sampling of a language model's tokens, as a function of a seed for each row.

With Gumbel noise on the logits the largest is a sample of the softmax (Gumbel-max trick).
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

BLOCK = 2**14  # numbers of a stream that are drawn at once: one call for many tokens


class RowNoise:
    """Noise of one row, from a stream of its own: a sample does not depend on the others of its batch."""

    def __init__(self, seed: int) -> None:
        self.stream = torch.Generator().manual_seed(seed)
        self._drawn: list[Tensor] = []  # for the next tokens, the last one first

    def next(self, size: int) -> Tensor:
        """Uniform noise (V,) for the next token; `size` is the same in all calls."""
        if not self._drawn:
            uniform = torch.rand(max(1, BLOCK // size), size, generator=self.stream)
            self._drawn = list(uniform.unbind())[::-1]
        return self._drawn.pop()

    def give_back(self, unused: Sequence[Tensor]) -> None:
        """Take the last noises back, to return them again."""
        self._drawn += reversed(unused)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise of uniform noise."""
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))


@cache
def _log(value: float) -> Tensor:
    return torch.tensor(value).log()


def sample(
    scores: Tensor, noises: Sequence[Tensor], *, temperature: float = 1.0, min_p: float = 0.0
) -> list[int]:
    """A token of each row of scores (B, V); -inf is never chosen.

    noises: uniform, (V,) for each row. min_p: tokens below this part of the likeliest one's probability are
    left out (Nguyen 2024).
    """
    scores = scores.float().cpu() / temperature
    uniform = torch.stack(list(noises))
    if min_p:  # of a thousand tokens a few are left, and only those get noise
        likeliest = scores.amax(-1, keepdim=True)
        left = (scores >= likeliest + _log(min_p)).nonzero(as_tuple=True)
        noisy = torch.full_like(scores, -torch.inf)
        noisy[left] = scores[left] + gumbel(uniform[left])
    else:
        noisy = scores + gumbel(uniform)
    tokens: list[int] = noisy.argmax(-1).tolist()
    return tokens
