"""Scenes as the web draws them, and the training texts about them, once for all tests of this folder."""

from collections.abc import Callable

import numpy as np
import pytest

from components.toyworld import web_texts
from components.toyworld.captions import caption_long, caption_short
from components.toyworld.layout import draw_scene
from components.toyworld.scene import Scene

TEXTS: tuple[Callable[[Scene, np.random.Generator], str], ...] = (
    caption_short, caption_long, web_texts.good_text, web_texts.partial_text, web_texts.vague_text,
)  # fmt: skip


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    rng = np.random.default_rng(7)
    return [draw_scene(rng) for _ in range(4000)]


@pytest.fixture(scope="session")
def training_texts(scenes: list[Scene]) -> list[str]:
    """20,000 captions and alt texts: five of each scene, in random manners."""
    rng = np.random.default_rng(8)
    return [text(scene, rng) for scene in scenes for text in TEXTS]
