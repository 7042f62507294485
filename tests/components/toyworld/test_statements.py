"""Whether statements hold: things are assigned to claims, and each claim gets exactly its count."""

import pytest

from components.toyworld.parsing import parse
from components.toyworld.scene import Scene, Thing
from components.toyworld.statements import Claim, Statements, are_exact, are_true

SMALL, LARGE = 0.3, 0.45


def scene(*things: tuple[str, str, float, float, float], background: str = "black") -> Scene:
    return Scene(background, tuple(Thing(shape, colour, x, y, size) for colour, shape, x, y, size in things))


RED_LEFT_OF_BLUE = scene(("red", "circle", 0.25, 0.5, LARGE), ("blue", "square", 0.75, 0.55, SMALL))
DIAGONAL = scene(("red", "circle", 0.25, 0.25, SMALL), ("blue", "square", 0.75, 0.75, SMALL))
THREE_RED = scene(*(("red", "circle", x, y, SMALL) for x, y in ((0.2, 0.2), (0.8, 0.2), (0.5, 0.8))))
TWO_RED_ONE_BLUE = scene(
    ("red", "circle", 0.2, 0.2, SMALL),
    ("red", "circle", 0.8, 0.2, LARGE),
    ("blue", "square", 0.5, 0.8, SMALL),
)

# text, scene, whether it is true, whether it is exact
CASES = [
    ("a red circle to the left of a blue square", RED_LEFT_OF_BLUE, True, True),
    ("a blue square to the right of a red circle", RED_LEFT_OF_BLUE, True, True),
    ("a red circle and a blue square", RED_LEFT_OF_BLUE, True, True),
    ("a circle and a square", RED_LEFT_OF_BLUE, True, True),
    ("a red shape and a square", RED_LEFT_OF_BLUE, True, True),
    ("two shapes", RED_LEFT_OF_BLUE, True, True),
    ("a red circle", RED_LEFT_OF_BLUE, True, False),  # the square is not spoken of
    ("a shape", RED_LEFT_OF_BLUE, False, False),  # there are two
    ("a red circle to the right of a blue square", RED_LEFT_OF_BLUE, False, False),
    ("a red circle above a blue square", RED_LEFT_OF_BLUE, False, False),
    ("a red circle above and to the left of a blue square", RED_LEFT_OF_BLUE, False, False),
    ("a blue circle to the left of a red square", RED_LEFT_OF_BLUE, False, False),
    ("a large red circle and a small blue square", RED_LEFT_OF_BLUE, True, True),
    ("a small red circle and a large blue square", RED_LEFT_OF_BLUE, False, False),
    ("a red circle at left and a blue square at right", RED_LEFT_OF_BLUE, True, True),
    ("a red circle at right and a blue square at left", RED_LEFT_OF_BLUE, False, False),
    ("a red circle at top left", RED_LEFT_OF_BLUE, False, False),
    ("a red circle and a blue square on a black background", RED_LEFT_OF_BLUE, True, True),
    ("a red circle and a blue square on a white background", RED_LEFT_OF_BLUE, False, False),
    ("a red circle and a red circle", RED_LEFT_OF_BLUE, False, False),  # one thing is not both
    # A diagonal holds both its words, as in GenEval.
    ("a red circle to the left of a blue square", DIAGONAL, True, True),
    ("a red circle above a blue square", DIAGONAL, True, True),
    ("a red circle above and to the left of a blue square", DIAGONAL, True, True),
    ("a red circle below a blue square", DIAGONAL, False, False),
    # Counts are exact.
    ("three red circles", THREE_RED, True, True),
    ("two red circles", THREE_RED, False, False),
    ("a red circle", THREE_RED, False, False),
    ("four red circles", THREE_RED, False, False),
    ("two red circles and a red circle", THREE_RED, True, True),
    ("three red circles at top left, top right and bottom", THREE_RED, True, True),
    ("three red circles at bottom, top right and top left", THREE_RED, True, True),
    ("three red circles at top left, top left and bottom", THREE_RED, False, False),
    ("two red circles at top left and top right and a red circle at bottom", THREE_RED, True, True),
    # Assignment looks further than the first thing that fits.
    ("a circle and a large red circle", TWO_RED_ONE_BLUE, True, False),
    ("a large red circle and a circle", TWO_RED_ONE_BLUE, True, False),
    ("a circle at top right, a circle at top left and a square", TWO_RED_ONE_BLUE, True, True),
    ("two circles and a red shape", TWO_RED_ONE_BLUE, False, False),
    ("two circles and a blue shape", TWO_RED_ONE_BLUE, True, True),
    ("two red circles", TWO_RED_ONE_BLUE, True, False),
    ("a circle", TWO_RED_ONE_BLUE, False, False),
    ("a large circle", TWO_RED_ONE_BLUE, True, False),  # the other circle is small: not spoken of
]


@pytest.mark.parametrize(("text", "seen", "true", "exact"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES])
def test_the_truth_of_statements_is_decided(text, seen, true, exact):
    stated = parse(text)
    assert stated is not None
    assert (are_true(stated, seen), are_exact(stated, seen)) == (true, exact)


def test_a_relation_is_asked_of_the_things_that_its_claims_took():
    """The circle that is large stands left of the square, the other one does not."""
    seen = scene(("red", "circle", 0.2, 0.5, LARGE), ("red", "circle", 0.8, 0.2, SMALL))
    left = Statements((Claim(1, "large", None, "circle"), Claim(1, "small", None, "circle")), "left")
    assert are_true(left, seen)
    assert not are_true(Statements(left.claims, "right"), seen)


def test_an_empty_image_fulfils_nothing():
    empty = scene()
    for text in ("a red circle", "a shape", "four shapes", "a red circle on a black background"):
        stated = parse(text)
        assert stated is not None
        assert not are_true(stated, empty)
