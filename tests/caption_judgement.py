"""Whether a text of the toy world is true of a scene, and speaks of all its things."""

from components.toyworld.parsing import parse
from components.toyworld.scene import Scene
from components.toyworld.statements import are_true


def is_true(text: str, scene: Scene) -> bool:
    """Whether every statement of the text holds in the scene; a text that does not parse is false."""
    stated = parse(text)
    return stated is not None and are_true(stated, scene)


def is_complete(text: str, scene: Scene) -> bool:
    """Whether the text speaks of as many things as the scene has."""
    stated = parse(text)
    return stated is not None and stated.count == len(scene.things)
