# SPDX-License-Identifier: Apache-2.0
"""The picture's side of the fit: exposure, grey pictures, visible samples, the energy of one level."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hiface.fitting.config import FitConfig
from hiface.fitting.observations import ImageCrop
from hiface.fitting.parameters import ParamLayout, PoseFrame, pose_values
from hiface.fitting.photometric_energy import BlurredCrop, PhotometricEnergy, blur_crop, luminance
from hiface.fitting.point_basis import to_camera
from hiface.fitting.prepared import FitModel
from hiface.fitting.samples import SurfaceSamples, visible_samples
from hiface.render.shade import ambient_light
from hiface.render.visibility import turned_transfer

MIN_SAMPLES = 100  # fewer visible, unclipped samples say nothing of light
_CLIPPED = 0.98  # linear values above are saturated
_DARK = 1e-3  # linear brightness below is black
_GREY = 0.01  # largest relative spread of the channels of a black-and-white photo
_FACING = 0.15  # least cosine between normal and viewing ray


@dataclass(frozen=True)
class Appearance:
    """What was read off the picture before fitting colours.

    Attributes:
        samples: Samples, their albedo without colour if the picture has none.
        exposure: Linear brightness of the face over that of the mean albedo; the fit divides by it.
        crop: The picture.
        channels: Number of colour channels that say different things: 3, or 1 in a grey picture.
    """

    samples: SurfaceSamples
    exposure: float
    crop: ImageCrop
    channels: int = 3


def read_appearance(prepared: FitModel, crop: ImageCrop, x: Tensor, frame: PoseFrame) -> Appearance | None:
    """Measures exposure and colour of the face.

    Args:
        prepared: The model.
        crop: The picture.
        x: [P] parameters after the landmark stage.
        frame: Pose frame.

    Returns:
        Appearance, or None where the picture says nothing: black, saturated, or hardly any skin in it.
    """
    samples = prepared.samples
    if samples is None:
        return None
    visible, px = _seen(prepared, samples, crop, x, frame)
    image = BlurredCrop(crop.image_linear.float().repeat(3, 1, 1), crop.offset_px, crop.scale)
    colour = image.lookup(px)[0]
    seen = visible & (colour.amax(-1) < _CLIPPED)
    if int(seen.sum()) < MIN_SAMPLES:
        return None
    brightness = float(luminance(colour[seen]).median())
    if brightness < _DARK:
        return None
    spread = (crop.image_linear.amax(0) - crop.image_linear.amin(0)).mean() / crop.image_linear.mean()
    grey = float(spread) < _GREY
    if grey:
        samples = _without_colour(samples)
    exposure = brightness / float(luminance(samples.albedo_mean[seen]).median())
    return Appearance(samples, exposure, crop, 1 if grey else 3)


def _without_colour(samples: SurfaceSamples) -> SurfaceSamples:
    mean = luminance(samples.albedo_mean)[:, None].expand(-1, 3).contiguous()
    basis = luminance(samples.albedo_basis)[..., None].expand(-1, -1, 3).contiguous()
    return replace(samples, albedo_mean=mean, albedo_basis=basis)


def _seen(
    prepared: FitModel, samples: SurfaceSamples, crop: ImageCrop, x: Tensor, frame: PoseFrame
) -> tuple[Tensor, Tensor]:
    """[S] bool: visible, facing, in crop and photo; and the samples' positions [S, 2] in the photo."""
    vertices = prepared.vertices(x)
    frame, x = frame.to(vertices.dtype), x.to(vertices.dtype)
    pose = pose_values(x, prepared.layout, frame)
    cam = to_camera(vertices, pose, frame)
    px = pose.focal_px * cam[:, :2] / cam[:, 2:].clamp_min(1e-3) + frame.principal_px
    local = (px - px.new_tensor(crop.offset_px)) * crop.scale
    height, width = crop.image_linear.shape[-2:]
    visible = visible_samples(
        samples, torch.cat([local, cam[:, 2:]], dim=1), prepared.triangles, (height, width)
    )
    corners = prepared.triangles[samples.triangle_ids]
    points = (cam[corners] * samples.barycentric[..., None]).sum(1)
    a, b, c = cam[corners].unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    facing = -(normal * torch.nn.functional.normalize(points, dim=-1)).sum(-1) > _FACING
    found = pose.focal_px * points[:, :2] / points[:, 2:].clamp_min(1e-3) + frame.principal_px
    inside = ((found >= 0) & (found < found.new_tensor([frame.width, frame.height]))).all(-1)
    return visible & facing & inside, found


def photometric_energy(
    prepared: FitModel,
    appearance: Appearance,
    x: Tensor,
    frame: PoseFrame,
    level: tuple[float, bool],
    config: FitConfig,
) -> PhotometricEnergy:
    """E_con of one pyramid level around the current estimate.

    Args:
        prepared: The model.
        appearance: What was read off the picture.
        x: [P] current parameters, from which visibility and noise are taken.
        frame: Pose frame.
        level: Sampling distance over the face size, and whether geometry moves.
        config: Weights.

    Returns:
        PhotometricEnergy.
    """
    samples, crop = appearance.samples, appearance.crop
    distance, moves_geometry = level
    dtype = samples.albedo_mean.dtype
    image = blur_crop(crop, 0.5 * distance * frame.size_px, appearance.exposure, dtype)
    visible, px = _seen(prepared, samples, crop, x, frame)
    seen = visible & (image.lookup(px)[0].amax(-1) * appearance.exposure < _CLIPPED)
    energy = PhotometricEnergy(
        samples=samples,
        image=image,
        visible=seen.to(dtype),
        sigma=config.photometric_floor,
        weight=1.0,
        scale=config.photometric_scale,
        moves_geometry=moves_geometry,
        layout=prepared.layout,
        frame=frame.to(dtype),
        transfer=turned_transfer(samples.transfer, pose_values(x, prepared.layout, frame).R.to(dtype)),
    )
    most = config.effective_samples if moves_geometry else config.effective_tone
    effective = min(config.effective_per_px * (frame.size_px * crop.scale) ** 2, most)
    return energy.with_noise(x, config.photometric_floor, effective * appearance.channels / 3)


def default_light(layout: ParamLayout, x: Tensor) -> Tensor:
    """Copy of x [P] with white light from all sides that shades everything with 1."""
    result = x.clone()
    result[layout["light"]] = ambient_light(1.0, x).flatten()
    return result


def with_exposure(layout: ParamLayout, x: Tensor, exposure: float) -> Tensor:
    """Copy of x [P] with the light multiplied by the exposure."""
    result = x.clone()
    result[layout["light"]] *= exposure
    return result
