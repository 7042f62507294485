"""Sampling of a language model's tokens, as a function of a seed."""

import torch
from torch import Tensor


class GumbelNoise:
    """Samples by the Gumbel-max trick: with this noise on the logits, the largest is a sample of the softmax.

    A row has a stream of its own, so a sample does not depend on the others of its batch.
    """

    def __init__(self, seed: int, temperature: float = 1.0, min_p: float = 0.0) -> None:
        """min_p: tokens below this part of the likeliest one's probability are left out (Nguyen 2024)."""
        self.temperature, self.min_p = temperature, min_p
        self.stream = torch.Generator().manual_seed(seed)

    def sample(self, scores: Tensor) -> int:
        """An index of the logits (V,); -inf is never chosen."""
        scores = scores / self.temperature
        uniform = torch.rand(scores.shape, generator=self.stream)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        if self.min_p:
            likeliest = scores.max()
            scores = scores.masked_fill(scores < likeliest + torch.tensor(self.min_p).log(), -torch.inf)
        return int((scores + gumbel).argmax())
