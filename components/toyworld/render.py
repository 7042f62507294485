"""Renders a scene of the toy world."""

from PIL import Image, ImageDraw, ImageFilter

from components.toyworld.outlines import corners_of
from components.toyworld.scene import Scene

OVERSAMPLING = 4  # rendered at four times the side and averaged down: antialiased edges


def render(scene: Scene, size: int) -> Image.Image:
    """The scene as an RGB image of `size` × `size` pixels."""
    side = size * OVERSAMPLING
    canvas = Image.new("RGB", (side, side), scene.paint)
    draw = ImageDraw.Draw(canvas)
    for thing in scene.things:
        draw.polygon((corners_of(thing) * side - 0.5).ravel().tolist(), fill=thing.paint)
    if scene.softness:
        canvas = canvas.filter(ImageFilter.GaussianBlur(scene.softness * side))
    return canvas.reduce(OVERSAMPLING)
