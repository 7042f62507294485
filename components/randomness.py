"""Seeds: all randomness in Straightshot is a function of (seed, purpose, counter)."""

import hashlib


def derive_seed(seed: int, *words: str | int) -> int:
    """A 63-bit seed for one purpose, e.g. `derive_seed(seed, "caption", key, epoch)`.

    Independent of Python's hash randomisation, of the platform and of the order of calls.
    """
    text = "\x1f".join([str(seed), *(str(word) for word in words)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
