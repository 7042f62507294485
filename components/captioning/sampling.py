"""Min-p sampling whose noise is a function of the record, for captions that vary in manner and not in fact.

A captioner that has read many manners of phrasing is unsure of the next token where the manner is open, and
sure of it where the image decides. Min-p (Nguyen 2024, arXiv 2407.01082) keeps the tokens that are nearly as
likely as the likeliest: the manner is drawn, the fact is not. The draw is Gumbel-max with noise from (seed,
key, kind, position, token): a caption depends neither on its batch nor on the worker or run that writes it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from components.randomness import derive_seed
from components.training.noise import INCREMENT, mix

_UNIFORM_BITS = 52  # so that a float64 holds them and a half, and 1 is never reached


class MinPGumbel(LogitsProcessor):
    """Makes the scores' argmax a draw from the tokens at least `min_p` times as likely as the likeliest.

    For one call of `generate` without sampling or beams: position counts its steps. row_seeds: below 2**63,
    one for each row of the batch (row_seed).
    """

    def __init__(self, min_p: float, row_seeds: Sequence[int]) -> None:
        self.log_min_p = math.log(min_p)
        self.row_seeds = torch.tensor(row_seeds, dtype=torch.int64)
        self.position = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) with noise added; -inf below the threshold."""
        del input_ids  # its length includes the prompt and its padding, which depends on the batch
        kept = scores >= scores.amax(-1, keepdim=True) + self.log_min_p
        rows, tokens = kept.nonzero(as_tuple=True)
        noise = gumbel(self.row_seeds.to(scores.device)[rows], self.position, tokens)
        drawn = torch.full_like(scores, -math.inf)
        drawn[rows, tokens] = scores[rows, tokens] + noise.to(scores.dtype)
        self.position += 1
        return drawn


def row_seed(seed: int, key: str, kind: str, attempt: int = 0) -> int:
    """The seed of one record's caption of one kind; of each further attempt, another."""
    return derive_seed(seed, "caption", key, kind, *([attempt] if attempt else []))


def gumbel(row_seeds: Tensor, position: int, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise, float64, one value for each (row seed, position, token); int64 tensors (N,)."""
    place = torch.full_like(row_seeds, position) * INCREMENT  # wraps, as a Python integer would not
    states = mix(row_seeds + place + INCREMENT)
    bits = mix(states + tokens * INCREMENT + INCREMENT)
    high = (bits >> (64 - _UNIFORM_BITS)) & (2**_UNIFORM_BITS - 1)  # int64 would shift its sign in
    uniform = (high.double() + 0.5) / 2**_UNIFORM_BITS
    return -torch.log(-torch.log(uniform))
