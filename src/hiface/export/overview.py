# SPDX-License-Identifier: Apache-2.0
"""One picture that shows what was reconstructed: photo, landmarks, fit, shape, albedo and normals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hiface.atomic import atomic_write_bytes
from hiface.colour import linear_to_srgb, srgb_to_linear
from hiface.detail.sd_detail import detailed_normals
from hiface.export.draw import crop_square, draw_landmarks, grid
from hiface.export.eyes import with_eyes_of
from hiface.export.morphs import check_single
from hiface.export.pictures import pil_png, to_array
from hiface.export.texture import bake_photo_texture
from hiface.morphable import MorphableModel
from hiface.render import ambient_light, render
from hiface.render.normal_mapped import render_normal_map
from hiface.render.pipeline import RenderOutput
from hiface.types import Camera, FaceParams

PANEL_PX = 360
MARGIN = 1.22
CLAY_SRGB = (0.80, 0.79, 0.78)
BACKDROP_SRGB = ((0.955, 0.960, 0.968), (0.862, 0.872, 0.888))
CLAY_LIGHTS = (((-0.60, -0.62, -0.50), 0.92), ((0.85, -0.05, -0.40), 0.26), ((0.1, 0.9, -0.3), 0.08))
"""Directions towards the light in camera axes, and strengths."""
_AMBIENT = 0.08
_SUPERSAMPLE = 2


@dataclass(frozen=True)
class _View:
    """A square window of the photo."""

    centre_px: tuple[float, float]
    side_px: float

    def camera(self, camera: Camera, size: int) -> Camera:
        """The photo's camera, looking through the window only."""
        zoom = size / self.side_px
        x0, y0 = self.centre_px[0] - self.side_px / 2, self.centre_px[1] - self.side_px / 2
        crop = camera.K.new_tensor([[zoom, 0.0, -x0 * zoom], [0.0, zoom, -y0 * zoom], [0.0, 0.0, 1.0]])
        return Camera(crop @ camera.K, camera.T_cam_object, size, size)

    def to_view(self, points_px: Tensor, size: int) -> Tensor:
        """Photo pixels to pixels of the window."""
        corner = points_px.new_tensor([c - self.side_px / 2 for c in self.centre_px])
        return (points_px - corner) * (size / self.side_px)


def overview(
    model: MorphableModel,
    params: FaceParams,
    image_srgb: np.ndarray,
    landmarks_px: Tensor,
    texture_srgb: Tensor | None = None,
    displacement: Tensor | None = None,
    *,
    panel_px: int = PANEL_PX,
) -> Image.Image:
    """Six panels at the photo's crop around the head.

    Args:
        model: The face model.
        params: One face, without batch dimensions.
        image_srgb: [H, W, 3] uint8 sRGB, the upright photo.
        landmarks_px: [68, 2] pixels of the photo.
        texture_srgb: [3, S, S] sRGB, 0..1, shown in the albedo panel; baked from the photo if None.
        displacement: [1, D, D] metres, relief of the surface, if there is any.
        panel_px: Side of a panel.

    Returns:
        RGB picture: photo, landmarks, fit over the photo; shape, albedo, normals.

    Raises:
        ShapeError: `params` is a batch.
    """
    check_single(params)
    with torch.no_grad():
        if texture_srgb is None:
            texture_srgb = bake_photo_texture(model, params, image_srgb, size=512).image_srgb
        view = head_view(
            params.camera.project(model.vertices(params.identity, params.expression, params.pose))
        )
        size = panel_px * _SUPERSAMPLE
        photo = crop_square(image_srgb, view.centre_px, view.side_px, panel_px)
        mesh = model(params.identity, params.expression, params.pose)
        camera = view.camera(params.camera, size)
        background = _picture_to_linear(photo.resize((size, size), Image.Resampling.BICUBIC))
        texture = srgb_to_linear(texture_srgb)
        skin = with_eyes_of(model, model.albedo_map(params.albedo), texture)
        fit = render(mesh, camera, skin, params.light, background=background)
        surface = fit
        if displacement is not None:
            relief = relief_normal_map(model, params, displacement)
            surface = render_normal_map(fit, relief, camera.R, params.light)
        colours, behind = normal_colours(surface.normals_cam), backdrop(size)
        white = ambient_light(1.0, params.light)
        albedo = render(mesh, camera, texture, white, background=behind)
        panels = [
            ("photo", photo),
            ("landmarks", draw_landmarks(photo, view.to_view(landmarks_px, panel_px), panel_px / 220)),
            ("fit", _to_picture(surface.image, panel_px)),
            ("shape", _to_picture(_over(clay(surface.normals_cam), fit, behind), panel_px)),
            ("albedo", _to_picture(albedo.image, panel_px)),
            ("normals", _to_picture(_over(srgb_to_linear(colours), fit, behind), panel_px)),
        ]
    return grid(panels, columns=3)


def write_overview(
    path: str | Path,
    model: MorphableModel,
    params: FaceParams,
    image_srgb: np.ndarray,
    landmarks_px: Tensor,
    texture_srgb: Tensor | None = None,
    displacement: Tensor | None = None,
) -> Path:
    """Writes `overview` as a PNG file; arguments as there.

    Raises:
        OutputError: The file cannot be written.
    """
    sheet = overview(model, params, image_srgb, landmarks_px, texture_srgb, displacement)
    return atomic_write_bytes(path, pil_png(sheet))


def relief_normal_map(model: MorphableModel, params: FaceParams, displacement: Tensor) -> Tensor:
    """[3, D, D] normals of one face with relief [1, D, D] metres, object axes; 0 where there is none."""
    shape = model.shape(params.identity, params.expression)
    return detailed_normals(model, shape, displacement) * (displacement != 0).to(shape.dtype)


def head_view(points_px: Tensor) -> _View:
    """Square window around projected points [N, 2], with a margin."""
    low, high = points_px.min(dim=0).values, points_px.max(dim=0).values
    centre = ((low + high) / 2).tolist()
    return _View((centre[0], centre[1]), float((high - low).max()) * MARGIN)


def clay(normals_cam: Tensor) -> Tensor:
    """Grey clay under three lamps.

    Args:
        normals_cam: [3, H, W] unit normals in camera axes (x right, y down, z forward).

    Returns:
        [3, H, W] linear colour.
    """
    light = torch.full_like(normals_cam[0], _AMBIENT)
    for direction, strength in CLAY_LIGHTS:
        towards = F.normalize(normals_cam.new_tensor(direction), dim=0)
        cosine = (normals_cam * towards[:, None, None]).sum(dim=0)
        light = light + strength * (0.9 * cosine + 0.1).clamp_min(0.0)
    half = F.normalize(
        normals_cam.new_tensor(CLAY_LIGHTS[0][0]) + normals_cam.new_tensor([0.0, 0.0, -1.0]), dim=0
    )
    gloss = 0.08 * (normals_cam * half[:, None, None]).sum(dim=0).clamp_min(0.0) ** 24
    colour = srgb_to_linear(normals_cam.new_tensor(CLAY_SRGB))
    return colour[:, None, None] * light + gloss


def normal_colours(normals_cam: Tensor) -> Tensor:
    """Normals as sRGB colours: red to the viewer's right, green up, blue towards the viewer; [3, H, W]."""
    return 0.5 + 0.5 * normals_cam * normals_cam.new_tensor([1.0, -1.0, -1.0])[:, None, None]


def _over(colour_linear: Tensor, surface: RenderOutput, backdrop: Tensor) -> Tensor:
    return torch.where(surface.mask, colour_linear, backdrop)


def backdrop(size: int) -> Tensor:
    """A soft vertical gradient, [3, size, size] linear."""
    top, bottom = (torch.tensor(c)[:, None] for c in BACKDROP_SRGB)
    blend = torch.linspace(0.0, 1.0, size)
    return srgb_to_linear(top + (bottom - top) * blend)[:, :, None].expand(3, size, size)


def _picture_to_linear(picture: Image.Image) -> Tensor:
    return srgb_to_linear(torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255.0)


def _to_picture(image_linear: Tensor, panel_px: int) -> Image.Image:
    """Linear [3, S, S] at `_SUPERSAMPLE` times the size to an RGB panel."""
    small = F.interpolate(image_linear.clamp(0.0, 1.0)[None], size=(panel_px, panel_px), mode="area")[0]
    return Image.fromarray(to_array(linear_to_srgb(small)))
