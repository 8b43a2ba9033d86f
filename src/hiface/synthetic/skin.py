# SPDX-License-Identifier: Apache-2.0
"""Shading of the fragments of a head: albedo, relief, light with shadows, highlights.

On the CPU a compiled pass does it; `shade_plain` is the same in plain torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.geometry.constants import cached_per_tensor
from hiface.render.kernels import skin as kernels
from hiface.render.kernels.library import has_library
from hiface.render.kernels.skin import SkinMesh, padded_columns
from hiface.synthetic.lights import Surroundings
from hiface.synthetic.relief import (
    CAVITY,
    CAVITY_M,
    STEEPEST,
    UNDER_SKIN,
    light_quadratic,
    relief_at,
    relief_maps,
)
from hiface.synthetic.scene import Canvas, Drawn, Front, rows_at
from hiface.synthetic.vectors import unit_columns

TOOTH, EYE = 1, 2  # kinds of triangles in `SkinMesh`
_BRIGHTEST_TOOTH = 0.95
_WET_EXPONENT, _WET_SHINE = 350.0, 0.05


@dataclass(frozen=True)
class Look:
    """What a head is shaded with.

    Attributes:
        texture: [3, s, s] linear albedo.
        displacement: [S, S] metres, or None for smooth skin.
        lights: Light in camera axes.
        oiliness: 0..1.
        tooth: [3] factors on the albedo of teeth.
        K: [3, 3] intrinsics in sub-pixels.
    """

    texture: Tensor
    displacement: Tensor | None
    lights: Surroundings
    oiliness: float
    tooth: Tensor
    K: Tensor

    @cached_property
    def quadratic(self) -> Tensor:
        """[3, 4, 4] light without shadows as a quadratic form."""
        return light_quadratic(self.lights.sh_light())

    @cached_property
    def lamps(self) -> list[int]:
        """Numbers of the lamps that shine."""
        return [i for i, colour in enumerate(self.lights.lobe_colours) if colour.any()]

    @property
    def exponent(self) -> float:
        """Sharpness of the highlights on skin."""
        return 10 + 22 * self.oiliness

    @property
    def shine(self) -> float:
        """Strength of the highlights on skin seen from the front."""
        return 0.012 + 0.05 * self.oiliness

    def lobes(self, exponent: float) -> Tensor:
        """[L, 8] Blinn's highlights: direction, colour, width, 0; wide lamps make wide ones."""
        chosen, lights = self.lamps, self.lights
        kappa = lights.lobe_sharpness[chosen].astype(np.float64)
        width = np.minimum(exponent, (4.0 + 0.1 * exponent) * kappa)
        rows = np.zeros((len(chosen), 8), dtype=np.float32)
        rows[:, :3], rows[:, 6] = lights.lobe_directions[chosen], width
        rows[:, 3:6] = lights.lobe_colours[chosen] * ((width + 8) / (8 * math.pi * kappa))[:, None]
        return torch.from_numpy(rows)


def view_directions(drawn: Drawn, K: Tensor) -> Tensor:
    """[3, P] unit vectors from fragments to the camera."""
    x, y = drawn.centres()
    x, y = (K[0, 2] - x) / K[0, 0], (K[1, 2] - y) / K[1, 1]
    return unit_columns(torch.stack([x, y, -torch.ones_like(x)]))


def highlights(normals: Tensor, view: Tensor, lobes: Tensor, seen: Tensor) -> Tensor:
    """Sum of the highlights of all lamps.

    Args:
        normals: [3, P] unit.
        view: [3, P] unit vectors to the camera.
        lobes: [L, 8] from `Look.lobes`.
        seen: [L, P] share of each lamp.

    Returns:
        [3, P].
    """
    total = torch.zeros_like(normals)
    for lobe, share in zip(lobes, seen, strict=True):
        half = unit_columns(view + lobe[:3, None])
        cosine = (normals * half).sum(dim=0).clamp_min(0)
        # cosine^width, after Schlick 1994
        total += lobe[3:6, None] * (cosine / (lobe[6] - (lobe[6] - 1) * cosine) * share)
    return total


def shade_plain(drawn: Drawn, look: Look, mesh: SkinMesh, albedo: Tensor | None = None) -> Tensor:
    """Colour of fragments in plain torch.

    Args:
        drawn: Rows: light, normal, share of each of L lamps, vectors a and b and share of light for relief,
            unused ones up to `padded_columns(L)`, texture coordinates.
        look: Surface and light.
        mesh: Tables of the head.
        albedo: [3, P], or None to look it up in the texture.

    Returns:
        [3, P] linear.
    """
    n_lamps = len(look.lamps)
    light, normals, grid = drawn.rows[:3], unit_columns(drawn.rows[3:6]), drawn.rows[-2:]
    if albedo is None:
        at = grid.T[None, None]
        albedo = F.grid_sample(look.texture[None], at, padding_mode="border", align_corners=False)[0, :, 0]
    if look.displacement is not None:
        rows = drawn.rows[6 + n_lamps : 13 + n_lamps]
        relief = relief_at(relief_maps(look.displacement), grid, normals, rows[:6], look.quadratic)
        normals, albedo = relief.normals, albedo * relief.cavity
        light = torch.maximum(light + relief.shift * rows[6], 0.25 * light)
    colour = albedo * light
    is_tooth = mesh.kind.index_select(0, drawn.triangle) == TOOTH
    bright = colour[:, is_tooth] * look.tooth[:, None]
    colour[:, is_tooth] = bright / (1 + (bright / _BRIGHTEST_TOOTH) ** 3) ** (1 / 3)
    if not look.lamps:
        return colour
    view = view_directions(drawn, look.K)
    facing = (normals * view).sum(dim=0).clamp(0, 1)
    strength = look.shine * (1 + 3 * (1 - facing) ** 4) + 0.12 * mesh.gloss.index_select(0, drawn.triangle)
    seen = drawn.rows[6 : 6 + n_lamps]
    return colour + strength * highlights(normals, view, look.lobes(look.exponent), seen)


def wet_shine(drawn: Drawn, look: Look, normals: Tensor) -> Tensor:
    """[3, P] sharp reflections on wet eyes with the cornea's normals [3, P]; rows as in `shade_plain`."""
    if not look.lamps:
        return torch.zeros_like(normals)
    seen = drawn.rows[6 : 6 + len(look.lamps)]
    view = view_directions(drawn, look.K)
    return _WET_SHINE * highlights(normals, view, look.lobes(_WET_EXPONENT), seen)


@cached_per_tensor
def texels(texture: Tensor) -> Tensor:
    """[s, s, 4] copy of a texture [3, s, s], so that a texel is one load."""
    out = torch.zeros(*texture.shape[1:], 4)
    out[..., :3] = texture.permute(1, 2, 0)
    return out


def _compiled_look(look: Look) -> kernels.SkinLook:
    relief = None
    if look.displacement is not None:
        relief = kernels.relief_texels(look.displacement.contiguous())
    softened = look.quadratic * torch.tensor(UNDER_SKIN)[:, None, None]
    tooth = look.tooth.tolist()
    lobes = look.lobes(look.exponent)
    strengths = look.shine, (CAVITY, CAVITY_M, STEEPEST)
    return kernels.SkinLook(texels(look.texture), relief, lobes, softened, tuple(tooth), *strengths)


def is_compiled(look: Look) -> bool:
    """Whether the compiled pass can shade this."""
    return has_library() and len(look.lamps) <= kernels.MAX_LAMPS


def draw_skin(canvas: Canvas, front: Front, attributes: Tensor, mesh: SkinMesh, look: Look) -> Front | None:
    """Shades the fragments of a head and puts them onto the canvas.

    Args:
        canvas: With nothing nearer than the fragments.
        front: The fragments.
        attributes: [V, C] as `shade_plain` wants them, without the texture coordinates.
        mesh: Tables of the head.
        look: Surface and light.

    Returns:
        The fragments of eyes, whose colour is not right yet; None if there are none.
    """
    if is_compiled(look):
        target = canvas.colour, canvas.depth, canvas.label
        fragments = front.pixel, front.triangle, front.place
        eyes = kernels.shade_skin(target, fragments, attributes, mesh, _compiled_look(look), look.K)
    else:
        rows = rows_at(attributes, mesh.corners, mesh.triangles, front)
        drawn = Drawn(front.pixel, front.triangle, front.place[3], rows, canvas.size)
        label = mesh.label.index_select(0, front.triangle)
        canvas.put(drawn, shade_plain(drawn, look, mesh), label)
        eyes = (mesh.kind == EYE).index_select(0, front.triangle).nonzero().reshape(-1)
    return front.chosen(eyes) if eyes.numel() else None


def attribute_table(n_verts: int, look: Look) -> Tensor:
    """[V, C] zeros for the attributes that `draw_skin` needs."""
    return torch.zeros(n_verts, padded_columns(len(look.lamps)))
