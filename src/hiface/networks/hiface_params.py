# SPDX-License-Identifier: Apache-2.0
"""From what the HiFace network says of a crop to coefficients in the photo's camera, and back for its labels.

The network speaks of the crop alone: a rotation as seen along the crop's axis, where an anchor of the head is
seen and how large. With the photo's focal length these make one rigid pose; another focal length leaves
size and place in the picture as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiface.data.crops import CropFrame
from hiface.detail.basis import DetailBasis
from hiface.errors import AssetError
from hiface.morphable import MorphableModel
from hiface.networks.hiface import HifaceConfig, HifaceOutput
from hiface.networks.poses import crop_rotation, rotation_from_6d
from hiface.render.shade import rotate_light
from hiface.types import Camera, FaceParams


def check_model(config: HifaceConfig, model: MorphableModel, basis: DetailBasis) -> None:
    """Whether a face model and its detail basis have the coefficients that a network speaks of.

    Raises:
        AssetError: They have not.
    """
    data = model.data
    has = (data.n_identity, len(data.expression_names), len(data.albedo_names), *basis.counts)
    wants = (
        config.n_identity,
        config.n_expression,
        config.n_albedo,
        config.n_static,
        config.n_compressed,
        config.n_stretched,
    )
    if has[:3] != wants[:3] or any(a < b for a, b in zip(has[3:], wants[3:], strict=True)):
        raise AssetError(
            f"the HiFace network is made or trained for a face model of {wants} coefficients (identity, "
            f"expression, albedo, static, compressed, stretched), {data.name!r} has {has}; use a preset or "
            "weights made for this model"
        )


def head_anchor(model: MorphableModel) -> Tensor:
    """[3] point of the head that `HifaceOutput.place` speaks of: the middle of the 68 points at rest."""
    return model.landmarks("ibug68", model.template).mean(dim=0)


def place_to_translation(
    place: Tensor, R_cam_head: Tensor, anchor: Tensor, frame: CropFrame, K: Tensor
) -> Tensor:
    """Translation of heads from where their anchor is seen.

    Args:
        place: [B, 3], see `HifaceOutput.place`.
        R_cam_head: [B, 3, 3].
        anchor: [3] metres.
        frame: B crops.
        K: [B, 3, 3].

    Returns:
        [B, 3] metres. Differentiable.
    """
    scale_px = torch.exp(place[:, 2]) * (0.5 * frame.side_px)
    seen_px = frame.to_picture(place[:, None, :2])[:, 0]
    ahead = torch.cat([seen_px - K[:, :2, 2], K[:, 0, 0, None]], dim=1)
    return ahead / scale_px[:, None] - (R_cam_head @ anchor)


def translation_to_place(T_cam_head: Tensor, anchor: Tensor, frame: CropFrame, K: Tensor) -> Tensor:
    """The inverse: `HifaceOutput.place` [B, 3] of heads posed by T_cam_head [B, 4, 4]."""
    at = T_cam_head[:, :3, :3] @ anchor + T_cam_head[:, :3, 3]
    focal = K[:, 0, 0]
    seen_px = at[:, :2] * (focal / at[:, 2])[:, None] + K[:, :2, 2]
    scale = focal / at[:, 2] / (0.5 * frame.side_px)
    return torch.cat([frame.to_crop(seen_px[:, None])[:, 0], torch.log(scale)[:, None]], dim=1)


def output_to_params(
    model: MorphableModel, out: HifaceOutput, frame: CropFrame, K: Tensor, width: int, height: int
) -> FaceParams:
    """Coefficients of B faces in their photos' cameras.

    Args:
        model: Face model.
        out: Of the network.
        frame: The crops it saw.
        K: [B, 3, 3] intrinsics of the photos.
        width: Of the photos, pixels.
        height: Of the photos, pixels.

    Returns:
        FaceParams with all joints at rest (where the eyes look is in the eyeLook coefficients).
        Differentiable.
    """
    turn = crop_rotation(frame, K)
    R = turn @ rotation_from_6d(out.rotation6d)
    t = place_to_translation(out.place, R, head_anchor(model), frame, K)
    bottom = t.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(t), 1, 4)
    T = torch.cat([torch.cat([R, t[..., None]], dim=-1), bottom], dim=-2)
    return FaceParams(
        identity=out.identity,
        expression=out.expression,
        pose=t.new_zeros(len(t), model.data.n_joints, 3),
        albedo=out.albedo,
        light=rotate_light(out.light.unflatten(-1, (9, 3)), turn),
        camera=Camera(K, T, width, height),
        static=out.static,
    )
