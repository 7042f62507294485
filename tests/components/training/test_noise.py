"""Noise per sample: SplitMix64's published numbers, the distributions, and what the numbers depend on."""

import math
from collections.abc import Callable

import pytest
import torch

from components.randomness import derive_seed
from components.training.noise import SampleNoise, mix, split_mix

INCREMENT = 0x9E3779B97F4A7C15
CPU = torch.device("cpu")
SHAPE = (3, 16, 16)


def noise(keys: list[str], epoch: int = 0, seed: int = 0, purpose: str = "train") -> SampleNoise:
    return SampleNoise.of({"keys": keys, "epochs": [epoch] * len(keys)}, seed, purpose, CPU)


def many(count: int) -> SampleNoise:
    return noise([f"{number:032x}" for number in range(count)])


def splitmix64(state: int) -> int:
    """The reference code (Vigna, splitmix64.c) in Python's integers."""
    z = (state + INCREMENT) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def unsigned(tensor: torch.Tensor) -> list[int]:
    return [value % 2**64 for value in tensor.flatten().tolist()]


def test_the_bits_are_those_of_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert unsigned(split_mix(torch.tensor([1234567]), 4)) == published
    seeds = [0, 1, 2**63 - 1, -1, -(2**63)]
    assert unsigned(split_mix(torch.tensor(seeds), 1)) == [splitmix64(seed) for seed in seeds]
    assert unsigned(mix(torch.tensor(seeds))) == [splitmix64(seed - INCREMENT) for seed in seeds]


def kolmogorov_distance(values: torch.Tensor, cdf: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """The largest distance of the sample's distribution function from `cdf`, times sqrt(n)."""
    ordered = values.flatten().double().sort().values
    n = len(ordered)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    expected = cdf(ordered)
    return max((steps[1:] - expected).max(), (expected - steps[:-1]).max()).item() * math.sqrt(n)


def assert_distributed(draw: Callable[[SampleNoise], torch.Tensor], cdf, count: int) -> None:
    """Kolmogorov's distances of 30 seeds: of mean 0.869 and deviation 0.260, were they drawn from `cdf`."""
    keys = [f"{number:032x}" for number in range(count)]
    distances = [kolmogorov_distance(draw(noise(keys, seed=seed)), cdf) for seed in range(30)]
    assert abs(sum(distances) / 30 - 0.869) < 4 * 0.260 / math.sqrt(30)


def test_normal_numbers_are_normal():
    assert_distributed(lambda n: n.normal("eps", SHAPE), torch.special.ndtr, 100)
    assert_distributed(lambda n: n.normal("time"), torch.special.ndtr, 10_000)
    values = many(1000).normal("eps", SHAPE)
    assert values.shape == (1000, *SHAPE) and values.dtype == torch.float32
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):  # variance: of x^power
        mean = values.double().pow(power).mean().item()
        assert abs(mean - moment) < 4 * math.sqrt(variance / values.numel()), power
    assert 4.5 < values.abs().max() < 6.8


def test_uniform_numbers_and_integers_are_uniform():
    assert_distributed(lambda n: n.uniform("caption_dropout"), lambda x: x, 10_000)
    uniform, integers = many(80_000).uniform("caption_dropout"), many(80_000).integers("interval", 1, 9)
    assert uniform.min() >= 0 and uniform.max() < 1 and uniform.dtype == torch.float32
    assert integers.min() == 1 and integers.max() == 8 and integers.dtype == torch.int64
    counts = torch.bincount(integers)[1:].double()
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 24.3  # chi², 7 degrees of freedom: above in 1 of 1000


def test_samples_epochs_names_purposes_seeds_and_places_are_uncorrelated():
    """A correlation of n independent pairs is below 4 / sqrt(n) but for 1 of 16,000."""
    keys = [f"{number:032x}" for number in range(200)]
    base = noise(keys).normal("eps", SHAPE)
    others = {
        "neighbour": base.roll(1, 0),
        "pixel": base.roll(1, -1),
        "row": base.roll(1, -2),
        "channel": base.roll(1, 1),
        "half": base.flatten(1).roll(math.prod(SHAPE) // 2, 1).view_as(base),  # the sine of the same pair
        "epoch": noise(keys, epoch=1).normal("eps", SHAPE),
        "name": noise(keys).normal("other", SHAPE),
        "purpose": noise(keys, purpose="distill").normal("eps", SHAPE),
        "seed": noise(keys, seed=1).normal("eps", SHAPE),
    }
    bound = 4 / math.sqrt(base.numel())
    for name, other in others.items():
        assert abs((base * other).mean().item()) < bound, name
        assert abs(((base**2 - 1) * (other**2 - 1)).mean().item() / 2) < bound, name
    time, dropout = noise(keys).normal("time"), noise(keys).uniform("caption_dropout")
    assert abs(torch.corrcoef(torch.stack([time, dropout]))[0, 1]) < 4 / math.sqrt(len(keys))


def test_a_sample_meets_the_same_noise_in_every_batch_and_order():
    keys = ["a", "b", "c", "d"]
    whole, part = noise(keys), noise(["d", "b"])
    for draw in (
        lambda n: n.normal("eps", SHAPE),
        lambda n: n.normal("time"),
        lambda n: n.uniform("caption_dropout"),
        lambda n: n.integers("interval", 0, 1000),
    ):
        assert torch.equal(draw(part), draw(whole)[[3, 1]])
        assert torch.equal(draw(whole), draw(whole))
        assert len(draw(whole).flatten(1 if draw(whole).ndim > 1 else 0).unique(dim=0)) == len(keys)


def test_autocast_changes_no_number():
    exact = noise(["a", "b"]).normal("eps", SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(noise(["a", "b"]).normal("eps", SHAPE), exact)


def test_the_numbers_are_those_of_plain_python():
    """So they stay what they are, whatever version of torch a resumed run goes on with."""
    sample = noise(["0123abcd"], epoch=2, seed=3)

    def word(name: str, number: int) -> int:
        named = derive_seed(3, "train", "0123abcd", 2) ^ derive_seed(0, "noise", name)
        stream = splitmix64(named - INCREMENT)  # without its first step
        return splitmix64((stream + number * INCREMENT) % 2**64)

    def polar(word: int) -> tuple[float, float]:
        return math.sqrt(-2 * math.log(((word >> 32) + 0.5) / 2**32)), math.tau * (word % 2**32) / 2**32

    (r, angle), (s, other) = polar(word("eps", 0)), polar(word("eps", 1))
    expected = [r * math.cos(angle), s * math.cos(other), r * math.sin(angle)]
    assert sample.normal("eps", (3,)).flatten().tolist() == pytest.approx(expected, rel=1e-6)
    assert sample.uniform("caption_dropout").item() == (word("caption_dropout", 0) >> 40) / 2**24
    assert sample.integers("interval", 1, 33).item() == 1 + (word("interval", 0) >> 32) * 32 // 2**32


def test_a_batch_without_keys_has_no_noise():
    with pytest.raises(ValueError, match="needs `keys` and `epochs`"):
        SampleNoise.of({}, 0, "train", CPU).normal("eps")
    with pytest.raises(ValueError, match="zip"):
        SampleNoise.of({"keys": ["a", "b"], "epochs": [0]}, 0, "train", CPU)
