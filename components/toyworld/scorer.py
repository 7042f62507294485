"""Prompt following on the toy world: whether an image shows what its prompt states.

`is_exact` asks for every statement and nothing else. `satisfies_geneval` asks for what GenEval asks, which is
less. Both read the pixels (detection.py); `score_true_renders` verifies them on images of known content.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.errors import InputError
from components.randomness import derive_seed
from components.toyworld.detection import DetectedThing, Detection, detect
from components.toyworld.prompts import CATEGORIES, FORMS, ToyPrompt, make_prompts, scene_for
from components.toyworld.render import render
from components.toyworld.statements import Claim, Statements, are_exact, relation_holds

__all__ = ["DetectedThing", "Detection", "detect", "is_exact", "satisfies_geneval", "score_true_renders"]

Image = NDArray[np.uint8]  # (H, W, 3)


def is_exact(image: Image, statements: Statements) -> bool:
    """Whether every statement holds in the image and nothing else is there."""
    detection = detect(image)
    return detection.clean and are_exact(statements, detection)


def satisfies_geneval(image: Image, prompt: ToyPrompt) -> bool:
    """Whether the image fulfils GenEval's rule for the prompt's category (Ghosh 2023, §3).

    single_object: a thing of the shape is there. two_object: one of each shape is. counting: exactly so many
    of the shape are. colors: one of the shape has the colour. position: some pair of the shapes stands in the
    relation. color_attr: one of each shape has its colour.

    As in GenEval: shapes stand for its classes of objects, a colour counts only where the category asks for
    it, other things may be there, and a pair that stands diagonally is in both its relations.
    Not as in GenEval: shapes and colours are read from the pixels, not by Mask2Former and CLIP, so there is no
    threshold of confidence; the prompts name a colour in every category, GenEval's only in colors and
    color_attr; whether a pair is beside or above is scene.relation_of's rule, which does not subtract a part
    of the boxes' sizes from the offset first; and any pair of the shapes counts, however many there are.

    Raises InputError for a prompt without a category.
    """
    claims = prompt.statements.claims
    things = [
        [thing for thing in detect(image).things if thing.shape == claim.shape] for claim in claims
    ]  # of each claim's shape
    match prompt.category:
        case "single_object" | "two_object":
            return all(things)
        case "counting":
            return len(things[0]) == claims[0].count
        case "colors" | "color_attr":
            return all(map(_one_has_its_colour, claims, things))
        case "position":
            relation = prompt.statements.relation or ""
            return any(relation_holds(relation, a, b) for a in things[0] for b in things[1] if a is not b)
    raise InputError(f"prompt category '{prompt.category}' is unknown; use one of {', '.join(CATEGORIES)}")


def score_true_renders(per_form: int, size: int, seed: int) -> dict[str, float]:
    """The scorer's own accuracy: each form's share of true renders that are exact; 1.0 without a mistake."""
    exact: dict[str, list[bool]] = {form: [] for form in FORMS}
    for i, prompt in enumerate(make_prompts(per_form, seed)):
        rng = np.random.default_rng(derive_seed(seed, "true render", i))
        image = np.asarray(render(scene_for(prompt, rng), size))
        exact[prompt.form].append(is_exact(image, prompt.statements))
    return {form: sum(verdicts) / len(verdicts) for form, verdicts in exact.items()}


def _one_has_its_colour(claim: Claim, things: Sequence[DetectedThing]) -> bool:
    return any(thing.colour == claim.colour for thing in things)
