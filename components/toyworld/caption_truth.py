"""How many captions of known scenes are true, and how many leave nothing open: a captioner's quality.

A caption is parsed and judged, not compared word for word: there are many true captions of a scene.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from components.toyworld.captions import states_all
from components.toyworld.parsing import parse
from components.toyworld.scene import Scene
from components.toyworld.statements import are_exact, are_true


@dataclass(frozen=True)
class CaptionTruth:
    """Shares of the captions, 0..1.

    entirely_true: every statement holds; a caption that does not parse is not true. complete: entirely true,
    of everything that is there, and leaving open neither look, size nor place of a thing nor the background.
    """

    entirely_true: float
    complete: float


def measure_truth(captions: Iterable[tuple[str, Scene]]) -> CaptionTruth:
    """The shares over pairs of a caption and the scene that it was written of.

    Raises ValueError where there are none.
    """
    judged = [_judge(text, scene) for text, scene in captions]
    if not judged:
        raise ValueError("no captions: the share of true ones is not defined")
    true, complete = (sum(column) / len(judged) for column in zip(*judged, strict=True))
    return CaptionTruth(true, complete)


def _judge(text: str, scene: Scene) -> tuple[bool, bool]:
    """Whether the text is true of the scene, and whether it is complete, too."""
    stated = parse(text)
    if stated is None or not are_true(stated, scene):
        return False, False
    return True, states_all(stated) and are_exact(stated, scene)
