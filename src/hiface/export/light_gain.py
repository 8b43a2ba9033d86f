# SPDX-License-Identifier: Apache-2.0
"""How strong a fitted light must be for a face's texture to look as the photo does."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hiface.colour import srgb_to_linear
from hiface.export.ply import vertex_colours
from hiface.geometry.normals import unit, vertex_normals
from hiface.morphable import MorphableModel
from hiface.render.shade import sh_basis
from hiface.render.texels import head_region
from hiface.render.texture import sample_texture
from hiface.types import FaceParams

_FACING = 0.4
_DARK = 0.01
_FEWEST = 30
_LARGEST_PX = 512


def light_gain(
    model: MorphableModel, params: FaceParams, image_srgb: np.ndarray, texture_srgb: Tensor
) -> Tensor:
    """Compares a photo with the texture in the fitted light.

    The light is read together with the coarse albedo, and texture and photo need not agree with either.

    Args:
        model: The face model.
        params: One face, without batch dimensions.
        image_srgb: [H, W, 3] uint8, the photo of `params.camera`.
        texture_srgb: [3, S, S] sRGB, 0..1.

    Returns:
        [3] factors on the light: the median over the face's vertices that the photo shows; 1 if it shows
        hardly any.
    """
    with torch.no_grad():
        verts_cam = model.vertices_cam(params)
        normals = vertex_normals(verts_cam, model.triangles)
        facing = -(unit(verts_cam, 1) * normals).sum(dim=1)
        region, camera = head_region(model, params, image_srgb, _LARGEST_PX)
        at = camera.cam_to_px(verts_cam) / verts_cam.new_tensor([camera.width, camera.height])
        seen = (facing > _FACING) & ((at > 0) & (at < 1)).all(dim=1)
        seen &= model.data.vertex_masks.get("face", torch.ones_like(seen)).to(seen.device)
        photo = sample_texture(srgb_to_linear(region), at)
        colours = torch.from_numpy(vertex_colours(model, texture_srgb)).to(verts_cam) / 255.0
        shown = srgb_to_linear(colours) * (sh_basis(normals) @ params.light)
        seen &= (shown.amin(dim=1) > _DARK) & (photo.amin(dim=1) > _DARK)
        if int(seen.sum()) < _FEWEST:
            return photo.new_ones(3)
        return (photo[seen] / shown[seen]).median(dim=0).values
