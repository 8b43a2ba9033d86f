# SPDX-License-Identifier: Apache-2.0
"""Hair: a few shells around the skull whose outer layers are cut into strands by noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.geometry.normals import vertex_normals
from hiface.synthetic.lights import Surroundings, plain_light
from hiface.synthetic.noise import noise_pool, sample_noise
from hiface.synthetic.scene import Canvas
from hiface.synthetic.shells import N_AZIMUTH, ShellSpec, azimuths, grid_triangles, shell_points
from hiface.synthetic.vectors import unit_rows

LABEL_HAIR = 4
_ROWS = 18
_HANG_ROWS = 10
_COLOURS = np.array(
    [
        [0.010, 0.008, 0.007],
        [0.028, 0.016, 0.010],
        [0.065, 0.036, 0.020],
        [0.16, 0.095, 0.05],
        [0.36, 0.25, 0.13],
        [0.20, 0.07, 0.028],
        [0.22, 0.21, 0.20],
        [0.58, 0.56, 0.53],
        [0.3, 0.1, 0.25],
    ]
)
_COLOUR_SHARE = np.array([0.27, 0.24, 0.15, 0.09, 0.08, 0.04, 0.07, 0.05, 0.01])


@dataclass(frozen=True)
class HairStyle:
    """One head of hair. Angles in radians, lengths in metres.

    Attributes:
        kind: "bald", "short", "medium", "long" or "afro".
        colour: [3] linear.
        thickness: Height over the skin at the top, and its share at the sides.
        hairline: Polar angle of the hairline in front, at the temples and at the sideburns.
        nape: Polar angle at the back.
        fringe: Polar angle that hair over the forehead reaches, or 0 for none; and its slope to one side.
        drop: Length hanging at the sides and at the back.
        face_azimuth: Azimuth up to which the face is left free of hanging hair.
        curl: 0 is straight, 1 is curly.
        wave: Amplitude and length of waves.
        density: 0..1.
        seed: Seed of the strands.
    """

    kind: str
    colour: np.ndarray
    thickness: tuple[float, float]
    hairline: tuple[float, float, float]
    nape: float
    fringe: tuple[float, float]
    drop: float
    face_azimuth: float
    curl: float
    wave: tuple[float, float]
    density: float
    seed: int


def sample_hair(rng: np.random.Generator) -> HairStyle:
    """Draws a hairstyle.

    Args:
        rng: Source of randomness.

    Returns:
        HairStyle; about one head in nine is bald.
    """
    kind = str(rng.choice(["bald", "short", "medium", "long", "afro"], p=[0.11, 0.40, 0.13, 0.29, 0.07]))
    colour = _COLOURS[rng.choice(len(_COLOURS), p=_COLOUR_SHARE)] * np.exp(rng.normal(0, 0.2))
    top = {"bald": 0.001, "short": rng.uniform(0.006, 0.028), "medium": rng.uniform(0.016, 0.035)}
    top |= {"long": rng.uniform(0.010, 0.030), "afro": rng.uniform(0.04, 0.09)}
    side = {
        "bald": 1.0,
        "short": rng.uniform(0.25, 0.9),
        "medium": 0.9,
        "long": rng.uniform(0.5, 1.0),
        "afro": 0.95,
    }
    drop = {
        "bald": 0.0,
        "short": 0.0,
        "medium": rng.uniform(0.01, 0.07),
        "long": rng.uniform(0.07, 0.32),
        "afro": 0.0,
    }
    recede = abs(rng.normal(0, 6)) * (rng.random() < 0.5)
    front = rng.normal(57, 4) - recede
    fringe = rng.random() < {"bald": 0, "short": 0.25, "medium": 0.5, "long": 0.3, "afro": 0.1}[kind]
    return HairStyle(
        kind=kind,
        colour=colour.astype(np.float32),
        thickness=(float(top[kind]), float(side[kind])),
        hairline=tuple(np.radians([front, front + rng.normal(3, 3) - recede, rng.uniform(80, 104)]).tolist()),
        nape=math.radians(rng.uniform(108, 124)),
        fringe=(math.radians(rng.uniform(66, 84)) if fringe else 0.0, float(rng.normal(0, 0.2))),
        drop=float(drop[kind]),
        face_azimuth=math.radians(rng.uniform(50, 82)),
        curl=float(rng.random() if kind != "afro" else 1.0),
        wave=(float(rng.uniform(0, 0.007)), float(rng.uniform(0.04, 0.12))),
        density=float(rng.uniform(0.6, 1.0)),
        seed=int(rng.integers(2**31)),
    )


def _edge(style: HairStyle, rng: np.random.Generator) -> Tensor:
    """[A] polar angle at which each column of hair leaves the skull."""
    theta = azimuths().abs().numpy()
    front, temple, sideburn = style.hairline
    hanging = style.drop > 0
    ear = math.radians(84 if not hanging else 96)
    knots = np.radians([0, 28, 48, 60, 70, 80, 105, 125, 150, 180])
    values = [front, front + 0.4 * (temple - front), temple, temple + 0.18, sideburn, ear, ear]
    values += [math.radians(104), style.nape, style.nape]
    edge = np.interp(theta, knots, values)
    if style.fringe[0] > 0:
        reach = style.fringe[0] + style.fringe[1] * np.sin(azimuths().numpy())
        edge = np.where(theta < math.radians(58), np.maximum(edge, reach), edge)
    if hanging:
        edge = np.where(theta > style.face_azimuth, np.maximum(edge, math.radians(92)), edge)
    edge = edge + rng.normal(0, 0.02, N_AZIMUTH)
    return torch.from_numpy(edge.astype(np.float32))


def _shell_spec(style: HairStyle, fraction: float, rng: np.random.Generator) -> ShellSpec:
    theta = azimuths()
    top, side_share = style.thickness
    along = torch.linspace(0, 1, _ROWS)
    profile = 1.0 + (side_share - 1.0) * (along / 0.8).clamp(0, 1) ** 1.5
    rise = (along * 3).clamp(0.75, 1) * ((1 - along) * 5).clamp(0.35 if style.fringe[0] > 0 else 0.06, 1)
    lumps = rng.normal(0, 0.10 + 0.12 * style.curl, (N_AZIMUTH, _ROWS)).astype(np.float32)
    lumps = F.avg_pool2d(F.pad(torch.from_numpy(lumps)[None, None], (1, 1, 1, 1), mode="circular"), 3, 1)[
        0, 0
    ]
    thickness = (top * profile * rise)[None, :] * (1 + lumps * 2) * fraction + 0.002
    hang = torch.zeros(N_AZIMUTH)
    if style.drop > 0:
        jag = torch.from_numpy(rng.normal(0, 0.08, N_AZIMUTH).astype(np.float32))
        side = ((theta.abs() - style.face_azimuth) / 0.22).clamp(0, 1)
        hang = style.drop * (1 + jag) * side.sqrt() + 0.0005
        thickness = thickness + 0.012 * fraction * side[:, None] * along**2
    phase = torch.from_numpy(np.cumsum(rng.normal(0, 0.25, N_AZIMUTH)).astype(np.float32))
    return ShellSpec(_edge(style, rng), thickness.clamp_min(0.0015), hang, 0.10, style.wave, phase)


@dataclass(frozen=True)
class Stand:
    """Where the head stands in a picture.

    Attributes:
        skull_cam: [A, P, 3] from `SkullTable.points` in camera space.
        centre_cam: [3] the head's centre.
        down_cam: [3] unit vector to the ground, in camera axes.
        K: [3, 3] intrinsics in sub-pixels.
        lights: Light in camera axes.
    """

    skull_cam: Tensor
    centre_cam: Tensor
    down_cam: Tensor
    K: Tensor
    lights: Surroundings


def _strand_shine(verts: Tensor, lights: Surroundings) -> Tensor:
    """[3, V] highlight across strands (Kajiya and Kay 1989): bright where square to the half vector."""
    tangent = unit_rows(torch.gradient(verts, dim=1)[0].reshape(-1, 3))
    towards = unit_rows(-verts.reshape(-1, 3))
    total = torch.zeros(3, tangent.shape[0])
    for direction, colour, kappa in zip(
        lights.lobe_directions, lights.lobe_colours, lights.lobe_sharpness, strict=True
    ):
        half = unit_rows(towards + torch.from_numpy(direction))
        across = (1 - (tangent * half).sum(dim=1) ** 2).clamp_min(0) ** 24
        total += torch.from_numpy(colour)[:, None] * across / float(kappa)
    return total


def draw_hair(canvas: Canvas, style: HairStyle, stand: Stand, max_polar: float | None = None) -> None:
    """Draws hair onto a canvas.

    Args:
        canvas: With the head already on it.
        style: Hair.
        stand: Where the head is.
        max_polar: Hair above this polar angle is under a hat and is not drawn.
    """
    if style.kind == "bald":
        return
    hang_rows = _HANG_ROWS if style.drop > 0 else 0
    rows = _ROWS + hang_rows
    triangles = grid_triangles(rows)
    n_shells = 3 if style.kind in ("afro", "medium") else 2
    rng = np.random.default_rng(style.seed)
    tile = noise_pool("curl" if style.curl > 0.6 else "strand")[int(rng.integers(8))]
    coarse = noise_pool("strand")[int(rng.integers(8))]
    theta = (azimuths() / (2 * math.pi) + 0.5)[:, None].expand(-1, rows).reshape(-1)
    along = torch.linspace(0, 1, rows).expand(N_AZIMUTH, -1).reshape(-1)
    polar = (
        _edge(style, np.random.default_rng(style.seed))[:, None] * torch.linspace(0, 1, _ROWS)
    ).clamp_max(9)
    polar = torch.cat([polar, torch.full((N_AZIMUTH, hang_rows), 9.0)], dim=1).reshape(-1)
    for index in range(n_shells):
        fraction = 1.0 - 0.3 * (n_shells - 1 - index)
        spec = _shell_spec(style, fraction, np.random.default_rng(style.seed))
        verts = shell_points(stand.skull_cam, stand.centre_cam, stand.down_cam, spec, hang_rows)
        normals = vertex_normals(verts.reshape(-1, 3), triangles)
        light = plain_light(normals, stand.lights) * (0.35 + 0.65 * fraction)
        shine = _strand_shine(verts, stand.lights)
        attributes = torch.cat([light, shine, theta[None], along[None], polar[None]]).T
        drawn = canvas.trace(verts.reshape(-1, 3), triangles, stand.K, attributes)
        if drawn is None:
            continue
        u, s, crown = drawn.rows[6:].unbind(0)
        fine = sample_noise(tile, u * 7 + index * 0.37, s * (0.5 + style.curl * 3))
        broad = sample_noise(coarse, u * 2, s * 0.4)
        strands = 0.65 * fine + 0.5 * broad
        keep = strands > _cut_level(s, index, n_shells, style)
        if max_polar is not None:
            keep &= crown > max_polar
        tone = (0.25 * strands).exp().clamp(0.45, 1.9)
        base = torch.from_numpy(style.colour)[:, None] * tone
        colour = base * drawn.rows[:3] + (0.015 + 0.25 * base) * drawn.rows[3:6] * tone
        canvas.put(drawn, colour, LABEL_HAIR, keep)


def _cut_level(s: Tensor, index: int, n_shells: int, style: HairStyle) -> Tensor:
    """Strand noise below this level is cut away: the outer shells are sparse, the tips ragged."""
    tip = ((s - 0.84) / 0.16).clamp(0, 1)
    layer = -2.4 + (1.5 if n_shells == 3 else 1.1) * index / max(1, n_shells - 1) + (1 - style.density) * 0.6
    return layer + tip * 3.0
