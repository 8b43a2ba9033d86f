# SPDX-License-Identifier: Apache-2.0
"""Displacement and normal maps as pictures that other programs read."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from hiface.detail.sd_detail import detail_space, detailed_normals
from hiface.errors import MeshFileError, ShapeError
from hiface.geometry.normals import unit, vertex_normals
from hiface.morphable import MorphableModel

DISPLACEMENT_RANGE_M = 0.002
"""A 16-bit displacement map runs from -2 mm (0) over 0 (32768) to 2 mm (65536)."""
LARGEST_MAP_PX = 8192


def displacement_png(displacement: Tensor) -> bytes:
    """A displacement map as a 16-bit grey PNG; its scale is in the text chunk "displacement_range_m".

    Args:
        displacement: [1, S, S] metres, positive outward.

    Raises:
        ShapeError: Another shape.
    """
    if displacement.dim() != 3 or displacement.shape[0] != 1:
        raise ShapeError(f"displacement must be [1, S, S], got {tuple(displacement.shape)}")
    from PIL.PngImagePlugin import PngInfo

    steps = 32768 + displacement[0].detach().cpu().double().numpy() / DISPLACEMENT_RANGE_M * 32768
    about = PngInfo()
    about.add_text("displacement_range_m", f"{-DISPLACEMENT_RANGE_M} {DISPLACEMENT_RANGE_M}")
    stream = io.BytesIO()
    Image.fromarray(steps.round().clip(0, 65535).astype(np.uint16)).save(stream, "PNG", pnginfo=about)
    return stream.getvalue()


def read_displacement_png(content: bytes, name: str = "the displacement map") -> Tensor:
    """A displacement map of `displacement_png`.

    Args:
        content: The file.
        name: How messages call it.

    Returns:
        [1, S, S] metres.

    Raises:
        MeshFileError: It is no PNG, is damaged, has colours or 8 bits, is not square or is larger than
            `LARGEST_MAP_PX`.
    """
    try:
        picture = Image.open(io.BytesIO(content), formats=("PNG",))
        if picture.mode not in ("I;16", "I"):
            raise ValueError(f"its pixels are {picture.mode}, not 16-bit grey")
        if picture.width != picture.height or picture.width > LARGEST_MAP_PX:
            raise ValueError(f"it has {picture.width} x {picture.height} pixels")
        steps = np.asarray(picture, dtype=np.float32)
    except UnidentifiedImageError as error:
        raise MeshFileError(f"{name} is no PNG; write the maps again") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MeshFileError(f"{name} cannot be read ({error}); write the maps again") from error
    return torch.from_numpy((steps - 32768) / 32768 * DISPLACEMENT_RANGE_M)[None]


def tangent_frames(model: MorphableModel, vertices: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Axes of tangent space at each texel, as glTF has them: x along u, y against v, z outward.

    Args:
        model: Face model.
        vertices: [V, 3] metres.
        size: Side of the maps.

    Returns:
        Tangent, bitangent and normal, [3, S, S] each, unit; the normals are those of the smooth surface.
    """
    space = detail_space(model, size)
    normals = vertex_normals(vertices, model.triangles)
    tangents = vertex_tangents(model, vertices)
    maps = space.lift(torch.cat([normals, tangents], dim=-1))
    normal = unit(maps[:3], 0)
    along_u, along_v = maps[3:6], maps[6:]
    tangent = unit(along_u - (along_u * normal).sum(0) * normal, 0)
    side = torch.linalg.cross(normal, tangent, dim=0)
    bitangent = side * -(side * along_v).sum(0).sign()
    return tangent, bitangent, normal


def vertex_tangents(model: MorphableModel, vertices: Tensor) -> Tensor:
    """[V, 6] directions of growing u and of growing v on the surface, unit, averaged over the triangles."""
    return _directions(model, vertices, model.triangles, len(vertices))


def gltf_tangents(model: MorphableModel, vertices: Tensor) -> Tensor:
    """What glTF calls TANGENT, for each texture coordinate (vertices are split where the texture has a seam).

    Args:
        model: Face model.
        vertices: [V, 3] metres.

    Returns:
        [U, 4] unit tangent, and 1 or -1: the bitangent is cross(normal, tangent) times that.
    """
    both = _directions(model, vertices, model.uv_triangles, len(model.uv))
    of_uv = torch.zeros(len(model.uv), dtype=torch.int64, device=vertices.device)
    of_uv[model.uv_triangles.flatten()] = model.triangles.flatten()
    normal = vertex_normals(vertices, model.triangles)[of_uv]
    tangent = both[:, :3] - (both[:, :3] * normal).sum(1, keepdim=True) * normal
    tangent = F.normalize(tangent, dim=1)
    lost = tangent.square().sum(1, keepdim=True) < 0.5  # a triangle without area in the texture
    other = torch.linalg.cross(normal, normal.roll(1, dims=1) + normal.new_tensor([1.0, 2.0, 3.0]))
    tangent = torch.where(lost, F.normalize(other, dim=1), tangent)
    side = (torch.linalg.cross(normal, tangent) * both[:, 3:]).sum(1)
    return torch.cat([tangent, torch.where(side > 0, -1.0, 1.0)[:, None]], dim=1)


def _directions(model: MorphableModel, vertices: Tensor, corners: Tensor, count: int) -> Tensor:
    """[count, 6] directions of u and v, unit, summed at what `corners` [T, 3] name."""
    a, b, c = vertices[model.triangles].unbind(1)
    ua, ub, uc = model.uv[model.uv_triangles].unbind(1)
    e1, e2, d1, d2 = b - a, c - a, ub - ua, uc - ua
    determinant = d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]
    sign = determinant.sign()[:, None]
    along_u = F.normalize((e1 * d2[:, 1:] - e2 * d1[:, 1:]) * sign, dim=1)
    along_v = F.normalize((e2 * d1[:, :1] - e1 * d2[:, :1]) * sign, dim=1)
    area = torch.linalg.cross(e1, e2).norm(dim=1, keepdim=True)
    both = (torch.cat([along_u, along_v], dim=1) * area).repeat_interleave(3, dim=0)
    total = vertices.new_zeros(count, 6).index_add(0, corners.flatten(), both)
    return torch.cat([F.normalize(total[:, :3], dim=1), F.normalize(total[:, 3:], dim=1)], dim=1)


def tangent_normal_map(model: MorphableModel, vertices: Tensor, displacement: Tensor) -> Tensor:
    """Normal map in tangent space, as glTF's `normalTexture` wants it.

    Args:
        model: Face model.
        vertices: [V, 3] metres, of the smooth surface.
        displacement: [1, S, S] metres.

    Returns:
        [3, S, S] in 0..1: (n + 1) / 2, x along u, y against v (up in the picture), z outward; flat
        (0.5, 0.5, 1) where there is no detail.
    """
    frames = tangent_frames(model, vertices, displacement.shape[-1])
    bent = detailed_normals(model, vertices, displacement)
    local = torch.stack([(bent * axis).sum(0) for axis in frames])
    flat = local.new_tensor([0.0, 0.0, 1.0])[:, None, None]
    return 0.5 + 0.5 * torch.where(frames[2].square().sum(0) > 0.5, local, flat)
