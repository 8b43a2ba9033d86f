# SPDX-License-Identifier: Apache-2.0
"""What a photo shows of a fitted face, vertex by vertex, and how well the fit explains it.

Optimisation fails quietly where a photo says nothing: on the far side of a turned head, under hair, behind a
hand. There the answer is what people usually look like.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.fitting.photometric_energy import luminance
from hiface.fitting.robust import geman_weight
from hiface.geometry.areas import vertex_areas
from hiface.geometry.constants import ConstantMatrix, cached_per_tensor
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel
from hiface.render.shade import sh_basis
from hiface.render.texels import TexelSurface, crop_to_head, photo_weights
from hiface.render.texture import sample_texture
from hiface.render.visibility import reaching_light
from hiface.types import FaceParams

HALF_SEEN = 0.35
"""A half of the face that is seen by less than this share of the other half's is called inferred."""
_SIDE_PX = (192, 384)
_SCALE = 2.0
_LEAST_SPREAD = 0.05  # of the logarithm of brightness; skin varies that much
_FLOOR = 1e-3
_SMOOTH_STEPS = 3


@dataclass(frozen=True)
class VertexEvidence:
    """What a photo says of each vertex.

    Attributes:
        visible: [V] 0..1, how squarely the photo shows it; 0 where it is hidden, turned away or outside.
        confidence: [V] 0..1, `visible` times how well the fitted colours agree with the photo around it: low
            under hair, glasses and hands.
        seen_left: Share of the left half of the face (the person's) that is visible, by area.
        seen_right: Share of the right half.
    """

    visible: Tensor
    confidence: Tensor
    seen_left: float
    seen_right: float

    @property
    def inferred_half(self) -> str | None:
        """The half of the face that the photo hardly shows, "left" or "right", or None."""
        least, most = sorted((self.seen_left, self.seen_right))
        if least >= HALF_SEEN * most:
            return None
        return "left" if self.seen_left < self.seen_right else "right"


def vertex_evidence(model: MorphableModel, params: FaceParams, image_linear: Tensor) -> VertexEvidence:
    """Looks at a photo through a fitted face.

    Args:
        model: Face model.
        params: One fitted face, without batch dimensions.
        image_linear: [3, H, W] linear RGB, the photo of `params.camera`.

    Returns:
        VertexEvidence; nothing is visible where the head lies outside the picture.
    """
    with torch.no_grad():
        verts_cam = model.vertices_cam(params)
        normals = vertex_normals(verts_cam, model.triangles)
        crop = crop_to_head(image_linear, params.camera, verts_cam, _SIDE_PX)
        if crop is None:
            nothing = torch.zeros_like(verts_cam[:, 0])
            return VertexEvidence(nothing, nothing, 0.0, 0.0)
        index = torch.arange(len(verts_cam), device=verts_cam.device)
        surface = TexelSurface(1, index, index, verts_cam, normals, torch.ones_like(verts_cam[:, 0]))
        visible = photo_weights(surface, crop, verts_cam, model.triangles)
        light = reaching_light(model, params.light, params.camera.R)
        shading = (sh_basis(normals)[:, None] @ light)[:, 0]
        albedo = _at_vertices(model, model.albedo_map(params.albedo))
        uv = crop.camera.cam_to_px(verts_cam) / verts_cam.new_tensor([crop.camera.width, crop.camera.height])
        seen = luminance(sample_texture(crop.image_linear, uv)).clamp_min(_FLOOR)
        residual = (seen / luminance(albedo * shading).clamp_min(_FLOOR)).log()
        agreement = _agreement(model, residual, visible)
        left, right = _halves(model, visible)
        return VertexEvidence(visible, visible * agreement, left, right)


def _at_vertices(model: MorphableModel, maps: Tensor) -> Tensor:
    """[V, C] a map [C, H, W] at the vertices; where the texture has a seam, at one side of it."""
    uv = torch.zeros(model.data.n_vertices, 2, dtype=model.uv.dtype, device=model.uv.device)
    uv[model.triangles.flatten()] = model.uv[model.uv_triangles.flatten()]
    return sample_texture(maps, uv)


def _agreement(model: MorphableModel, residual: Tensor, visible: Tensor) -> Tensor:
    """[V] robust weight of the residual's square around each vertex."""
    good = visible > 0.5
    if not bool(good.any()):
        return torch.zeros_like(visible)
    off = residual - residual[good].median()
    spread = (1.4826 * off[good].abs().median()).clamp_min(_LEAST_SPREAD)
    square, mass = (off / spread).square().clamp_max(25.0) * visible, visible
    around = _neighbours(model.triangles, len(visible), visible.dtype)
    for _ in range(_SMOOTH_STEPS):
        square, mass = around.apply(torch.stack([square, mass], dim=1)).unbind(1)
    return geman_weight(square / mass.clamp_min(1e-6), _SCALE)


@cached_per_tensor
def _neighbours(triangles: Tensor, count: int, dtype: torch.dtype) -> ConstantMatrix:
    """[V, V] sum over the vertices that share a triangle."""
    rows, columns = triangles.repeat_interleave(3, dim=1).flatten(), triangles.repeat(1, 3).flatten()
    ones = torch.ones(len(rows), dtype=dtype, device=triangles.device)
    return ConstantMatrix(rows, columns, ones, (count, count))


def _halves(model: MorphableModel, visible: Tensor) -> tuple[float, float]:
    """Visible share of the face's left (+x) and right half, by area."""
    area = vertex_areas(model.template, model.triangles)
    face = model.data.vertex_masks.get("face")
    if face is not None:
        area = area * face.to(area)
    x = model.template[:, 0]
    left, right = (float((visible * area)[s].sum() / area[s].sum().clamp_min(1e-12)) for s in (x > 0, x < 0))
    return left, right
