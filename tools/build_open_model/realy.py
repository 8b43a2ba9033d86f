# SPDX-License-Identifier: Apache-2.0
"""The 85 keypoints of REALY on the open model: iBUG-68 and 17 more on cheeks, temples and chin.

``realy17`` of the recipe says where each of the 17 lies from landmarks near it, in distances of the outer eye
corners: lateral, up and forward on a head whose line from the bridge of the nose (27) to the chin (8) leans
back by 6.5 degrees. Where two landmarks are named, the mean of both places is taken; the point is the skin
nearest to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .surface import Point, Surface

LEAN_DEG = 6.5
MIRROR = (69, 68, 71, 70, 73, 72, 75, 74, 77, 76, 80, 79, 78, 82, 81, 84, 83)
"""Number of the mirror image of 68 to 84; 68 and 69 are not exact mirror images of each other."""


def realy85_points(surface: Surface, recipe: dict[str, Any], ibug: list[Point]) -> list[Point]:
    """All 85 points.

    Args:
        surface: Mean head.
        recipe: Hand-made definitions.
        ibug: The 68 points.
    """
    places = surface.positions(ibug)
    unit = float(np.linalg.norm(places[45] - places[36]))
    down = places[8] - places[27]
    turn = np.radians(LEAN_DEG) - np.arctan2(-down[2], -down[1])
    c, s = np.cos(turn), np.sin(turn)
    R = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    skin = surface.part_triangles("skin")
    points = list(ibug)
    for number in range(68, 85):
        near = recipe["realy17"][str(number)]
        wanted = [places[int(i)] + unit * R.T @ np.array(offset) for i, offset in near.items()]
        points.append(surface.closest(np.mean(wanted, axis=0), skin))
    return points
