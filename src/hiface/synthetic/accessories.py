# SPDX-License-Identifier: Apache-2.0
"""Glasses, hats and headscarves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.geometry.normals import vertex_normals
from hiface.synthetic.hair import Stand
from hiface.synthetic.lights import plain_light
from hiface.synthetic.noise import noise_pool, sample_noise
from hiface.synthetic.scene import Canvas
from hiface.synthetic.shells import N_AZIMUTH, ShellSpec, azimuths, grid_triangles, shell_points
from hiface.synthetic.vectors import unit_columns

LABEL_ACCESSORY = 5
_RIM = 28
_TUBE = 4
_ROWS = 14
_HANG = 8


@dataclass(frozen=True)
class Glasses:
    """Frames and lenses. Metres.

    Attributes:
        half: Half width and half height of a lens.
        power: Exponent of the lens outline: 2 is round, 5 nearly square.
        bar: Thickness of the frame.
        colour: [3] linear.
        tint: Opacity of the lenses, 0.02 (clear) to 0.95 (sunglasses).
        glare: Strength of the reflection.
        drop: How far the glasses have slid down.
    """

    half: tuple[float, float]
    power: float
    bar: float
    colour: np.ndarray
    tint: float
    glare: float
    drop: float


@dataclass(frozen=True)
class Hat:
    """Something on the head.

    Attributes:
        kind: "beanie", "cap", "hat", "helmet", "hood" or "scarf".
        colour: [3] linear.
        front: Polar angle of its edge in front, radians.
        thickness: Height above the skin at the top and at the edge, metres.
        brim: Length of the brim, metres.
        drop: Length that hangs down, metres (scarf, hood).
        texture: Strength of the knit.
        seed: Seed of folds.
    """

    kind: str
    colour: np.ndarray
    front: float
    thickness: tuple[float, float]
    brim: float
    drop: float
    texture: float
    seed: int


def sample_glasses(rng: np.random.Generator) -> Glasses:
    """Draws glasses; one pair in five are sunglasses."""
    sun = rng.random() < 0.2
    level = math.exp(rng.uniform(math.log(0.006), math.log(0.25)))
    return Glasses(
        (float(rng.uniform(0.0215, 0.0260)), float(rng.uniform(0.014, 0.024))),
        float(rng.uniform(2.0, 5.0)),
        float(rng.choice([0.0009, 0.0016, 0.0026], p=[0.4, 0.35, 0.25])),
        (level * np.exp(rng.normal(0, 0.25, 3))).astype(np.float32),
        float(rng.uniform(0.75, 0.97) if sun else rng.uniform(0.0, 0.10)),
        float(rng.uniform(0.0, 0.35) * (rng.random() < 0.5)),
        float(abs(rng.normal(0, 0.004))),
    )


_HATS = ("beanie", "cap", "hat", "helmet", "hood", "scarf")
_HAT_SHARE = (0.26, 0.27, 0.13, 0.06, 0.08, 0.20)
_TOP_M = {"beanie": (0.014, 0.042), "cap": (0.018, 0.032), "hat": (0.04, 0.07), "helmet": (0.03, 0.045)}
_TOP_M |= {"hood": (0.02, 0.035), "scarf": (0.010, 0.024)}
_RIM_M = {"helmet": (0.018, 0.03), "hood": (0.012, 0.028)}
_FRONT_DEG = {"scarf": (54, 66), "hood": (52, 68), "helmet": (56, 68)}
_FOLDS = {"scarf": 3.0, "hood": 4.0, "helmet": 0.0}
COVERING = ("scarf", "hood")  # no hair is drawn above the ears under these


def sample_hat(rng: np.random.Generator) -> Hat:
    """Draws something on the head."""
    kind = str(rng.choice(_HATS, p=_HAT_SHARE))
    colour = math.exp(rng.uniform(math.log(0.01), math.log(0.6))) * np.exp(rng.normal(0, 0.40, 3))
    brim = {"cap": (0.05, 0.075), "hat": (0.03, 0.08)}.get(kind, (0.0, 0.0))
    drop = {"scarf": (0.09, 0.22), "hood": (0.07, 0.14)}.get(kind, (0.0, 0.0))
    return Hat(
        kind,
        np.clip(colour, 0.005, 0.8).astype(np.float32),
        math.radians(rng.uniform(*_FRONT_DEG.get(kind, (56, 74)))),
        (float(rng.uniform(*_TOP_M[kind])), float(rng.uniform(*_RIM_M.get(kind, (0.005, 0.011))))),
        float(rng.uniform(*brim)),
        float(rng.uniform(*drop)),
        float(rng.uniform(0.02, 0.25)),
        int(rng.integers(2**31)),
    )


@cache
def _tube_triangles(points: int, closed: bool) -> Tensor:
    out = []
    for i in range(points if closed else points - 1):
        for j in range(_TUBE):
            k, m = (i + 1) % points, (j + 1) % _TUBE
            a, b, c, d = i * _TUBE + j, k * _TUBE + j, i * _TUBE + m, k * _TUBE + m
            out += [[a, b, d], [a, d, c]]
    return torch.tensor(out)


def _tube(line: np.ndarray, radius: float, closed: bool) -> np.ndarray:
    """[N * 4, 3] a square tube around a line [N, 3]."""
    step = np.roll(line, -1, 0) - np.roll(line, 1, 0) if closed else np.gradient(line, axis=0)
    along = step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)
    side = np.cross(along, [0.02, 0.03, 1.0])
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
    other = np.cross(along, side)
    return np.stack(
        [line + radius * side, line + radius * other, line - radius * side, line - radius * other], 1
    ).reshape(-1, 3)


def _rim(glasses: Glasses, sign: float) -> np.ndarray:
    """[28, 3] outline of one lens around the eye's centre; `sign` is +1 for the person's left eye."""
    angle = np.arange(_RIM) / _RIM * 2 * math.pi
    power = 2 / glasses.power
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power * glasses.half[0]
    y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power * glasses.half[1]
    wrap = -0.10 * np.clip(sign * x, 0, None) - 0.004 * (x / 0.025) ** 2
    return np.stack([x, y * (1 + 4 * sign * x), 0.031 + wrap - 0.10 * y], axis=1) - [
        0,
        glasses.drop + 0.003,
        0,
    ]


def draw_glasses(
    canvas: Canvas, glasses: Glasses, eyes_head: Tensor, half_width: float, stand: Stand, T: Tensor
) -> None:
    """Draws glasses.

    Args:
        canvas: With the head on it.
        glasses: What to draw.
        eyes_head: [2, 3] centres of the eyeballs in head axes, left first.
        half_width: Half the head's width at the temples, metres.
        stand: Camera and light.
        T: [4, 4] head axes to camera space.
    """
    eyes = eyes_head.numpy()
    lines, lenses = [], []
    for eye, sign in zip(eyes, (1.0, -1.0), strict=True):
        rim = _rim(glasses, sign) + eye
        lines.append((_tube(rim, glasses.bar, True), _tube_triangles(_RIM, True)))
        lenses.append(np.concatenate([rim, rim.mean(axis=0, keepdims=True)]))
        corner = rim[np.argmax(sign * rim[:, 0])]
        ear = np.array([sign * (half_width + 0.002), corner[1] - 0.004, eye[2] - 0.085])
        hinge = corner + np.array([sign * 0.003, 0, -0.004])
        path = np.stack([corner, hinge, hinge * 0.45 + ear * 0.55 + [sign * 0.002, 0.002, 0], ear])
        lines.append((_tube(path, glasses.bar * 1.1, False), _tube_triangles(4, False)))
    inner = [lens[np.argmin(sign * lens[:-1, 0])] for lens, sign in zip(lenses, (1.0, -1.0), strict=True)]
    bridge = np.stack([inner[0], (inner[0] + inner[1]) / 2 + [0, 0.003, 0.004], inner[1]])
    lines.append((_tube(bridge, glasses.bar, False), _tube_triangles(3, False)))
    _draw_lenses(canvas, glasses, np.stack(lenses), stand, T)
    verts, triangles, start = [], [], 0
    for tube, tris in lines:
        verts.append(tube)
        triangles.append(tris + start)
        start += len(tube)
    cam = torch.from_numpy(np.concatenate(verts).astype(np.float32)) @ T[:3, :3].T + T[:3, 3]
    light = plain_light(F.normalize(cam - stand.centre_cam, dim=1), stand.lights)
    drawn = canvas.trace(cam, torch.cat(triangles), stand.K, light.T)
    if drawn is not None:
        colour = torch.from_numpy(glasses.colour)[:, None] * drawn.rows + 0.02 * drawn.rows
        canvas.put(drawn, colour, LABEL_ACCESSORY)


def _draw_lenses(canvas: Canvas, glasses: Glasses, lenses: np.ndarray, stand: Stand, T: Tensor) -> None:
    """Lenses: a tint, and what they mirror of lamps, sky and a window behind the camera."""
    cam = torch.from_numpy(lenses.reshape(-1, 3).astype(np.float32)) @ T[:3, :3].T + T[:3, 3]
    ring = torch.arange(_RIM)
    fan = torch.stack([ring, (ring + 1) % _RIM, torch.full_like(ring, _RIM)], dim=1)
    local = torch.from_numpy((lenses - lenses[:, -1:]).reshape(-1, 3).astype(np.float32))
    drawn = canvas.trace(cam, torch.cat([fan, fan + _RIM + 1]), stand.K, local)
    if drawn is None:
        return
    x, y = drawn.rows[0], drawn.rows[1]
    bulge = torch.stack([4.5 * x, 4.5 * y + 0.10, torch.ones_like(x)])  # front of a lens, in head axes
    normals = T[:3, :3] @ unit_columns(bulge)
    view = (stand.centre_cam / stand.centre_cam.norm())[:, None]
    mirrored = view - 2 * (normals * view).sum(dim=0) * normals
    seen = stand.lights.radiance(mirrored.T.contiguous()).T.clamp_max(3.0)
    pane = ((mirrored[0] * 2.2 + 0.3).frac().abs() < 0.85) & ((mirrored[1] * 2.2).frac().abs() < 0.85)
    patch = (mirrored[1] < 0.05) & (mirrored[1] > -0.75) & (mirrored[0].abs() < 0.5) & pane
    share = 0.03 + (0.06 if glasses.tint > 0.5 else 0.22) * glasses.glare
    glow = share * seen + 1.5 * max(0.0, glasses.glare - 0.22) * patch
    dark = torch.from_numpy(glasses.colour)[:, None] * 0.3
    opacity = (glasses.tint + (1 - glasses.tint) * glow.mean(dim=0)).clamp(0, 1)
    colour = (dark * glasses.tint + glow) / opacity.clamp_min(1e-4)
    canvas.blend(drawn, colour, opacity, LABEL_ACCESSORY if glasses.tint > 0.5 else None)


def _hat_edge(hat: Hat, rng: np.random.Generator) -> Tensor:
    theta = azimuths().abs().numpy()
    tilt = rng.normal(0, 0.04) * np.sin(azimuths().numpy()) + rng.normal(0, 0.004, N_AZIMUTH)
    side, back = (
        (math.radians(96), math.radians(105))
        if hat.kind in COVERING
        else (math.radians(80), math.radians(104 if hat.kind == "helmet" else 100))
    )
    knots = np.radians([0, 30, 58, 75, 110, 180])
    edge = np.interp(theta, knots, [hat.front, hat.front + 0.03, hat.front + 0.22, side, side + 0.05, back])
    return torch.from_numpy((edge + tilt).astype(np.float32))


def draw_hat(canvas: Canvas, hat: Hat, stand: Stand) -> None:
    """Draws a hat or scarf.

    Args:
        canvas: With head and hair on it.
        hat: What to draw.
        stand: Where the head is, camera and light.
    """
    rng = np.random.default_rng(hat.seed)
    along = torch.linspace(0, 1, _ROWS)
    top, rim = hat.thickness
    folds = torch.from_numpy(rng.normal(0, 0.004, (N_AZIMUTH, _ROWS)).astype(np.float32))[None, None]
    folds = F.avg_pool2d(F.pad(folds, (1, 1, 2, 2), mode="circular"), (5, 3), 1)[0, 0]
    thickness = (rim + (top - rim) * (1 - along**3))[None] + folds * _FOLDS.get(hat.kind, 1.0)
    covered = (azimuths().abs() > math.radians(64)).float()
    drop = hat.drop * covered + 0.0005
    phase = torch.from_numpy(np.cumsum(rng.normal(0, 0.5, N_AZIMUTH)).astype(np.float32))
    spec = ShellSpec(_hat_edge(hat, rng), thickness, drop, 0.05, (0.004, 0.1), phase)
    hang = _HANG if hat.kind in COVERING else 0
    verts = shell_points(stand.skull_cam, stand.centre_cam, stand.down_cam, spec, hang)
    if hat.brim > 0:
        verts = torch.cat([verts, _brim(hat, verts, stand)], dim=1)
    rows = verts.shape[1]
    flat, triangles = verts.reshape(-1, 3), grid_triangles(rows)
    normals = vertex_normals(flat, triangles)
    light = plain_light(normals, stand.lights)
    u = (azimuths() / (2 * math.pi) + 0.5)[:, None].expand(-1, rows).reshape(-1, 1)
    v = torch.linspace(0, 1, rows).expand(N_AZIMUTH, -1).reshape(-1, 1)
    drawn = canvas.trace(flat, triangles, stand.K, torch.cat([light.T, u, v, normals], dim=1))
    if drawn is None:
        return
    tile = noise_pool("strand" if hat.kind == "beanie" else "cloud")[hat.seed % 8]
    around, down = drawn.rows[3:5]
    weave = hat.texture * sample_noise(tile, around * 5, down * 0.7)
    if hat.kind == "beanie":  # ribs, and a turned up edge
        weave = weave + 0.35 * torch.sin(around * 420) * hat.texture - 0.30 * ((down - 0.72).abs() < 0.02)
    elif hat.kind == "cap":  # seams
        weave = weave * 0.3 - 0.30 * ((around * 6).frac() < 0.03) - 0.25 * ((down - 0.8).abs() < 0.012)
    elif hat.kind == "helmet":
        stripe = ((around - 0.5).abs() < 0.03) & bool(hat.seed % 3 == 0)
        weave = torch.where(stripe, 0.9, 0.0)
    colour = torch.from_numpy(hat.colour)[:, None] * drawn.rows[:3] * weave.exp()
    if hat.kind == "helmet":
        colour = colour + _gloss(drawn.rows[5:8], stand)
    canvas.put(drawn, colour, LABEL_ACCESSORY)


def _gloss(normals: Tensor, stand: Stand) -> Tensor:
    """[3, P] what a smooth shell with normals [3, P] mirrors of its surroundings."""
    n = unit_columns(normals)
    view = (stand.centre_cam / stand.centre_cam.norm())[:, None]
    mirrored = view - 2 * (n * view).sum(dim=0) * n
    fresnel = 0.04 + 0.6 * (1 + (n * view).sum(dim=0)).clamp(0, 1) ** 4
    return fresnel * stand.lights.radiance(mirrored.T.contiguous()).T.clamp_max(12.0)


def _brim(hat: Hat, verts: Tensor, stand: Stand) -> Tensor:
    """[A, 3, 3] rows of a brim that continues the edge of a hat: all around, or in front for a cap."""
    theta = azimuths()
    edge = verts[:, -1]
    axis = F.normalize(verts[:, 0].mean(dim=0) - stand.centre_cam, dim=0)
    away = edge - stand.centre_cam
    away = F.normalize(away - (away @ axis)[:, None] * axis, dim=1)
    if hat.kind == "cap":
        forward = away[N_AZIMUTH // 2]
        reach = hat.brim * (1 - (theta.abs() / math.radians(62)) ** 2).clamp_min(0.02).sqrt()
        away = F.normalize(0.25 * away + forward, dim=1)
    else:
        reach = torch.full((N_AZIMUTH,), hat.brim)
    steps = torch.tensor([0.35, 0.7, 1.0])
    sag = -0.25 * steps**2
    return edge[:, None] + reach[:, None, None] * (
        steps[None, :, None] * away[:, None] + sag[None, :, None] * axis
    )
