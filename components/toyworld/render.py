"""Renders a scene of the toy world."""

import numpy as np
from PIL import Image, ImageDraw

from components.toyworld.scene import BACKGROUNDS, COLOURS, Scene, outline

OVERSAMPLING = 4  # rendered at four times the side and averaged down: antialiased edges


def render(scene: Scene, size: int) -> Image.Image:
    """The scene as an RGB image of `size` × `size` pixels."""
    side = size * OVERSAMPLING
    canvas = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    draw = ImageDraw.Draw(canvas)
    for thing in scene.things:
        corners = np.asarray(outline(thing.shape)) * thing.size + (thing.x, thing.y)
        draw.polygon((corners * side - 0.5).ravel().tolist(), fill=COLOURS[thing.colour])
    return canvas.reduce(OVERSAMPLING)
