# SPDX-License-Identifier: Apache-2.0
"""L_self: what a reconstruction says of its own picture (HiFace; the terms are DECA's, section 4.1).

Photometric on the skin, landmarks by their certainty, identity by a recogniser. No label of the picture is
needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.colour import linear_to_srgb
from hiface.data.crops import CropFrame
from hiface.detail.basis import DetailBasis
from hiface.detail.sd_detail import compose_detail, detailed_normals
from hiface.morphable import MorphableModel
from hiface.networks.hiface import HifaceOutput
from hiface.networks.hiface_params import output_to_params
from hiface.render.normal_mapped import render_normal_map
from hiface.render.pipeline import render
from hiface.types import Camera, FaceParams

Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SelfRendering:
    """A reconstruction drawn where its crop was cut.

    Attributes:
        image_srgb: [B, 3, S, S] 0..1.
        skin: [B, 1, S, S] bool, pixels that see the skin of the face.
        params: Coefficients in the cameras of the pictures.
        vertices: [B, V, 3] metres, object space.
        normals_cam: [B, 3, S, S] normals with relief, camera axes; 0 where nothing is seen.
    """

    image_srgb: Tensor
    skin: Tensor
    params: FaceParams
    vertices: Tensor
    normals_cam: Tensor

    def relief_srgb(self) -> Tensor:
        """[B, 3, S, S] 0..1 the relief under a lamp from the upper left, without colour."""
        lamp = self.normals_cam.new_tensor([-0.55, -0.6, -0.58])
        return (
            (0.1 + 0.85 * (self.normals_cam * lamp[:, None, None]).sum(1, keepdim=True))
            .clamp(0, 1)
            .expand(-1, 3, -1, -1)
        )


def crop_camera(camera: Camera, frame: CropFrame, size: int) -> Camera:
    """Cameras whose pixels are those of turned crops.

    Args:
        camera: Of the pictures, [B].
        frame: B crops.
        size: Side of the crops, pixels.

    Returns:
        Camera of `size` x `size` pixels; its K is a full affine matrix.
    """
    inverse = torch.linalg.inv(frame.axes())
    shift = -(inverse @ frame.centre_px[..., None])
    top = 0.5 * size * torch.cat([inverse, shift + 1.0], dim=-1)
    last = top.new_tensor([0.0, 0.0, 1.0]).expand(len(top), 1, 3)
    return Camera(torch.cat([top, last], dim=1) @ camera.K, camera.T_cam_object, size, size)


def draw_self(
    model: MorphableModel, basis: DetailBasis, out: HifaceOutput, frame: CropFrame, K: Tensor, size: int
) -> SelfRendering:
    """Renders predictions with their detail, albedo and light into their crops.

    Args:
        model: Face model.
        basis: Detail basis with the network's numbers of codes.
        out: Predictions of B crops.
        frame: The crops.
        K: [B, 3, 3] of the pictures.
        size: Side of the rendering, pixels.

    Returns:
        SelfRendering; differentiable to the predictions. Detail changes the shading and not the outline.
    """
    params = output_to_params(model, out, frame, K, 1, 1)
    neutral = model.shape(params.identity, torch.zeros_like(params.expression))
    shape = model.shape(params.identity, params.expression)
    maps = compose_detail(model, basis, neutral, shape, out.static, out.dynamic)
    camera = crop_camera(params.camera, frame, size)
    smooth = render(model.mesh(shape), camera, model.albedo_map(params.albedo), params.light)
    # Elsewhere the mesh's own normals are finer than what a map holds of them.
    normals = detailed_normals(model, shape, maps.displacement) * basis.support
    drawn = render_normal_map(smooth, normals, camera.R, params.light)
    skin = face_skin(model)[smooth.triangle_id.clamp_min(0).long()] & (smooth.triangle_id >= 0)
    image = linear_to_srgb(drawn.image.clamp(1e-4, 1.0))
    return SelfRendering(image, skin[:, None], params, shape, drawn.normals_cam)


def face_skin(model: MorphableModel) -> Tensor:
    """[T] bool: triangles of the skin of the face."""
    data = model.data
    skin = data.triangle_parts == data.part_names.index("skin")
    face = data.vertex_masks["face"][data.triangles].all(dim=1)
    return (skin & face).to(model.template.device)


def photometric(
    drawn: SelfRendering, crops_srgb: Tensor, mask: Tensor | None = None, scale: float = 0.15
) -> Tensor:
    """Robust difference of colours on the skin of the face.

    Args:
        drawn: Reconstruction.
        crops_srgb: [B, 3, S, S] what it is compared with, at the size of the rendering.
        mask: [B, 1, S, S] weights of pixels, for example of a segmentation; all of the face's skin if None.
        scale: Colour difference from which on a pixel counts as something else than skin (hair, a hand,
            glasses): the penalty r / (1 + r / scale) stops growing there.

    Returns:
        [B] mean over the pixels; 0 where no skin is seen.
    """
    weight = drawn.skin.to(crops_srgb.dtype) * (1.0 if mask is None else mask)
    residual = (drawn.image_srgb - crops_srgb).abs().mean(dim=1, keepdim=True)
    robust = residual / (1 + residual / scale)
    return (robust * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp_min(1.0)


def landmark_agreement(points: Tensor, seen_points: Tensor, weights: Tensor | None = None) -> Tensor:
    """Distance of projected landmarks to a landmark network's, each by its certainty.

    Args:
        points: [B, L, 2] projected, crop coordinates.
        seen_points: [B, L, 3] crop coordinates and log sigma of the network.
        weights: [B, L] further weights.

    Returns:
        [B] weighted mean distance, half crop sides.
    """
    distance = ((points - seen_points[..., :2]).square().sum(-1) + 1e-8).sqrt()
    certain = torch.exp(-seen_points[..., 2]) * (1.0 if weights is None else weights)
    certain = certain / certain.sum(dim=1, keepdim=True).clamp_min(1e-6)
    return (distance * certain).sum(dim=1)


def identity_loss(drawn: SelfRendering, crops_srgb: Tensor, embed: Embed) -> Tensor:
    """1 - cosine of the embeddings of the picture and of the picture with the reconstruction laid over it.

    Args:
        drawn: Reconstruction.
        crops_srgb: [B, 3, S, S].
        embed: Recogniser: crops [B, 3, S, S] to unit vectors; its weights get no gradient from here if they
            do not require one.

    Returns:
        [B] in 0..2.
    """
    over = torch.where(drawn.skin, drawn.image_srgb, crops_srgb)
    with torch.no_grad():
        goal = embed(crops_srgb)
    return 1 - (embed(over) * goal).sum(dim=1)
