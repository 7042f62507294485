"""Coverage: whether what a prompt leaves open varies in the images as it does in the corpus.

For each of a few short prompts many images are generated. The cells and sizes of the things in them and their
backgrounds, where the prompt states none, are set against scenes that are drawn as the web draws them: the
total variation distance of the two distributions, averaged over attributes and prompts. Zero is unreachable
with few images, so the same distance of as many true scenes is the floor.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from components.errors import InputError
from components.evaluation.metrics import Pixels
from components.randomness import derive_seed
from components.toyworld.detection import detect
from components.toyworld.prompts import ToyPrompt, make_prompts, scene_for
from components.toyworld.scene import Scene, cell, size_word
from components.toyworld.statements import Seen, Statements

CELL, SIZE, BACKGROUND = "cell", "size", "background"
REPETITIONS = 20  # choices of scenes that a floor is averaged over
NOTHING = "nothing"  # the bin of an image in which no thing was found

Shares = Mapping[str, float]  # of each bin of an attribute; they add up to one


@dataclass(frozen=True)
class CoveragePrompt:
    """A short prompt and scenes of it as the web draws them: how the corpus has what it leaves open."""

    prompt: ToyPrompt
    scenes: tuple[Scene, ...]

    @cached_property
    def expected(self) -> Mapping[str, Shares]:
        """The shares of each open attribute in the scenes."""
        return {name: shares_of(self.scenes, name) for name in open_attributes(self.prompt.statements)}


def coverage_prompts(count: int, scenes: int, seed: int) -> list[CoveragePrompt]:
    """`count` held-out short prompts with `scenes` scenes of each."""
    every = make_prompts(count, derive_seed(seed, "coverage"))
    drawn = []
    for index, prompt in enumerate(one for one in every if one.form == "short"):
        rng = np.random.default_rng(derive_seed(seed, "coverage scenes", index))
        drawn.append(CoveragePrompt(prompt, tuple(scene_for(prompt, rng) for _ in range(scenes))))
    return drawn


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


def coverage_floor(prompts: Sequence[CoveragePrompt], each: int, seed: int) -> float:
    """The distance of `each` true scenes of every prompt from the others of it: of sampling alone.

    Averaged over REPETITIONS choices of them, so that the floor itself does not vary as one sample does.
    Raises InputError where a prompt has no more than `each` scenes.
    """
    distances = []
    for index, one in enumerate(prompts):
        if len(one.scenes) <= each:
            raise InputError(f"{len(one.scenes)} scenes of a prompt give no floor for {each} images of it")
        rng = np.random.default_rng(derive_seed(seed, "coverage floor", index))
        for _ in range(REPETITIONS):
            order = [one.scenes[row] for row in rng.permutation(len(one.scenes))]
            distances += [
                total_variation(shares_of(order[:each], name), shares_of(order[each:], name))
                for name in one.expected
            ]
    return float(np.mean(distances))


def _bins(seen: Seen, attribute: str) -> Iterator[str]:
    if attribute == BACKGROUND:
        yield seen.background or NOTHING
        return
    word = cell if attribute == CELL else size_word
    yield from (word(thing) for thing in seen.things)
    if not seen.things:
        yield NOTHING
