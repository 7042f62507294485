"""The held-out prompts: GenEval's six categories on the toy world (Ghosh 2023, Table 1).

Prompts with two things use only pairs that no scene of the web or of the labelled set contains.
"""

from dataclasses import dataclass

import numpy as np

from components.randomness import derive_seed
from components.toyworld.captions import RELATION_WORDS, listed, phrase
from components.toyworld.scene import (
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    Scene,
    Thing,
    is_held_out,
    place_in_quarters,
    place_pair,
    place_single,
)

CATEGORIES: tuple[str, ...] = (
    "single_object",
    "two_object",
    "counting",
    "colors",
    "position",
    "color_attr",
)


@dataclass(frozen=True)
class ToyPrompt:
    """A text, and what its image must show: (colour, shape) of each thing, how many, in what relation."""

    text: str
    category: str
    looks: tuple[tuple[str, str], ...]
    count: int = 1  # of the first look, for counting
    relation: str | None = None  # of the first to the second, for position


def make_prompts(per_category: int, seed: int) -> list[ToyPrompt]:
    """`per_category` prompts of each of CATEGORIES in order; a text recurs only after all others."""
    alone = [((colour, shape),) for colour in COLOURS for shape in SHAPES]
    pairs = held_out_pairs()
    prompts = []
    for category in CATEGORIES:
        rng = np.random.default_rng(derive_seed(seed, "prompts", category))
        if category in ("single_object", "colors"):
            every = [ToyPrompt(phrase(*looks[0]), category, looks) for looks in alone]
        elif category == "counting":
            every = [
                ToyPrompt(phrase(*looks[0], count=n), category, looks, n)
                for looks in alone
                for n in (2, 3, 4)
            ]
        elif category == "position":
            every = [_position(looks, relation) for looks in pairs for relation in RELATIONS]
        else:
            every = [ToyPrompt(listed([phrase(*look) for look in looks]), category, looks) for looks in pairs]
        order = np.concatenate([rng.permutation(len(every)) for _ in range(-(-per_category // len(every)))])
        prompts += [every[i] for i in order[:per_category]]
    return prompts


def scene_for(prompt: ToyPrompt, rng: np.random.Generator) -> Scene:
    """A scene of which the prompt is true."""
    looks = list(prompt.looks)
    things: tuple[Thing, ...]
    if len(looks) == 2:
        relation = prompt.relation or str(rng.choice([*RELATIONS, "diagonal"]))
        things = place_pair(rng, looks, relation)
    elif prompt.category == "counting":
        things = place_in_quarters(rng, looks * prompt.count)
    else:
        things = place_single(rng, *looks[0])
    return Scene(str(rng.choice(list(BACKGROUNDS))), things)


def held_out_pairs() -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Every held-out pair of different colours and shapes, in both orders."""
    looks = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    return [(a, b) for a in looks for b in looks if a[0] != b[0] and a[1] != b[1] and is_held_out(a, b)]


def _position(looks: tuple[tuple[str, str], ...], relation: str) -> ToyPrompt:
    text = f" {RELATION_WORDS[relation]} ".join(phrase(*look) for look in looks)
    return ToyPrompt(text, "position", looks, relation=relation)
