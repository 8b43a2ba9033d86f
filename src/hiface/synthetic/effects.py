# SPDX-License-Identifier: Apache-2.0
"""Parts of the generator that can be switched off, to measure what each of them is worth.

All random numbers are drawn as usual, so the same seed shows the same person in the same pose, light and
frame whatever is switched off; what is left out is not painted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hiface.errors import OptionError
from hiface.synthetic.compose import Wardrobe
from hiface.synthetic.lights import Surroundings
from hiface.synthetic.people import Person
from hiface.synthetic.skin_marks import NO_MARKS

EFFECTS = {
    "hair": "hair on the head, beards, stubble",
    "glasses": "glasses and sunglasses",
    "hats": "hats, hoods, helmets, headscarves, scarves",
    "occluders": "masks, hands and things in front of the face",
    "skin": "blotches, freckles, moles, flush, make-up, creases and rings at the eyes, faded brows and lips",
    "wrinkles": "wrinkles, folds and pores as displacement",
    "lashes": "lashes and eyeliner",
    "lamps": "lamps with their shadows and highlights; light is even without them",
    "background": "anything but a grey wall",
    "camera": "blur, noise, white balance, tone, grey, low resolution, JPEG",
}
ALL_EFFECTS = frozenset(EFFECTS)
PLAIN = frozenset[str]()
_GREY = 0.2


def parse_effects(text: str) -> frozenset[str]:
    """Effects that a text names.

    Args:
        text: "all", "plain" (none), names with commas between, or names with a minus: "all,-hair,-glasses".

    Returns:
        Names of `EFFECTS`.

    Raises:
        OptionError: A name is unknown.
    """
    chosen: set[str] = set()
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words and all(word.startswith("-") for word in words):
        words = ["all", *words]
    for word in words:
        name = word.removeprefix("-")
        if name == "all":
            chosen |= ALL_EFFECTS
        elif name not in EFFECTS and name != "plain":
            known = ", ".join(EFFECTS)
            raise OptionError(f"unknown effect {name!r}; choose all, plain or some of: {known}")
        elif word.startswith("-"):
            chosen.discard(name)
        elif name != "plain":
            chosen.add(name)
    return frozenset(chosen)


def dressed_down(wardrobe: Wardrobe, effects: frozenset[str]) -> Wardrobe:
    """A wardrobe without the accessories that are switched off."""
    return replace(
        wardrobe,
        glasses=wardrobe.glasses if "glasses" in effects else None,
        hat=wardrobe.hat if "hats" in effects else None,
        occluder=wardrobe.occluder and "occluders" in effects,
        mask=wardrobe.mask if "occluders" in effects else None,
        scarf=wardrobe.scarf if "hats" in effects else None,
    )


def simplified(person: Person, effects: frozenset[str]) -> Person:
    """A person without the hair and the details of the skin that are switched off."""
    features = person.features
    if "lashes" not in effects:
        features = replace(features, lashes=replace(features.lashes, upper=0.0, lower=0.0, line=0.0))
    if "skin" not in effects:
        lids = replace(features.lids, crease=0.0, hood=0.0, shadow=0.0, bag=0.0, circle=0.0, rim=0.0)
        features = replace(features, lids=lids, brow_fade=0.0, brow_ragged=0.0, lip_fade=0.0)
    hair = person.hair if "hair" in effects else replace(person.hair, kind="bald", shade=0.0)
    bare = replace(person.beard, kind="none", shade=0.0)
    beard = person.beard if "hair" in effects else bare
    marks = person.marks if "skin" in effects else NO_MARKS
    blotches = person.blotches if "skin" in effects else (0.0, 0.0)
    return replace(person, features=features, hair=hair, beard=beard, blotches=blotches, marks=marks)


def without_lamps(lights: Surroundings, effects: frozenset[str]) -> Surroundings:
    """Light without its lamps, if they are switched off; what is left is even."""
    if "lamps" in effects:
        return lights
    level = np.full(3, max(float(lights.ambient.mean()), 0.05), dtype=np.float32)
    return replace(
        lights,
        ambient=level,
        gradient=np.zeros_like(lights.gradient),
        lobe_colours=np.zeros_like(lights.lobe_colours),
    )


def wall(paint: Callable[[], Tensor], size: int, effects: frozenset[str]) -> Tensor:
    """The background [3, size, size] that is painted, or a grey wall if backgrounds are switched off."""
    return paint() if "background" in effects else torch.full((3, size, size), _GREY)
