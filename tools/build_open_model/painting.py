# SPDX-License-Identifier: Apache-2.0
"""Paints the colour of a face by formulas: a nonlinear function of a few named traits (in sigma).

Skin is coloured by `hiface.synthetic.skin_colour` from maps of melanin and blood; hair, eyes, teeth and the
mouth's inside are layers above it. Lengths are millimetres in the axes of the open model.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial import KDTree

from hiface.synthetic.skin_colour import skin_tone_rgb

from .texels import Texels

TRAITS = (
    ("melanin", "amount of melanin everywhere: light (-) to dark (+) skin"),
    ("haemoglobin", "amount of blood everywhere: pale (-) to ruddy (+)"),
    ("carotene", "yellow pigment everywhere: pink (-) to yellow (+) undertone"),
    ("lip_blood", "redness of the lips"),
    ("lip_melanin", "darkness of the lips"),
    ("brow_colour", "hair of the brows and the lash line: dark (-) to light (+)"),
    ("brow_density", "cover of the brows"),
    ("brow_thickness", "height of the brows' hair from edge to edge"),
    ("brow_position", "brows lower (-) or higher (+) on the skin"),
    ("beard", "stubble on cheeks, chin, jaw and neck"),
    ("moustache", "stubble between nose and lip"),
    ("under_eye", "dark rings under the eyes"),
    ("eyelids", "darkness of the upper lids and of the lash line"),
    ("cheeks", "redness of the cheeks"),
    ("nose", "redness of the nose"),
    ("forehead", "melanin of the forehead against the lower face"),
    ("centre", "melanin of the face's middle against its sides"),
    ("freckles", "small spots of melanin on cheeks and nose"),
    ("iris_lightness", "dark (-) to light (+) iris"),
    ("iris_hue", "brown (-) to blue (+) iris"),
    ("sclera", "clear white (-) to reddish (+) white of the eye"),
)
"""Axes of the albedo model, in order: name and what it does."""

_MELANIN_MEAN, _MELANIN_LOG_SIGMA = 0.058, 0.66
_BLOOD_MEAN, _BLOOD_LOG_SIGMA = 0.023, 0.33
_CAROTENE_MEAN, _CAROTENE_SIGMA = 0.4, 0.22
_CAROTENE_RGB = np.array([1.0, 0.965, 0.80])
"""Transmission of the skin's yellow pigments at full amount (carotenoids absorb from 420 to 500 nm)."""
_BROW_LINE = np.array(
    [
        [10.5, 16.7],
        [14.0, 17.9],
        [21.0, 18.9],
        [28.0, 19.3],
        [39.5, 18.5],
        [48.5, 15.9],
        [56.0, 10.9],
        [61.0, 6.8],
    ]
)
"""Middle of the hair, a little below the landmarks 21 to 17, from before the first to past the last."""
_BROW_HALF = np.array([3.2, 4.0, 4.3, 4.1, 3.4, 2.6, 1.7, 0.9])
_BEARD_LINE = np.array(
    [
        [0.0, -50.0],
        [13.0, -50.0],
        [22.0, -55.0],
        [29.0, -63.0],
        [36.0, -65.0],
        [46.0, -57.0],
        [57.0, -43.0],
        [64.0, -20.0],
        [70.0, 2.0],
    ]
)
_HAIR_WITH_SKIN, _BLUE_WITH_SKIN, _IRIS_WITH_SKIN = -0.35, -0.12, -0.12
"""What one sigma of melanin in the skin does to hair (log), share of blue and lightness (log) of the iris."""
_TOOTH_WIDTHS = {
    "teeth_upper": (8.5, 6.6, 7.8, 7.0, 6.8, 10.0, 10.0),
    "teeth_lower": (5.4, 6.0, 6.9, 7.1, 7.2, 11.0, 10.5),
}


def smooth(low: float, high: float, values: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at `low` to 1 at `high` (which may be smaller than `low`)."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def blob(
    position: np.ndarray, centre: tuple[float, float, float], radii: tuple[float, float, float]
) -> np.ndarray:
    """Gaussian spot in space, [N, 3] to [N]."""
    offset = (position - np.array(centre, dtype=np.float32)) / np.array(radii, dtype=np.float32)
    return np.exp(-0.5 * np.square(offset).sum(axis=1))


def noise(position: np.ndarray, wavelength_mm: float, seed: int) -> np.ndarray:
    """Band-limited noise with unit variance as a sum of random plane waves, [N, 3] to [N]."""
    generator = np.random.default_rng(seed)
    total = np.zeros(len(position), dtype=np.float32)
    count = 24
    for _ in range(count):
        direction = generator.normal(size=3)
        direction *= 2.0 * np.pi / (wavelength_mm * generator.uniform(0.7, 1.4) * np.linalg.norm(direction))
        total += np.cos(position @ direction.astype(np.float32) + np.float32(generator.uniform(0, 2 * np.pi)))
    return total * np.float32(np.sqrt(2.0 / count))


class Painter:
    """Holds the regions of one texel list, so that many paintings share them."""

    def __init__(self, texels: Texels) -> None:
        self.texels = texels
        self._table, self._log_melanin, self._log_blood = _tone_table()
        self.regions = _regions(texels)

    def paint(self, traits: Mapping[str, float]) -> np.ndarray:
        """Colour of every texel.

        Args:
            traits: Values in sigma by name; traits that are left out are zero.

        Returns:
            [N, 3] linear RGB in [0, 1].
        """
        p = {name: 0.0 for name, _ in TRAITS} | dict(traits)
        colour = self._skin(p)
        self._hair(colour, p)
        self._eyeballs(colour, p)
        self._mouth(colour, p)
        return np.clip(colour, 0.0, 1.0)

    def _tone(self, log_melanin: np.ndarray, log_blood: np.ndarray) -> np.ndarray:
        rows = (log_melanin - self._log_melanin[0]) / (self._log_melanin[1] - self._log_melanin[0])
        columns = (log_blood - self._log_blood[0]) / (self._log_blood[1] - self._log_blood[0])
        at = np.stack([rows, columns])
        return np.stack(
            [map_coordinates(plane, at, order=1, mode="nearest") for plane in self._table], axis=1
        )

    def _skin(self, p: Mapping[str, float]) -> np.ndarray:
        r = self.regions
        melanin = np.log(_MELANIN_MEAN) + _MELANIN_LOG_SIGMA * p["melanin"] + r["melanin"]
        melanin = melanin + 0.09 * p["forehead"] * r["upper_lower"] + 0.08 * p["centre"] * r["centre"]
        melanin = melanin + 0.13 * p["under_eye"] * r["under_eye"] + 0.13 * p["eyelids"] * r["lid_skin"]
        melanin = melanin + (0.10 + 0.11 * p["freckles"]) * r["freckles"]
        blood = np.log(_BLOOD_MEAN) + _BLOOD_LOG_SIGMA * p["haemoglobin"] + r["blood"]
        blood = blood + 0.19 * p["cheeks"] * r["cheeks"] + 0.19 * p["nose"] * r["nose"]
        blood = blood + 0.12 * p["under_eye"] * r["under_eye"]
        tone = self._tone(melanin, blood)
        lips = self._tone(
            0.95 * melanin + 0.05 * np.log(0.02) - 0.22 + 0.18 * p["lip_melanin"],
            np.log(0.085) + 0.35 * (blood - np.log(_BLOOD_MEAN)) + 0.26 * p["lip_blood"],
        ) * np.array([1.0, 0.86, 0.80])
        tone = tone + r["lips"][:, None] * (lips - tone)
        yellow = np.clip(_CAROTENE_MEAN + _CAROTENE_SIGMA * p["carotene"], 0.0, 1.5)
        tone *= _CAROTENE_RGB**yellow
        tone *= 1.0 - 0.72 * r["mouth_line"][:, None]
        return tone * (1.0 - r["nostrils"][:, None] * np.array([0.80, 0.88, 0.90]))

    def _hair(self, colour: np.ndarray, p: Mapping[str, float]) -> None:
        r = self.regions
        hair = np.array([0.050, 0.031, 0.020]) * np.exp(np.array([0.50, 0.55, 0.52]) * p["brow_colour"])
        hair = hair * np.exp(_HAIR_WITH_SKIN * p["melanin"])
        brow = _brow_cover(self.texels, p["brow_thickness"], p["brow_position"], r["hair_noise"])
        cover = brow * np.clip(0.74 + 0.12 * p["brow_density"], 0.0, 1.0)
        colour += cover[:, None] * (hair - colour)
        stubble = np.array([0.045, 0.038, 0.035])
        for name in ("beard", "moustache"):
            cover = r[name] * np.clip(0.09 + 0.085 * p[name], 0.0, 0.95)
            colour += cover[:, None] * (stubble - colour)
        lashes = r["lashes"] * np.clip(0.62 + 0.12 * p["eyelids"], 0.0, 1.0)
        colour += lashes[:, None] * (
            np.array([0.022, 0.016, 0.013]) * np.exp(0.3 * p["brow_colour"]) - colour
        )

    def _eyeballs(self, colour: np.ndarray, p: Mapping[str, float]) -> None:
        on = self.texels.on("eye")
        angle, turn = self.texels.eye_angle[on], self.texels.eye_turn[on]
        edge = smooth(22.0, 50.0, angle)[:, None]
        white = np.array([0.53, 0.50, 0.475]) * np.exp(np.array([-0.04, -0.08, -0.085]) * p["sclera"])
        colour_here = white * (1.0 - edge * (np.array([0.16, 0.30, 0.32]) + 0.03 * p["sclera"]))
        blue = np.clip(0.26 + 0.21 * p["iris_hue"] + _BLUE_WITH_SKIN * p["melanin"], 0.0, 1.0)
        iris = (1.0 - blue) * np.array([0.105, 0.053, 0.027]) + blue * np.array([0.135, 0.190, 0.235])
        iris = iris * np.exp(0.22 * p["iris_lightness"] + _IRIS_WITH_SKIN * p["melanin"])
        fibres = 1.0 + 0.14 * np.cos(17 * turn + 1.0) + 0.12 * np.cos(29 * turn) * np.cos(5 * turn + 0.4)
        ring = 1.0 + 0.30 * np.exp(-0.5 * ((angle - 11.0) / 2.2) ** 2) - 0.62 * smooth(17.5, 21.8, angle)
        inside = smooth(22.6, 21.0, angle)[:, None]
        colour_here += inside * (iris * (fibres * ring)[:, None] - colour_here)
        colour_here += smooth(8.4, 7.4, angle)[:, None] * (np.array([0.006, 0.006, 0.006]) - colour_here)
        colour[on] = colour_here

    def _mouth(self, colour: np.ndarray, p: Mapping[str, float]) -> None:
        texels = self.texels
        tan = np.exp(-0.10 * p["melanin"])
        on = texels.on("mouth_interior")
        depth = smooth(1.0, 26.0, texels.mouth_distance[on])[:, None]
        wet = np.array([0.36, 0.125, 0.105]) * tan
        colour[on] = wet + depth * (np.array([0.07, 0.018, 0.015]) - wet)
        on = texels.on("tongue")
        depth = smooth(8.0, -40.0, texels.position[on, 2])[:, None]
        rough = 1.0 + 0.05 * noise(texels.position[on], 2.5, 5)[:, None]
        colour[on] = np.array([0.42, 0.165, 0.145]) * rough * (1.0 - 0.75 * depth)
        for name in _TOOTH_WIDTHS:
            colour[texels.on(name)] = _teeth(texels, name)
        on = texels.on("socket")
        depth = smooth(0.3, 5.0, texels.lid_distance[on])[:, None]
        rim = 0.55 * colour[on] + 0.45 * np.array([0.42, 0.17, 0.14])
        corner = smooth(23.0, 20.5, texels.position[on, 0])[:, None]
        rim = rim + corner * (np.array([0.44, 0.19, 0.165]) - rim)
        colour[on] = rim + depth * (np.array([0.16, 0.05, 0.042]) - rim)


def _tone_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    log_melanin, log_blood = (
        np.linspace(np.log(0.004), np.log(0.6), 56),
        np.linspace(np.log(0.002), np.log(0.5), 48),
    )
    grid = np.meshgrid(np.exp(log_melanin), np.exp(log_blood), indexing="ij")
    melanin, blood = (torch.from_numpy(axis) for axis in grid)
    return skin_tone_rgb(melanin, blood).permute(2, 0, 1).numpy(), log_melanin, log_blood


def _regions(texels: Texels) -> dict[str, np.ndarray]:
    position = texels.position
    x, y, z = position.T
    skin = texels.on("skin").astype(np.float32)
    near_skin = texels.on("skin", "socket").astype(np.float32)
    front = smooth(-45.0, -20.0, z)
    lid_near = smooth(17.0, 7.0, texels.lid_distance)
    lips = _lips(texels)
    cheeks = blob(position, (41.0, -30.0, 8.0), (15.0, 13.0, 18.0))
    nose = blob(position, (0.0, -36.0, 41.0), (12.0, 10.0, 14.0)) + blob(
        position, (15.0, -37.0, 29.0), (6.0, 7.0, 8.0)
    )
    under = blob(position, (29.0, -10.5, 14.0), (11.0, 4.2, 12.0)) * (texels.lid_distance > 0)
    ears = smooth(70.0, 76.0, x) * smooth(-85.0, -70.0, z) * smooth(-66.0, -58.0, y) * smooth(38.0, 28.0, y)
    chin = blob(position, (0.0, -98.0, 23.0), (12.0, 9.0, 14.0))
    mottle = 0.018 * noise(position, 11.0, 1) + 0.02 * noise(position, 3.0, 2)
    redness = 0.035 * noise(position, 14.0, 3) + 0.035 * noise(position, 4.0, 4)
    mouth_round = smooth(16.0, 4.0, texels.mouth_distance) * (1.0 - lips)
    return {
        "melanin": 0.14 * lid_near
        + 0.10 * under
        + 0.07 * mouth_round
        + mottle
        - 0.10 * smooth(-108.0, -122.0, y) * front
        - 0.06 * ears,
        "blood": 0.42 * cheeks
        + 0.5 * np.clip(nose, 0, 1)
        + 0.35 * ears
        + 0.2 * chin
        + 0.25 * lid_near
        + 0.5 * smooth(3.0, 1.5, texels.lid_ring)
        - 0.15 * smooth(15.0, 45.0, y)
        + redness,
        "upper_lower": (smooth(-15.0, 30.0, y) * 2.0 - 1.0) * near_skin,
        "centre": (blob(position, (0.0, -30.0, 30.0), (30.0, 55.0, 45.0)) * 2.0 - 1.0) * near_skin,
        "under_eye": under * near_skin,
        "lid_skin": blob(position, (32.0, 8.5, 15.0), (13.0, 4.5, 12.0)) * near_skin,
        "cheeks": cheeks * skin,
        "nose": np.clip(nose, 0, 1) * skin,
        "freckles": _freckles(texels) * skin,
        "lips": lips * skin,
        "mouth_line": smooth(2.6, 0.8, texels.lip_ring) * skin,
        "nostrils": skin * smooth(1.25, 0.75, _ellipsoid(position, (10.0, -42.6, 31.0), (3.6, 2.4, 5.4))),
        "lashes": _lashes(texels) * skin,
        "hair_noise": noise(position * [1.0, 0.4, 1.0], 1.7, 7),
        **_beard_regions(texels, lips, skin),
    }


def _ellipsoid(position: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    offset = (position - np.array(centre, dtype=np.float32)) / np.array(radii, dtype=np.float32)
    return np.linalg.norm(offset, axis=1)


def _lips(texels: Texels) -> np.ndarray:
    """Cover of the vermilion: the edge loops around the mouth up to the seventh, pointed at the corners."""
    along = (texels.mouth_corner + 0.4 - texels.position[:, 0]) / 1.1
    inside = np.minimum(7.0 - texels.lip_ring, along)
    return smooth(-0.55, 0.55, inside)


def _lashes(texels: Texels) -> np.ndarray:
    """A dark line along the edge of the lids (third edge loop), broad on the outer upper lid, faint below."""
    outer = smooth(20.0, 36.0, texels.position[:, 0])
    centre = np.where(texels.upper_lid, 3.3 + 0.3 * outer, 3.3)
    width = np.where(texels.upper_lid, 1.15 + 0.5 * outer, 0.55 + 0.25 * outer)
    strength = np.where(texels.upper_lid, 1.0, 0.45) * smooth(18.5, 24.0, texels.position[:, 0])
    return strength * smooth(1.5, 0.3, np.abs(texels.lid_ring - centre) / width)


def _brow_cover(texels: Texels, thickness: float, height: float, hair_noise: np.ndarray) -> np.ndarray:
    """Cover of the brows: soft at the head, tapered at the tail, uneven like hair."""
    x, y, z = texels.position.T
    line = np.interp(x, _BROW_LINE[:, 0], _BROW_LINE[:, 1]) + 0.45 * height
    half = np.interp(x, _BROW_LINE[:, 0], _BROW_HALF) * np.exp(0.13 * thickness)
    across = (y - line) / half
    across = np.where(across > 0, across * 0.92, across * 1.05)
    body = smooth(1.45, 0.15, np.abs(across) + 0.06 * hair_noise)
    ends = smooth(7.5, 16.5, x + 0.6 * hair_noise) * smooth(63.0, 54.0, x)
    return body * ends * (1.0 + 0.06 * hair_noise).clip(0.7, 1.15) * texels.on("skin") * (z > -30.0)


def _beard_regions(texels: Texels, lips: np.ndarray, skin: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z = texels.position.T
    off_lips = skin * (1.0 - lips) * smooth(1.0, 2.8, np.abs(np.minimum(texels.lip_ring - 7.0, 3.0)) + 0.3)
    below = smooth(7.0, -6.0, y - np.interp(x, _BEARD_LINE[:, 0], _BEARD_LINE[:, 1]))
    front = smooth(-70.0, -34.0, z)
    neck = smooth(-140.0, -118.0, y)
    moustache = smooth(30.0, 24.0, x) * smooth(-71.0, -66.0, y) * smooth(-47.0, -51.5, y)
    grain = (1.0 + 0.12 * noise(texels.position, 2.2, 9)).clip(0.5, 1.4)
    hairless = 0.6 * blob(texels.position, (13.0, -84.0, 22.0), (6.0, 4.0, 12.0))
    area = below * front * neck * off_lips * grain
    return {"beard": area * (1.0 - moustache) * (1.0 - hairless), "moustache": area * moustache}


def _freckles(texels: Texels) -> np.ndarray:
    """Round spots of half a millimetre to two, dense on cheeks and nose."""
    generator = np.random.default_rng(11)
    position = texels.position
    density = blob(position, (30.0, -25.0, 18.0), (20.0, 13.0, 22.0)) + 0.7 * blob(
        position, (0.0, -21.0, 36.0), (12.0, 18.0, 16.0)
    )
    where = np.flatnonzero(texels.on("skin") & (generator.uniform(size=len(position)) < 0.006 * density))
    cover = np.zeros(len(position), dtype=np.float32)
    tree = KDTree(position)
    for index in where:
        radius = generator.uniform(0.5, 1.1)
        around = np.array(tree.query_ball_point(position[index], 2.5 * radius))
        spot = np.exp(-0.5 * np.square(np.linalg.norm(position[around] - position[index], axis=1) / radius))
        cover[around] = np.maximum(cover[around], spot * generator.uniform(0.5, 1.0))
    return cover


def _teeth(texels: Texels, name: str) -> np.ndarray:
    """Crowns with gaps between them, gum above, darker towards the back."""
    x, y, z = texels.position[texels.on(name)].T
    side = -1.0 if name == "teeth_upper" else 1.0
    turn = np.arctan2(x, z + 30.0)
    bins = np.linspace(0.0, turn.max(), 24)
    which = np.digitize(turn, bins)
    edge = np.array([(side * y[which == k]).max() if (which == k).any() else np.nan for k in range(1, 25)])
    outer = np.array(
        [np.hypot(x, z + 30.0)[which == k].max() if (which == k).any() else np.nan for k in range(1, 25)]
    )
    known = ~np.isnan(edge)
    height = np.interp(turn, bins[known], edge[known]) - side * y
    arc = np.r_[0.0, np.cumsum(0.5 * (outer[known][1:] + outer[known][:-1]) * np.diff(bins[known]))]
    along = np.interp(turn, bins[known], arc)
    gaps = np.r_[0.0, np.cumsum(_TOOTH_WIDTHS[name])]
    distance = np.abs(along[:, None] - gaps[None, :]).min(axis=1)
    crown = (10.2 if name == "teeth_upper" else 8.6) - 1.6 * smooth(3.0, 0.0, distance)
    colour = np.array([0.66, 0.59, 0.47]) * (1.0 - 0.5 * smooth(0.75, 0.15, distance))[:, None]
    gum = smooth(-0.7, 0.7, height - crown)[:, None]
    colour = colour + gum * (np.array([0.42, 0.15, 0.135]) - colour)
    return colour * (1.0 - 0.85 * smooth(15.0, 36.0, along))[:, None]
