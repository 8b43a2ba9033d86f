# SPDX-License-Identifier: Apache-2.0
"""Several pictures of one person, each with its own pose, expression, light, clothes and camera."""

from __future__ import annotations

import numpy as np

from hiface.morphable import MorphableModel
from hiface.synthetic.generator import Style, SyntheticSample, take_picture
from hiface.synthetic.shots import draw_shot, sitter_of


def generate_views(model: MorphableModel, number: int, style: Style, views: int = 2) -> list[SyntheticSample]:
    """Pictures of one person.

    Args:
        model: Face model.
        number: Number of the person, and the seed of everything else.
        style: Size, effects, labels.
        views: Number of pictures; the first ones are the same whatever it is.

    Returns:
        Samples with equal `person`, identity and albedo.
    """
    sitter = sitter_of(model, number, style.effects)
    out = []
    for view in range(views):
        rng = np.random.default_rng([number, 29, view])
        shot = draw_shot(model, sitter, rng, style.size, style.effects)
        out.append(take_picture(model, shot, rng, style, number).sample)
    return out
