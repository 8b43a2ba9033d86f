# SPDX-License-Identifier: Apache-2.0
"""Compiled light on vertices and shading of the fragments of a head, for float32 on the CPU, no gradients.

`hiface.synthetic.lights.received_plain` and `hiface.synthetic.skin.shade_plain` are the plain versions.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.render.kernels.library import loaded_library

MAX_LAMPS = 8
_MAX_ROWS = 24


class LightInputs(ctypes.Structure):
    """Mirror of `LightInputs` in skin.c."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("normals", "closed", "opened", "directions", "radiance")],
        *[(name, ctypes.c_void_p) for name in ("lamps", "wanted", "out")],
        *[(name, ctypes.c_int64) for name in ("n_verts", "n_directions", "n_lamps", "stride", "lamp_column")],
        *[(name, ctypes.c_float) for name in ("blend", "wrap_red", "wrap")],
    ]


class SkinInputs(ctypes.Structure):
    """Mirror of `SkinInputs` in skin.c."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("attributes", "corners", "triangles", "triangle", "pixel")],
        *[(name, ctypes.c_void_p) for name in ("place", "texture", "relief", "label", "kind", "gloss")],
        *[(name, ctypes.c_void_p) for name in ("lamps", "quadratic", "colour", "depth", "canvas_label")],
        ("eyes", ctypes.c_void_p),
        *[(name, ctypes.c_int64) for name in ("n_fragments", "stride", "n_attributes", "n_lamps")],
        *[(name, ctypes.c_int64) for name in ("side", "relief_side", "size")],
        *[(name, ctypes.c_float * 2) for name in ("inv_focal", "centre")],
        ("tooth", ctypes.c_float * 3),
        ("shine", ctypes.c_float),
        ("cavity", ctypes.c_float * 3),
        *[(name, ctypes.c_float) for name in ("cavity_m", "steepest")],
    ]


@dataclass(frozen=True)
class Shadows:
    """What vertices see of N directions, a multiple of 8.

    Attributes:
        closed: [V, N] 0..1.
        opened: [V, N] the same at the other end of the blend, or None.
        blend: 0..1 from `closed` to `opened`.
    """

    closed: Tensor
    opened: Tensor | None
    blend: float


def received(
    normals: Tensor,
    shadows: Shadows | None,
    light: tuple[Tensor, Tensor, Tensor],
    wrap: tuple[float, float],
    out: tuple[Tensor, int],
    wanted: Tensor | None = None,
) -> None:
    """Light on vertices, and the share of each lamp that they see.

    Args:
        normals: [V, 3] unit vectors.
        shadows: Visibility, or None for all of the light.
        light: Directions [3, N], radiance [3, N] divided by 1 + wrap, weights of lamps [L, N]; contiguous.
        wrap: How far light reaches round, for red and for green and blue.
        out: [V, C] contiguous table, whose first three columns become the light, and the first of L columns
            for the lamps.
        wanted: [V] bool, vertices that matter, or None for all; rows of others are left as they are.
    """
    normals = normals.contiguous()
    tables = (None, None) if shadows is None else (shadows.closed, shadows.opened)
    tensors = (normals, *tables, *light, wanted, out[0])
    pointers = [None if t is None else t.data_ptr() for t in tensors]
    sizes = (len(normals), light[0].shape[1], len(light[2]), out[0].shape[1], out[1])
    inputs = LightInputs(*pointers, *sizes, 0.0 if shadows is None else shadows.blend, *wrap)
    loaded_library().hiface_received(ctypes.byref(inputs))


@dataclass(frozen=True)
class SkinLook:
    """What the fragments of a head are shaded with.

    Attributes:
        texture: [s, s, 4] albedo.
        relief: [r, r, 4] slopes and depth in metres, or None for smooth skin.
        lamps: [L, 8] direction, colour, width of the lobe, 0.
        quadratic: [3, 4, 4] light as a quadratic form, times the softening under the skin.
        tooth: Factors on the albedo of teeth.
        shine: Strength of the highlight seen from the front.
        cavity: What the deepest grooves take of each colour, their depth in metres, and the steepest slope.
    """

    texture: Tensor
    relief: Tensor | None
    lamps: Tensor
    quadratic: Tensor
    tooth: tuple[float, float, float]
    shine: float
    cavity: tuple[tuple[float, float, float], float, float]


@dataclass(frozen=True)
class SkinMesh:
    """Constant tables of a head.

    Attributes:
        triangles: [T, 3] int64.
        corners: [T, 3, 2] texture coordinates, -1..1.
        label: [T] uint8.
        kind: [T] uint8 0 skin, 1 tooth, 2 eye.
        gloss: [T] float32.
    """

    triangles: Tensor
    corners: Tensor
    label: Tensor
    kind: Tensor
    gloss: Tensor


def vertex_normals(verts: Tensor, triangles: Tensor, out: Tensor) -> None:
    """Unit normals at the vertices, as `hiface.geometry.normals.vertex_normals` computes them.

    Args:
        verts: [V, 3] contiguous.
        triangles: [T, 3] int64, contiguous.
        out: [V, 3], rows contiguous (columns of a larger table will do); is overwritten.
    """
    sizes = len(verts), triangles.data_ptr(), len(triangles), out.stride(0), out.data_ptr()
    loaded_library().hiface_vertex_normals(verts.data_ptr(), *sizes)


def relief_texels(displacement: Tensor) -> Tensor:
    """`hiface.synthetic.relief.relief_maps` of [S, S] contiguous as [S, S, 4], the last channel 0."""
    out = torch.empty(*displacement.shape, 4)
    loaded_library().hiface_relief_texels(displacement.data_ptr(), len(displacement), out.data_ptr())
    return out


def padded_columns(n_lamps: int) -> int:
    """Columns that the attributes of `shade_skin` need, a multiple of four."""
    return -(-(13 + n_lamps) // 4) * 4


def shade_skin(
    target: tuple[Tensor, Tensor, Tensor],
    fragments: tuple[Tensor, Tensor, Tensor],
    attributes: Tensor,
    mesh: SkinMesh,
    look: SkinLook,
    K: Tensor,
) -> Tensor:
    """Shades the fragments of a head and writes them onto a canvas.

    Args:
        target: Colour [3, N], depth [N] and label [N] uint8 of a square canvas, contiguous.
        fragments: Pixels [P], triangles [P] and barycentrics and z [4, P] from `canvas.front`.
        attributes: [V, C] light, normal, share of each lamp, and for relief the vectors a and b of
            `hiface.synthetic.relief.slope_axes` and the share of light; C from `padded_columns`.
        mesh: Tables.
        look: Surface and light.
        K: [3, 3] intrinsics.

    Returns:
        [Q] int64 numbers of the fragments of eyes, which are not shaded right.
    """
    pixel, triangle, place = fragments
    assert attributes.shape[1] % 4 == 0 and attributes.shape[1] <= _MAX_ROWS and attributes.is_contiguous()
    eyes = torch.empty(len(pixel), dtype=torch.int64)
    tensors = (attributes, mesh.corners, mesh.triangles, triangle, pixel, place, look.texture, look.relief)
    tensors = (*tensors, mesh.label, mesh.kind, mesh.gloss, look.lamps, look.quadratic, *target, eyes)
    pointers = [None if t is None else t.data_ptr() for t in tensors]
    relief_side = 0 if look.relief is None else len(look.relief)
    sizes = (
        len(pixel),
        place.stride(0),
        attributes.shape[1],
        len(look.lamps),
        len(look.texture),
        relief_side,
    )
    intrinsics = K.tolist()
    inv_focal = (1 / intrinsics[0][0], 1 / intrinsics[1][1])
    centre = (intrinsics[0][2], intrinsics[1][2])
    inputs = SkinInputs(*pointers, *sizes, round(target[1].numel() ** 0.5))
    inputs.inv_focal, inputs.centre, inputs.tooth = inv_focal, centre, look.tooth
    inputs.shine, (inputs.cavity, inputs.cavity_m, inputs.steepest) = look.shine, look.cavity
    count = loaded_library().hiface_shade_skin(ctypes.byref(inputs))
    return eyes[:count]
