# SPDX-License-Identifier: Apache-2.0
"""Small drawing helpers: landmark lines, titles, panels in a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hiface.assets import load_json_asset

LINE_COLOUR = (64, 224, 255)
POINT_COLOUR = (255, 255, 255)
INK = (52, 56, 64)
PAPER = (250, 250, 251)
NOTHING_SRGB8 = (226, 229, 234)
"""Where a window reaches beyond the photo."""
_SUPERSAMPLE = 3


@cache
def landmark_lines() -> tuple[tuple[int, ...], ...]:
    """Polylines through the 68 iBUG landmarks, as landmark indices; closed ones repeat their first."""
    lines = []
    for line in load_json_asset("landmarks/ibug68_lines.json")["lines"]:
        ids = list(range(line["from"], line["to"] + 1))
        lines.append(tuple(ids + ids[:1] if line["closed"] else ids))
    return tuple(lines)


def draw_landmarks(image: Image.Image, landmarks_px: Tensor, width: float = 1.5) -> Image.Image:
    """Draws 68 landmarks with their lines; other numbers of points as dots only.

    Args:
        image: Picture, RGB.
        landmarks_px: [L, 2] pixels of `image`.
        width: Line width in pixels.

    Returns:
        A copy with the landmarks, drawn smoothly.
    """
    s = _SUPERSAMPLE
    layer = Image.new("RGBA", (image.width * s, image.height * s), (*LINE_COLOUR, 0))
    pen = ImageDraw.Draw(layer)
    points = [(float(x) * s, float(y) * s) for x, y in landmarks_px.detach().cpu().tolist()]
    if len(points) == 68:
        for line in landmark_lines():
            pen.line(
                [points[i] for i in line], fill=(*LINE_COLOUR, 225), width=round(width * s), joint="curve"
            )
    radius = 1.1 * width * s
    for x, y in points:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*POINT_COLOUR, 255))
    small = layer.resize(image.size, Image.Resampling.BOX)
    return Image.alpha_composite(image.convert("RGBA"), small).convert("RGB")


def grid(panels: Sequence[tuple[str, Image.Image]], columns: int, gap: int = 14) -> Image.Image:
    """Arranges panels of one size in rows, with a title above each.

    Args:
        panels: Title and picture of each panel.
        columns: Panels per row.
        gap: Space between panels and around them, pixels.

    Returns:
        The sheet, RGB.
    """
    width, height = panels[0][1].size
    font_px = max(11, round(height * 0.048))
    title = round(font_px * 1.7)
    rows = -(-len(panels) // columns)
    size = (columns * (width + gap) + gap, rows * (height + title + gap) + gap // 2)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(font_px)
    for i, (text, picture) in enumerate(panels):
        x = gap + (i % columns) * (width + gap)
        y = gap // 2 + (i // columns) * (height + title + gap)
        pen.text((x + 2, y + title * 0.48), text, fill=INK, font=font, anchor="lm")
        sheet.paste(picture, (x, y + title), _rounded((width, height), max(3, height // 48)))
    return sheet


def _rounded(size: tuple[int, int], radius: int) -> Image.Image:
    s = _SUPERSAMPLE
    mask = Image.new("L", (size[0] * s, size[1] * s), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] * s - 1, size[1] * s - 1), radius * s, fill=255)
    return mask.resize(size, Image.Resampling.BOX)


def crop_square(
    image_srgb: np.ndarray, centre_px: tuple[float, float], side_px: float, out_px: int
) -> Image.Image:
    """A square of a photo at another size, in one colour outside the photo.

    Args:
        image_srgb: [H, W, 3] uint8 sRGB.
        centre_px: Centre of the square in pixels of the photo.
        side_px: Its side in pixels of the photo.
        out_px: Side of the result.

    Returns:
        RGB picture, [out_px, out_px].
    """
    height, width = image_srgb.shape[:2]
    x0 = min(max(centre_px[0] - side_px / 2, -side_px - 1.0), width + 1.0)
    y0 = min(max(centre_px[1] - side_px / 2, -side_px - 1.0), height + 1.0)
    before = [max(0, 2 - math.floor(v)) for v in (y0, x0)]
    after = [max(0, math.ceil(v + side_px) + 2 - n) for v, n in ((y0, height), (x0, width))]
    padded = np.pad(image_srgb, ((before[0], after[0]), (before[1], after[1]), (0, 0)), mode="edge")
    box = (x0 + before[1], y0 + before[0], x0 + before[1] + side_px, y0 + before[0] + side_px)
    picture = Image.fromarray(padded).resize((out_px, out_px), Image.Resampling.LANCZOS, box=box)
    scale = out_px / side_px
    left, top = (min(max(round(-v * scale), 0), out_px) for v in (x0, y0))
    right, bottom = (min(max(round((n - v) * scale), 0), out_px) for n, v in ((width, x0), (height, y0)))
    plain = Image.new("RGB", (out_px, out_px), NOTHING_SRGB8)
    if left < right and top < bottom:
        plain.paste(picture.crop((left, top, right, bottom)), (left, top))
    return plain
