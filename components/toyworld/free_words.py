"""The words in which people speak of toy scenes, beyond those of captions; for free_text.py."""

from collections.abc import Iterable

from components.toyworld.manners import plural
from components.toyworld.scene import BACKGROUNDS, COLOURS, SHAPES

SOMETHING = "something"  # a noun of no shape
EVERY_CORNER = "everycorner"
PIECES = "pieces"  # after a number: so many of what was named
STOP = ","  # all that parts phrases


def _by_word(lists: dict[str, str], names: Iterable[str] = ()) -> dict[str, str]:
    listed = dict.fromkeys(names, "") | lists
    return {word: name for name, words in listed.items() for word in (name, *words.split())}


SIZE_OF = _by_word(
    {
        "small": "little tiny mini miniature teeny smallish wee petite itty bitty minuscule lil",
        "large": "big huge giant enormous massive gigantic oversized sizeable sizable jumbo colossal immense"
        " vast",
    }
)
COLOUR_OF = _by_word(
    {
        "red": "crimson scarlet ruby", "orange": "tangerine", "yellow": "golden gold lemon",
        "green": "emerald", "cyan": "turquoise aqua", "blue": "sapphire navy cobalt",
        "purple": "violet lilac lavender", "pink": "rose",
    },
    COLOURS,
)  # fmt: skip
_NAMES = _by_word({"circle": "disc disk ball dot", "square": "box block"}, SHAPES)
SHAPE_OF: dict[str, tuple[str | None, bool]] = {  # and whether it is a plural
    form: (name, form != word) for word, name in _NAMES.items() for form in (word, plural(word))
} | {"boxes": ("square", True), SOMETHING: (None, False)}
NUMBER_OF = {
    **dict.fromkeys(("1", "one", "single", "lone", "solitary", "sole"), 1),
    **dict.fromkeys(("2", "two", "pair", "couple", "duo", "twin"), 2),
    **dict.fromkeys(("3", "three", "trio"), 3),
    **dict.fromkeys(("4", "four", "quartet"), 4),
}
POSITION_OF = _by_word(
    {
        "top": "upper north up", "bottom": "lower south down", "left": "west", "right": "east",
        "centre": "center middle central centred centered centrally mid",
    }
)  # fmt: skip
VERTICAL_RELATION_OF = _by_word({"above": "over atop", "below": "under beneath underneath"})
ARTICLES = ("a", "an", "the")
PLAIN = """
    plain solid flat simple pure clean clear bright nice filled coloured colored geometric bold lovely cute
    beautiful perfect neat lime hot royal sky brand deep warm vivid neon dark light pale grass blood cherry
    uniform
    """.split()
PICTURES = set(
    """
    picture image frame canvas page screen drawing photo scene composition illustration view layout sign
    sticker label card flag logo icon emblem badge poster banner sheet paper worksheet stamp tile symbol
    graphic display marker tag button wallpaper print stimulus field space concept version idea artwork art
    mockup header template slide cover chart avatar asset sprite thumbnail
    """.split()
)
WITHIN_PLACE = ("hand", "most", "the", "very")
WAYS = ("up", "down")  # places only beside another one, or before one of these:
BEHIND_WAYS = ("in", "at", "near", "low", "high", "by", "along")
ADJECTIVES = {*SIZE_OF, *COLOUR_OF, *PLAIN}
# What turns a sentence round; where a phrase says nothing else of the scene, it says nothing.
NEGATIONS = {"no", "not", "without", "except", "none", "never", "neither", "nor", "nothing", "t"}
# What says where, or compares, in a way that is not read here.
NOT_READ = set(
    """
    than halfway between row column quarter third inside around clock foot diagonal diagonally touching
    overlapping rotated opposite thereunder overhead underfoot adjacent flanking corners larger smaller bigger
    same across through crossing
    """.split()
)
TOGETHER = {"all", "both", "each", "every", "they", "them", "everything"}
PURPOSES = {"for", "so", "because", "since", "like", "as"}  # what such a phrase names is not in the scene
# What may follow an article or stand before a noun, and says nothing here.
FILLERS = """
    and with of in front on at to is are it its their there this that which has have plus also then i we
    you me my would want need like could can please just only some draw show paint create make generate
    give put place photograph painting rendering sketch whole vector design style shape shapes object
    objects thing things figure figures colour color background backdrop ground backing hand corner side
    part area half edge edges surface near next beside by other size sizes position positions reads shows
    containing saying contain contains see get add do let print render placed located sits sitting stands
    standing floating shown displayed from into be must should shall will another again too now well
    really up down very so as for him her us she he they love wants wish wishes set draws lying resting
    hangs sky wall request kind sort group bit lot moment favour favor dead here but quite rather alone
    total ones rest count number amount low high towards toward
    """.split()
KNOWN = {
    *SIZE_OF, *COLOUR_OF, *SHAPE_OF, *NUMBER_OF, *POSITION_OF, *VERTICAL_RELATION_OF, *ARTICLES, *PLAIN,
    *PICTURES, *FILLERS, *BACKGROUNDS, *TOGETHER, EVERY_CORNER, PIECES, STOP,
}  # fmt: skip
