"""The toy world in one place: scenes, their pictures, what can be said of them, and the held-out prompts.

Everyone imports from here. The parts: world_scene (what there is), world_render (how it looks),
world_captions (what is true of it), world_prompts (what is asked of a model).
"""

from components.corpus.world_captions import (
    Claim,
    Statements,
    caption_long,
    caption_short,
    is_complete,
    is_true,
    statements,
)
from components.corpus.world_prompts import CATEGORIES, Prompt, held_out_pairs, make_prompts, scene_for
from components.corpus.world_render import render
from components.corpus.world_scene import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    RELATIONS,
    SHAPES,
    Scene,
    Thing,
    draw_scene,
    is_held_out,
)

__all__ = [
    "BACKGROUNDS",
    "CATEGORIES",
    "COLOURS",
    "KINDS",
    "RELATIONS",
    "SHAPES",
    "Claim",
    "Prompt",
    "Scene",
    "Statements",
    "Thing",
    "caption_long",
    "caption_short",
    "draw_scene",
    "held_out_pairs",
    "is_complete",
    "is_held_out",
    "is_true",
    "make_prompts",
    "render",
    "scene_for",
    "statements",
]
