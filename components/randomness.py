"""Seeds: all randomness in Straightshot is a function of (seed, purpose, counter)."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def derive_seed(seed: int, *words: str | int) -> int:
    """A 63-bit seed for one purpose, e.g. `derive_seed(seed, "caption", key, epoch)`.

    Independent of Python's hash randomisation, of the platform and of the order of calls.
    """
    text = "\x1f".join([str(seed), *(str(word) for word in words)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class SampleSeed:
    """What the noise of one image or caption is a function of, in whatever batch it is sampled."""

    seed: int
    index: int


def sample_seeds(seed: int, count: int, first: int = 0) -> list[SampleSeed]:
    """Those of `count` samples with one seed, numbered from `first`."""
    return [SampleSeed(seed, index) for index in range(first, first + count)]


@contextmanager
def seeded_weights(seed: int, purpose: str) -> Iterator[None]:
    """Within it, weights that torch initialises on the CPU are a function of (seed, purpose) alone.

    purpose: e.g. "weights" or "judge weights". Afterwards torch's own CPU generator is as it was before.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, purpose))
        yield
