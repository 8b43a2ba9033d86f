# SPDX-License-Identifier: Apache-2.0
"""Flat things in front of a face with round shading: hands, phones, cups, microphones and other objects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.render.shade import sh_basis
from hiface.synthetic.noise import noise_image
from hiface.synthetic.vectors import unit_columns

_HAND_SHARE = 0.55
_OBJECTS = ("phone", "cup", "microphone", "bar", "sheet", "blob", "held phone", "held cup")


@dataclass
class _Relief:
    """A picture that grows part by part.

    Attributes:
        x: [S, S] pixel centres.
        y: [S, S].
        distance: [S, S] signed distance to the outline, pixels.
        height: [S, S] height towards the camera, pixels.
        second: [S, S] height of what is next highest, for dark creases.
    """

    x: Tensor
    y: Tensor
    distance: Tensor
    height: Tensor
    second: Tensor

    def stick(
        self,
        a: np.ndarray,
        b: np.ndarray,
        radii: tuple[float, float],
        lift: float = 0.0,
        smooth: bool = False,
    ) -> None:
        """Adds a rounded stick from a to b [2] whose radius goes from the first to the second."""
        dx, dy = float(b[0] - a[0]), float(b[1] - a[1])
        t = (((self.x - a[0]) * dx + (self.y - a[1]) * dy) / max(dx * dx + dy * dy, 1e-6)).clamp(0, 1)
        away = ((self.x - a[0] - t * dx) ** 2 + (self.y - a[1] - t * dy) ** 2).sqrt()
        radius = radii[0] + (radii[1] - radii[0]) * t
        self.add(away - radius, (radius * radius - away * away).clamp_min(0).sqrt() + lift, smooth)

    def add(self, distance: Tensor, height: Tensor, smooth: bool = False) -> None:
        """Adds anything; a smooth part melts into what is there instead of leaving a crease."""
        height = torch.where(distance < 0, height, torch.full_like(height, -1e3))
        if not smooth:
            self.second = torch.maximum(self.second, torch.minimum(self.height, height))
        self.height = torch.maximum(self.height, height)
        self.distance = torch.minimum(self.distance, distance)

    def normals(self, flatten: float) -> Tensor:
        """[3, S, S] unit normals in camera axes (towards the camera is -z)."""
        smooth = self.height.clamp_min(0)
        gy, gx = torch.gradient(smooth)
        down = torch.full_like(gx, -1.0)
        return unit_columns(torch.stack([-gx * flatten, -gy * flatten, down]).reshape(3, -1)).reshape(
            3, *gx.shape
        )


def _relief(size: int) -> _Relief:
    line = torch.arange(size) + 0.5
    x, y = line[None, :].expand(size, size), line[:, None].expand(size, size)
    far = torch.full((size, size), 1e3)
    return _Relief(x, y, far, -far, -far)


def _rotated(vector: np.ndarray, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1]])


def _hand(rng: np.random.Generator, relief: _Relief, tip: np.ndarray, unit: float, curled: float) -> list:
    """Adds a hand whose fingers reach `tip`; returns finger tips, wrist, direction and length of the palm."""
    up = rng.random() < 0.8
    angle = rng.normal(-math.pi / 2, 0.7) if up else rng.uniform(0, 2 * math.pi)
    forward = np.array([math.cos(angle), math.sin(angle)])
    side = np.array([-forward[1], forward[0]]) * (1 if rng.random() < 0.5 else -1)
    reach = rng.uniform(0.45, 0.7) * (1 - 0.6 * curled)
    knuckles = tip - forward * unit * reach
    wrist = knuckles - forward * 0.62 * unit
    relief.stick(wrist, wrist - forward * 3 * unit, (0.19 * unit, 0.27 * unit), -0.03 * unit, smooth=True)
    for slot in (-1.5, -0.5, 0.5, 1.5):
        base = knuckles + side * slot * 0.165 * unit - forward * 0.05 * abs(slot) * unit
        relief.stick(wrist + side * slot * 0.09 * unit, base, (0.15 * unit, 0.105 * unit), smooth=True)
    spread, bend = rng.uniform(0.0, 0.22), rng.normal(0, 0.12)
    tips = []
    for slot, share in zip((-1.5, -0.5, 0.5, 1.5), (0.86, 1.0, 0.95, 0.72), strict=True):
        place = knuckles + side * slot * 0.165 * unit - forward * 0.05 * abs(slot) * unit
        heading = _rotated(
            forward, math.copysign(1, side[0] * forward[1] - side[1] * forward[0]) * -slot * spread
        )
        full = share * 0.62 * unit * rng.uniform(0.92, 1.05) * (1 - 0.55 * curled)
        radius = 0.083 * unit
        for part, thin in ((0.45, 0.93), (0.30, 0.88), (0.25, 0.84)):
            end = place + heading * full * part
            lift = 0.05 * unit * curled
            relief.stick(place, end, (radius, radius * thin), lift, smooth=part < 0.4)
            place, radius = end, radius * thin
            heading = _rotated(heading, bend * rng.uniform(0.3, 1.2))
        tips.append((place, heading, radius))
    thumb = wrist + side * -0.16 * unit + forward * 0.12 * unit
    elbow = thumb + (forward * 0.28 - side * rng.uniform(0.14, 0.26)) * unit
    relief.stick(thumb, elbow, (0.13 * unit, 0.10 * unit), smooth=True)
    end = elbow + _rotated(forward, rng.normal(0, 0.35)) * 0.26 * unit
    relief.stick(elbow, end, (0.098 * unit, 0.078 * unit), 0.02 * unit)
    return [tips, wrist, forward, float((knuckles - wrist) @ forward)]


def _paint_hand(rng: np.random.Generator, relief: _Relief, parts: list, unit: float, skin: Tensor) -> Tensor:
    """[3, S, S] albedo: skin with redder joints, nails and a sleeve."""
    tips, wrist, forward, knuckles = parts
    size = relief.x.shape[-1]
    blood = 0.10 * noise_image(rng, "cloud", size)
    albedo = skin[:, None, None] * torch.stack([blood * 0.3, blood, blood]).exp()
    crease = torch.exp(-(((relief.height - relief.second) / (0.022 * unit)) ** 2)) * (relief.second > 0)
    along = (relief.x - wrist[0]) * forward[0] + (relief.y - wrist[1]) * forward[1]
    fingers = ((along - knuckles - 0.10 * unit) / (0.06 * unit)).clamp(0.12, 1)
    albedo = albedo * (1 - 0.55 * crease * fingers)
    if rng.random() < 0.5:
        for place, heading, radius in tips:
            at = place + heading * radius * 0.15
            u = (relief.x - at[0]) * heading[0] + (relief.y - at[1]) * heading[1]
            v = (relief.y - at[1]) * heading[0] - (relief.x - at[0]) * heading[1]
            nail = (1.3 - ((u / (0.85 * radius)) ** 4 + (v / (0.62 * radius)) ** 4)).clamp(0, 1)
            pink = skin[:, None, None] * torch.tensor([1.15, 1.0, 1.0])[:, None, None] + 0.06
            albedo = torch.lerp(albedo, pink, 0.8 * nail[None])
    cuff = rng.uniform(-1.2, -0.15) * unit
    cloth = torch.from_numpy(
        np.exp(rng.uniform(math.log(0.01), math.log(0.6)) + rng.normal(0, 0.3, 3)).astype(np.float32)
    )
    if rng.random() < 0.6:
        albedo = torch.where((along < cuff)[None], cloth[:, None, None].expand_as(albedo), albedo)
    return albedo


def _frame(relief: _Relief, at: np.ndarray, angle: float) -> tuple[Tensor, Tensor]:
    x, y = relief.x - at[0], relief.y - at[1]
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _rounded_box(u: Tensor, v: Tensor, half: tuple[float, float], corner: float) -> Tensor:
    du, dv = u.abs() - half[0] + corner, v.abs() - half[1] + corner
    outside = (du.clamp_min(0) ** 2 + dv.clamp_min(0) ** 2).sqrt()
    return outside + torch.maximum(du, dv).clamp_max(0) - corner


def _object(rng: np.random.Generator, relief: _Relief, kind: str, at: np.ndarray, unit: float) -> Tensor:
    """Adds an object; returns its albedo [3, S, S]."""
    size = relief.x.shape[-1]
    level = math.exp(rng.uniform(math.log(0.012), math.log(0.7)))
    base = torch.from_numpy((level * np.exp(rng.normal(0, 0.4, 3))).astype(np.float32))[:, None, None]
    other = torch.from_numpy(rng.uniform(0.01, 0.7, 3).astype(np.float32))[:, None, None]
    angle = float(rng.normal(0, 0.35))
    u, v = _frame(relief, at, angle)
    albedo = base.expand(3, size, size)
    if kind == "phone":
        half = (0.30 * unit, 0.60 * unit)
        distance = _rounded_box(u, v, half, 0.07 * unit)
        relief.add(distance, (-distance).clamp(0, 0.04 * unit))
        lens = ((u + 0.19 * unit) ** 2 + (v + 0.47 * unit) ** 2).sqrt() < 0.05 * unit
        return torch.where(lens[None], torch.full_like(albedo, 0.01), albedo * 0.5)
    if kind == "sheet":
        half = (rng.uniform(0.3, 0.9) * unit, rng.uniform(0.3, 0.7) * unit)
        distance = _rounded_box(u, v, half, 0.01 * unit)
        relief.add(distance, (-distance).clamp(0, 0.02 * unit) + 0.06 * (u * u) / unit)
        lines = ((v / (0.08 * unit)).frac().abs() < 0.4) & (u.abs() < 0.8 * half[0])
        return torch.where((lines & bool(rng.random() < 0.6))[None], other * 0.3, albedo * 0.5 + 0.3)
    if kind == "cup":
        width = (0.27 - 0.10 * v / unit) * unit
        distance = torch.maximum(u.abs() - width, v.abs() - 0.36 * unit)
        ring = ((u - 0.33 * unit) ** 2 + v**2).sqrt() - 0.17 * unit
        handle = ring.abs() - 0.035 * unit
        relief.add(handle, (0.035 * unit - ring.abs()).clamp_min(0))
        relief.add(distance, (width**2 - u**2).clamp_min(0).sqrt())
        band = (v.abs() < 0.12 * unit) & bool(rng.random() < 0.5)
        return torch.where(band[None], other, albedo)
    if kind == "microphone":
        end = at + _rotated(np.array([0.0, 1.0]), float(rng.normal(0, 0.5))) * 4 * unit
        relief.stick(at, end, (0.10 * unit, 0.08 * unit))
        relief.stick(at, at + 0.01, (0.20 * unit, 0.20 * unit))
        mesh = ((relief.x / (0.04 * unit)).frac() + (relief.y / (0.04 * unit)).frac()) * 0.2 + 0.7
        return albedo * mesh
    if kind == "bar":
        half = rng.uniform(0.03, 0.16) * unit
        tilt = rng.uniform(0, math.pi)
        _, w = _frame(relief, at, tilt)
        relief.add(w.abs() - half, (half**2 - w**2).clamp_min(0).sqrt())
        return albedo
    wobble = noise_image(rng, "cloud", size, 1.5)
    distance = (u**2 + (v * rng.uniform(0.7, 1.5)) ** 2).sqrt() - (0.36 + 0.12 * wobble) * unit
    relief.add(distance, 0.5 * (-distance).clamp_min(0) * (1 + 0.2 * noise_image(rng, "pink", size)))
    return albedo * (rng.uniform(0, 0.4) * noise_image(rng, "pink", size)).exp()


def draw_occluder(
    rng: np.random.Generator, size: int, box: tuple[float, ...], skin: Tensor, light: Tensor
) -> tuple[Tensor, Tensor]:
    """Draws one thing near a face.

    Args:
        rng: Source of randomness.
        size: Side of the picture, pixels.
        box: x0, y0, x1, y1 of the face, pixels.
        skin: [3] linear albedo of skin, for hands.
        light: [9, 3] spherical-harmonics light in camera axes.

    Returns:
        Linear colour [3, S, S] and opacity [S, S].
    """
    coarse = 2 if size >= 96 and size % 2 == 0 else 1
    small, box = size // coarse, tuple(edge / coarse for edge in box)
    unit = max(box[2] - box[0], box[3] - box[1])
    at = np.array([rng.uniform(box[0], box[2]), rng.uniform(box[1] + 0.1 * unit, box[3] + 0.2 * unit)])
    is_hand = rng.random() < _HAND_SHARE
    kind = "hand" if is_hand else _OBJECTS[int(rng.integers(len(_OBJECTS)))]
    unit = unit * rng.uniform(0.7, 1.0)
    layers = []
    if kind != "hand":
        thing = _relief(small)
        layers.append((thing, _object(rng, thing, kind.removeprefix("held "), at, unit), 0.5))
    if kind == "hand" or kind.startswith("held"):
        hand = _relief(small)
        curled = rng.uniform(0.5, 0.9) if kind != "hand" else rng.uniform(0, 1) ** 2 * 0.8
        parts = _hand(rng, hand, at, unit, float(curled))
        layers.append((hand, _paint_hand(rng, hand, parts, unit, skin), 0.9))
    colour, opacity = torch.zeros(3, size, size), torch.zeros(size, size)
    for relief, albedo, flatten in layers:
        normals = relief.normals(flatten)
        shading = (sh_basis(normals.permute(1, 2, 0)) @ light).clamp_min(0.02).permute(2, 0, 1)
        edge = 0.75 + 0.25 * (-relief.distance / (0.05 * unit)).clamp(0, 1)
        both = torch.cat([albedo * shading * edge, relief.distance.clamp_max(20.0)[None] * coarse])
        if coarse > 1:
            both = F.interpolate(both[None], size=(size, size), mode="bilinear", align_corners=False)[0]
        cover = (0.5 - both[3] / 1.2).clamp(0, 1)
        colour = torch.lerp(colour, both[:3], cover[None])
        opacity = torch.maximum(opacity, cover)
    return colour / opacity.clamp_min(1e-3) * (opacity > 0), opacity
