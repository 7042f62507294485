"""The held-out prompts, in five forms: what is asked for, or how, stands in no training caption.

short      what is there, as a short caption says it
partial    some of sizes, places, background and relation; something is left open
rephrased  any of the other forms, in a manner that no training caption has
long       everything, as a long caption says it
geneval    "a photo of …" in GenEval's six categories (Ghosh 2023, Table 1), on the toy world

Of all forms but `rephrased` the contents are held out (held_out.py): a look, a pair of looks, a count or a
place; of `rephrased` the manner is, and of geneval both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from components.randomness import derive_seed
from components.toyworld.captions import state_all, state_short, states_all
from components.toyworld.held_out import LOOKS, Look, count_is_held_out, pair_is_held_out, states_held_out
from components.toyworld.layout import (
    KINDS,
    Wanted,
    draw_looks,
    draw_scene_of,
)
from components.toyworld.manners import Manner, draw_held_out_manner, draw_manner, shuffled, write
from components.toyworld.scene import COLOURS, RELATIONS, SHAPES, Scene
from components.toyworld.statements import Claim, Statements, are_exact

FORMS: tuple[str, ...] = ("short", "partial", "rephrased", "long", "geneval")
CATEGORIES: tuple[str, ...] = (
    "single_object", "two_object", "counting", "colors", "position", "color_attr",
)  # fmt: skip
GENEVAL_MANNER = Manner(opening="a photo of")
PATIENCE = 200  # prompts of a category in a row that were all chosen before
PARTS_KEPT = 0.5  # the chance of each droppable statement to stay in a partial prompt


@dataclass(frozen=True)
class ToyPrompt:
    """A text, and the statements that its image must fulfil. category: GenEval's, of its form only."""

    text: str
    form: str
    statements: Statements
    category: str | None = None


def make_prompts(per_form: int, seed: int) -> list[ToyPrompt]:
    """`per_form` prompts of each of FORMS in order; no text twice, but where a form has no more."""
    prompts: list[ToyPrompt] = []
    for form in FORMS:
        rng = np.random.default_rng(derive_seed(seed, "prompts", form))
        source = _geneval(rng) if form == "geneval" else _drawn(form, rng)
        prompts += _distinct(source, per_form)
    return prompts


def scene_for(prompt: ToyPrompt, rng: np.random.Generator) -> Scene:
    """A scene of which the prompt is true and complete; what it leaves open is drawn as the web draws it."""
    stated = prompt.statements
    while True:
        wanted = [
            Wanted(_look(claim, rng), claim.size, place)
            for claim in stated.claims
            for place in (claim.cells or (None,) * claim.count)
        ]
        scene = draw_scene_of(
            rng, wanted, relation=_exact_relation(stated, rng), background=stated.background
        )
        if are_exact(stated, scene):
            return scene


def _drawn(form: str, rng: np.random.Generator) -> Iterator[ToyPrompt]:
    """Endless prompts of a form other than geneval."""
    while True:
        looks = draw_looks(rng, str(rng.choice(list(KINDS), p=list(KINDS.values()))))
        scene = draw_scene_of(rng, [Wanted(look) for look in looks])
        if form == "rephrased":
            stated = _STATE[("short", "partial", "long")[int(rng.integers(3))]](scene, rng)
        else:
            stated = _STATE[form](scene, rng)
        stated = shuffled(stated, rng)
        if form == "rephrased":
            yield ToyPrompt(write(stated, draw_held_out_manner(rng)), form, stated)
        elif states_held_out(stated):
            yield ToyPrompt(write(stated, draw_manner(rng)), form, stated)


def _state_some(scene: Scene, rng: np.random.Generator) -> Statements:
    """All statements of the scene but some; more than a short caption's, fewer than a long one's."""
    while True:
        keep = iter((rng.random(64) < PARTS_KEPT).tolist())
        stated = state_all(scene)
        size, places, colours = next(keep), next(keep), next(keep) or next(keep) or next(keep)
        claims = tuple(
            replace(
                claim,
                size=claim.size if size else None,
                cells=claim.cells if places and next(keep) else (),
                colour=claim.colour if colours else None,
            )
            for claim in stated.claims
        )
        if len({(claim.size, claim.colour, claim.shape) for claim in claims}) < len(claims):
            continue  # two claims would speak of the same things
        some = Statements(
            claims,
            stated.relation if next(keep) else None,
            stated.background if next(keep) else None,
        )
        more = some.background or any(claim.size or claim.cells for claim in claims)
        if more and not states_all(some) and are_exact(some, scene):
            return some


_STATE: dict[str, Callable[[Scene, np.random.Generator], Statements]] = {
    "short": lambda scene, rng: state_short(scene),
    "partial": _state_some,
    "long": lambda scene, rng: state_all(scene),
}


def _geneval(rng: np.random.Generator) -> Iterator[ToyPrompt]:
    """Endless prompts of GenEval's form, each category in turn."""
    looks = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    pairs = [(a, b) for a in looks for b in looks if a[0] != b[0] and a[1] != b[1] and pair_is_held_out(a, b)]
    counted = [(look, count) for look in looks for count in (2, 3, 4) if count_is_held_out(look, count)]
    held_out = sorted(LOOKS)
    while True:
        for category in CATEGORIES:
            relation = None
            if category == "counting":
                look, count = counted[int(rng.integers(len(counted)))]
                claims: tuple[Claim, ...] = (_of_look(look, count),)
            elif category in ("single_object", "colors"):
                claims = (_of_look(held_out[int(rng.integers(len(held_out)))]),)
            else:
                claims = tuple(_of_look(look) for look in pairs[int(rng.integers(len(pairs)))])
            if category == "position":
                relation = RELATIONS[int(rng.integers(len(RELATIONS)))]
            stated = Statements(claims, relation)
            yield ToyPrompt(write(stated, GENEVAL_MANNER), "geneval", stated, category)


def _of_look(look: Look, count: int = 1) -> Claim:
    return Claim(count, None, look[0], look[1])


def _distinct(source: Iterator[ToyPrompt], count: int) -> list[ToyPrompt]:
    """The first `count` of different texts, in the categories' turns where there are any.

    A text comes again only when its category has shown nothing new PATIENCE times (of looks there are four).
    """
    chosen: list[ToyPrompt] = []
    seen: set[str] = set()
    waited = 0
    wanted = CATEGORIES[0]
    for prompt in source:
        if prompt.category not in (None, wanted):
            continue
        waited += 1
        if prompt.text in seen and waited < PATIENCE:
            continue
        seen.add(prompt.text)
        chosen.append(prompt)
        waited = 0
        wanted = CATEGORIES[len(chosen) % len(CATEGORIES)]
        if len(chosen) == count:
            break
    return chosen


def _look(claim: Claim, rng: np.random.Generator) -> Look:
    """The claim's look; one that it leaves open, or a part of it, is drawn evenly."""
    return claim.colour or str(rng.choice(list(COLOURS))), claim.shape or str(rng.choice(SHAPES))


def _exact_relation(stated: Statements, rng: np.random.Generator) -> str | None:
    """The stated relation; a diagonal that includes it in one case of four, as it holds there, too."""
    relation = stated.relation
    placed = any(claim.cells for claim in stated.claims)
    if relation is None or " " in relation or placed or rng.random() < 0.75:
        return relation
    across = ("left", "right") if relation in ("above", "below") else ("above", "below")
    other = across[int(rng.integers(2))]
    return f"{relation} {other}" if relation in ("above", "below") else f"{other} {relation}"
