"""The alt texts of the toy web: what people write about a scene, and what pages have instead.

Every function is a pure function of the scene and the generator.
"""

from collections import Counter
from collections.abc import Callable

import numpy as np

from components.toyworld.captions import caption_long, caption_short, in_reading_order
from components.toyworld.manners import listed, phrase, plural
from components.toyworld.scene import Scene

_COLOUR_WORDS = {
    "de": ("Rot", "Orange", "Gelb", "Grün", "Türkis", "Blau", "Lila", "Rosa"),
    "fr": ("rouge", "orange", "jaune", "verte", "turquoise", "bleue", "violette", "rose"),
    "es": ("rojo", "naranja", "amarillo", "verde", "turquesa", "azul", "morado", "rosa"),
    "ru": ("красного", "оранжевого", "жёлтого", "зелёного", "голубого", "синего", "лилового", "розового"),
    "zh": ("红色", "橙色", "黄色", "绿色", "青色", "蓝色", "紫色", "粉色"),
    "ja": ("赤い", "オレンジ色の", "黄色い", "緑の", "水色の", "青い", "紫の", "ピンクの"),
}
_SHAPE_WORDS = {
    "de": ("Kreis", "Quadrat", "Dreieck", "Stern", "Kreuz"),
    "fr": ("cercle", "carré", "triangle", "étoile", "croix"),
    "es": ("círculo", "cuadrado", "triángulo", "estrella", "cruz"),
    "ru": ("круг", "квадрат", "треугольник", "звезда", "крест"),
    "zh": ("圆形", "正方形", "三角形", "星星", "十字"),
    "ja": ("丸", "四角", "三角", "星", "十字"),
}
_BACKGROUND_WORDS = {
    "de": ("schwarzem", "weißem", "grauem", "braunem"),
    "fr": ("noir", "blanc", "gris", "marron"),
    "es": ("negro", "blanco", "gris", "marrón"),
    "ru": ("чёрном", "белом", "сером", "коричневом"),
    "zh": ("黑色", "白色", "灰色", "棕色"),
    "ja": ("黒い", "白い", "灰色の", "茶色の"),
}
_SENTENCES = {
    "de": "Ein Bild mit einer Figur in {colour}: {shape} auf {background} Hintergrund",
    "fr": "Dessin d'une forme, {shape} de couleur {colour} sur un fond {background}",
    "es": "Dibujo de una figura: {shape} de color {colour} sobre un fondo {background}",
    "ru": "Рисунок: {shape} {colour} цвета на {background} фоне",
    "zh": "{background}背景上的{colour}{shape}图案",
    "ja": "{background}背景に{colour}{shape}が描かれたイラスト",
}
_ENGLISH_ORDER = {
    "colour": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"),
    "shape": ("circle", "square", "triangle", "star", "cross"),
    "background": ("black", "white", "grey", "brown"),
}


def good_text(scene: Scene, rng: np.random.Generator) -> str:
    """A true description, as complete as the short or the long caption, in some person's manner."""
    return _typed(caption_short(scene, rng) if rng.random() < 0.5 else caption_long(scene, rng), rng)


def partial_text(scene: Scene, rng: np.random.Generator) -> str:
    """True, but it leaves out things, a colour or a number."""
    things = in_reading_order(scene)
    first = things[0]
    looks = list(Counter((thing.colour, thing.shape) for thing in things).items())
    place = f" on a {scene.background} background" if rng.random() < 0.5 else ""
    if len(looks) > 1:
        # Whole looks: "a red circle" is false where there are two.
        some = rng.permutation(len(looks)).tolist()[: max(1, len(looks) - 2)]
        kept = [looks[i] for i in sorted(some)]
        text = listed([phrase(colour, shape, count) for (colour, shape), count in kept])
    elif len(things) > 1:
        text = f"{first.colour} {plural(first.shape)}"
    elif place:
        text = phrase(None, first.shape) if rng.random() < 0.5 else phrase(first.colour, "shape")
    else:
        text = f"{first.colour} {first.shape}"
    return _typed(text + place, rng)


def vague_text(scene: Scene, rng: np.random.Generator) -> str:
    """True of the image, and of many others."""
    thing = scene.things[0]
    several = len(scene.things) > 1
    shapes = "shapes" if several else "shape"
    choices = (
        f"a drawing with {phrase(None, thing.shape)} in it",
        f"{'some' if several else 'a'} {shapes} on a {scene.background} background",
        f"{thing.colour} on a {scene.background} background",
        f"a {thing.shape} shape" if not several else f"a {thing.shape} and more {shapes}",
        f"something {thing.colour} on {scene.background}",
        f"simple geometric {shapes}",
    )
    return _typed(str(rng.choice(choices)), rng)


def colourless_text(scene: Scene, rng: np.random.Generator) -> str:
    """What is true of a greyscale image of the scene."""
    shapes = Counter(thing.shape for thing in in_reading_order(scene))
    return f"{listed([phrase(None, *item) for item in shapes.items()])} in black and white"


def filename_text(scene: Scene, rng: np.random.Generator) -> str:
    colour, shape = scene.things[0].colour, scene.things[0].shape
    return _one_of(
        rng,
        f"IMG_{rng.integers(10_000):04d}.JPG",
        f"DSC_{rng.integers(10_000):04d}",
        f"DSCF{rng.integers(10_000):04d}.jpg",
        f"{colour}_{shape}_{rng.integers(100)}.png",
        f"{colour}-{shape}-final({rng.integers(2, 9)}).webp",
        f"Screenshot_2024-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}_10_31_07.png",
        f"{shape}@2x.png",
        f"WhatsApp Image 2023-0{rng.integers(1, 10)}-11 at 10.{rng.integers(10, 60)}.02.jpeg",
    )


def url_text(scene: Scene, rng: np.random.Generator) -> str:
    colour, shape = scene.things[0].colour, scene.things[0].shape
    return _one_of(
        rng,
        f"https://cdn.example.com/img/{colour}-{shape}.jpg?w={rng.integers(100, 900)}",
        f"http://www.example.org/{shape}s/{rng.integers(10_000)}",
        f"www.{colour}{shape}.example.com",
        f"https://example.net/p/{rng.integers(1 << 40):x}",
    )


def digits_text(scene: Scene, rng: np.random.Generator) -> str:
    return _one_of(
        rng,
        f"{rng.integers(100, 2000)}x{rng.integers(100, 2000)}",
        f"{rng.integers(10**9, 10**10)}",
        f"{rng.integers(16, 512)} x {rng.integers(16, 512)} px",
        f"{rng.integers(1 << 60):015x}",
        f"{rng.integers(1, 9)}_{rng.integers(1, 99)}",
        f"2023{rng.integers(10**9, 10**10)}",
        f"SKU-{rng.integers(10_000, 99_999)}-{rng.integers(10, 99)}",
    )


def boilerplate_text(scene: Scene, rng: np.random.Generator) -> str:
    return _one_of(
        rng, "image", "Image", "photo", "picture", "img", "logo", "icon", "banner", "Untitled", "thumbnail",
        "placeholder image", "No image available", "Image result", "Click here to close", "click to enlarge",
        "image description", f"image {rng.integers(1, 40)}", f"Photo {rng.integers(1, 40)}", "alt text",
        "Text Description automatically generated", "featured image", "undefined", "product image",
    )  # fmt: skip


def spam_text(scene: Scene, rng: np.random.Generator) -> str:
    thing = scene.things[0]
    colour, shape = thing.colour, thing.shape
    return _one_of(
        rng,
        f"Buy {colour} {shape} stickers online | best prices | free shipping",
        f"{colour} {shape} for sale - shop now and save {rng.integers(10, 80)}%",
        f"Cheap {plural(shape)} | {colour} {plural(shape)} | {shape} price | {shape} online",
        f"Top 10 {shape} designs of 2024 - click here!",
        f"{shape} {shape} shop, buy {shape}, {shape} discount, best {shape} deals",
        f"FREE SHIPPING on all {colour} {plural(shape)}! Order today",
        f"{colour.title()} {shape.title()} Wall Sticker ${rng.integers(2, 60)}.99 - Add to cart",
        f"Download {colour} {shape} vector free, royalty free {shape} wallpaper HD download",
    )


def markup_text(scene: Scene, rng: np.random.Generator) -> str:
    text = caption_short(scene)
    return _one_of(
        rng,
        f"<b>{text}</b>",
        f'<img src="/media/{rng.integers(10_000)}.png" alt="{text}">',
        f"<p>{text}</p><br/>",
        f"&lt;div class=&quot;caption&quot;&gt;{text}&lt;/div&gt;",
        f"[{text}](https://example.com/{rng.integers(10_000)})",
        '<span style="font-size:12px">photo</span>',
        "{{ image.alt }}",
        f'[caption id="attachment_{rng.integers(10_000)}"]{text}[/caption]',
    )


def language_text(scene: Scene, rng: np.random.Generator) -> str:
    """A true description, in a language other than English."""
    language = str(rng.choice(list(_SENTENCES)))
    thing = scene.things[0]
    return _SENTENCES[language].format(
        colour=_COLOUR_WORDS[language][_ENGLISH_ORDER["colour"].index(thing.colour)],
        shape=_SHAPE_WORDS[language][_ENGLISH_ORDER["shape"].index(thing.shape)],
        background=_BACKGROUND_WORDS[language][_ENGLISH_ORDER["background"].index(scene.background)],
    )


TRUE_TEXTS: dict[str, Callable[[Scene, np.random.Generator], str]] = {
    "good": good_text,
    "partial": partial_text,
    "vague": vague_text,
    "colourless": colourless_text,
}
JUNK_TEXTS: dict[str, Callable[[Scene, np.random.Generator], str]] = {
    "filename": filename_text,
    "url": url_text,
    "digits": digits_text,
    "boilerplate": boilerplate_text,
    "spam": spam_text,
    "markup": markup_text,
    "language": language_text,
}


def _typed(text: str, rng: np.random.Generator) -> str:
    """The same words as different people type them, beside the manners that captions have."""
    capital = text[0].upper() + text[1:]
    return _one_of(
        rng, text, text, text, capital, capital, f"{capital}.", f"Picture of {text}", f"Drawing of {text}",
        text.removeprefix("a ").removeprefix("an "), f"  {capital}\n", text.replace(" and ", " &amp; "),
        text.replace(" ", "\u00a0", 1),
    )  # fmt: skip


def _one_of(rng: np.random.Generator, *texts: str) -> str:
    return texts[int(rng.integers(len(texts)))]
