"""Coverage: whether what a prompt leaves open varies in the images as it does in the corpus.

For each of a few short prompts many images are generated. The cells and sizes of the things in them and their
backgrounds, where the prompt states none, are set against scenes that are drawn as the web draws them: the
total variation distance of the two distributions, averaged over attributes and prompts. Zero is unreachable
with few images, so the same distance of as many true renders is the floor.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.errors import InputError
from components.evaluation.metrics import Pixels
from components.randomness import derive_seed
from components.toyworld.prompts import ToyPrompt, make_prompts, scene_for
from components.toyworld.render import render
from components.toyworld.scene import cell, size_word
from components.toyworld.scorer import detect
from components.toyworld.statements import Seen, Statements

CELL, SIZE, BACKGROUND = "cell", "size", "background"
NOTHING = "nothing"  # the bin of an image in which no thing was found

Shares = Mapping[str, float]  # of each bin of an attribute; they add up to one


@dataclass(frozen=True)
class CoveragePrompt:
    """A short prompt and, for each attribute that it leaves open, how the corpus has it."""

    prompt: ToyPrompt
    expected: Mapping[str, Shares]


def coverage_prompts(count: int, scenes: int, seed: int) -> list[CoveragePrompt]:
    """`count` held-out short prompts, each with the shares in `scenes` scenes of it."""
    every = make_prompts(count, derive_seed(seed, "coverage"))
    prompts = [prompt for prompt in every if prompt.form == "short"]
    return [
        CoveragePrompt(prompt, expected_shares(prompt, scenes, derive_seed(seed, "coverage", index)))
        for index, prompt in enumerate(prompts)
    ]


def expected_shares(prompt: ToyPrompt, scenes: int, seed: int) -> Mapping[str, Shares]:
    """The shares of each open attribute of the prompt in scenes drawn as the web draws them."""
    rng = np.random.default_rng(derive_seed(seed, "expected"))
    drawn = [scene_for(prompt, rng) for _ in range(scenes)]
    return {name: shares_of(drawn, name) for name in open_attributes(prompt.statements)}


def open_attributes(stated: Statements) -> tuple[str, ...]:
    """Of cell, size and background those that are left open: what any of the claims states is not."""
    left_open = {
        CELL: not any(claim.cells for claim in stated.claims),
        SIZE: not any(claim.size for claim in stated.claims),
        BACKGROUND: stated.background is None,
    }
    return tuple(name for name, is_open in left_open.items() if is_open)


def shares_of(seen: Iterable[Seen], attribute: str) -> Shares:
    """The share of each bin over all things (or backgrounds) of scenes or of what was detected in images."""
    counts = Counter(name for one in seen for name in _bins(one, attribute))
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}


def total_variation(a: Shares, b: Shares) -> float:
    """Half the summed absolute difference of two distributions: 0 where they are one, 1 where disjoint."""
    return sum(abs(a.get(name, 0.0) - b.get(name, 0.0)) for name in sorted({*a, *b})) / 2


def coverage_distance(images: Pixels, prompts: Sequence[CoveragePrompt]) -> float:
    """The distance of the images' open attributes from the corpus's, averaged over attributes and prompts.

    images: (P x K, H, W, 3), K of each of the P prompts in their order. Raises InputError where they are not
    as many of each, or no prompt leaves anything open.
    """
    if len(prompts) == 0 or len(images) == 0 or len(images) % len(prompts):
        raise InputError(f"{len(images)} images of {len(prompts)} prompts; coverage needs as many of each")
    each = len(images) // len(prompts)
    distances = [
        total_variation(shares_of(seen, attribute), expected)
        for index, prompt in enumerate(prompts)
        for seen in [[detect(image) for image in images[index * each : (index + 1) * each]]]
        for attribute, expected in prompt.expected.items()
    ]
    if not distances:
        raise InputError("the prompts of coverage leave neither cell, size nor background open")
    return float(np.mean(distances))


def coverage_floor(prompts: Sequence[CoveragePrompt], each: int, size: int, seed: int) -> float:
    """The distance of true renders, `each` of every prompt and `size` pixels a side: of sampling alone."""
    renders = []
    for index, prompt in enumerate(prompts):
        rng = np.random.default_rng(derive_seed(seed, "coverage floor", index))
        renders += [np.asarray(render(scene_for(prompt.prompt, rng), size)) for _ in range(each)]
    return coverage_distance(np.stack(renders), prompts)


def _bins(seen: Seen, attribute: str) -> Iterator[str]:
    if attribute == BACKGROUND:
        yield seen.background or NOTHING
        return
    word = cell if attribute == CELL else size_word
    yield from (word(thing) for thing in seen.things)
    if not seen.things:
        yield NOTHING
