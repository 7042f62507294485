"""Seeds by purpose, and weights that depend on nothing else."""

import hashlib

import torch

from components.randomness import derive_seed, seeded_weights


def weights(seed: int, purpose: str) -> torch.Tensor:
    with seeded_weights(seed, purpose):
        return torch.nn.Linear(4, 3).weight.detach()


def test_a_seed_is_the_hash_of_seed_and_purpose():
    digest = hashlib.sha256(b"7\x1fcaption\x1fabc\x1f3").digest()
    assert derive_seed(7, "caption", "abc", 3) == int.from_bytes(digest[:8], "big") >> 1


def test_purposes_that_join_to_the_same_text_have_different_seeds():
    assert derive_seed(0, "ab", "c") != derive_seed(0, "a", "bc")


def test_weights_are_those_of_the_derived_seed():
    torch.manual_seed(derive_seed(3, "judge weights"))
    expected = torch.nn.Linear(4, 3).weight.detach()
    torch.manual_seed(99)  # what was drawn before does not matter
    assert torch.equal(weights(3, "judge weights"), expected)
    assert not torch.equal(weights(3, "captioner weights"), expected)
    assert not torch.equal(weights(4, "judge weights"), expected)


def test_torchs_own_random_numbers_go_on_as_if_no_weights_had_been_made():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    weights(0, "weights")
    assert torch.equal(torch.rand(3), expected)
