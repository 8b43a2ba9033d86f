# SPDX-License-Identifier: Apache-2.0
"""The pictures of a head under the names that DECA gives them, all of one square window of the photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hiface.colour import linear_to_srgb, srgb_to_linear
from hiface.export.draw import crop_square, draw_landmarks
from hiface.export.overview import clay, head_view, relief_normal_map
from hiface.export.pictures import to_array
from hiface.morphable import MorphableModel
from hiface.render import ambient_light, render
from hiface.render.normal_mapped import render_normal_map
from hiface.types import Camera, FaceParams

VIEW_PX = 512
"""Side of the pictures."""
FURTHEST_GREY = 64
"""Grey of the furthest point in the picture of the depth; the nearest is 255, what is no head is 0."""
_SUPERSAMPLE = 2


@dataclass(frozen=True)
class DecaView:
    """The head as the photo's camera sees it through a square window.

    Attributes:
        camera: The photo's camera through the window, `VIEW_PX` wide and high.
        pictures: RGB by DECA's name: inputs, landmarks2d, rendered_images, albedo_images, shape_images,
            shape_detail_images, depth_images.
        depth_m: [1, H, W] camera z in metres, 0 where there is no head.
        normals_cam: [3, H, W] unit normals of the detailed surface in camera axes, 0 where there is no head.
        mask: [1, H, W] bool, whether a pixel's centre sees the head.
    """

    camera: Camera
    pictures: dict[str, Image.Image]
    depth_m: Tensor
    normals_cam: Tensor
    mask: Tensor


def deca_view(
    model: MorphableModel,
    params: FaceParams,
    image_srgb: np.ndarray,
    texture_srgb: Tensor,
    displacement: Tensor | None,
) -> DecaView:
    """Draws one face.

    Args:
        model: Face model.
        params: One face, without batch dimensions.
        image_srgb: [H, W, 3] uint8 sRGB, the upright photo.
        texture_srgb: [3, S, S] sRGB, 0..1.
        displacement: [1, D, D] metres, or None.
    """
    with torch.no_grad():
        mesh = model(params.identity, params.expression, params.pose)
        view = head_view(params.camera.project(mesh.vertices))
        photo = crop_square(image_srgb, view.centre_px, view.side_px, VIEW_PX)
        landmarks = params.camera.cam_to_px(
            model.landmarks_cam("ibug68", params.camera.to_cam(mesh.vertices))
        )
        albedo, white = srgb_to_linear(texture_srgb), ambient_light(1.0, params.light)
        relief = None if displacement is None else relief_normal_map(model, params, displacement)
        fine = view.camera(params.camera, VIEW_PX * _SUPERSAMPLE)
        smooth = render(mesh, fine, albedo, params.light)
        lit, normals = smooth.image, smooth.normals_cam
        if relief is not None:
            surface = render_normal_map(smooth, relief, fine.R, params.light)
            lit, normals = surface.image, surface.normals_cam
        camera = view.camera(params.camera, VIEW_PX)
        seen = render(mesh, camera, albedo, params.light, antialias=False)
        small = seen.normals_cam
        if relief is not None:
            small = render_normal_map(seen, relief, camera.R, params.light).normals_cam
        linear = {
            "rendered_images": lit,
            "albedo_images": render(mesh, fine, albedo, white).image,
            "shape_images": clay(smooth.normals_cam) * smooth.mask,
            "shape_detail_images": clay(normals) * smooth.mask,
        }
    marked = draw_landmarks(photo, view.to_view(landmarks, VIEW_PX), VIEW_PX / 220)
    pictures = {"inputs": photo, "landmarks2d": marked}
    pictures |= {name: _picture(image) for name, image in linear.items()}
    pictures["depth_images"] = depth_picture(seen.depth)
    return DecaView(camera, pictures, seen.depth, small, seen.mask)


def depth_picture(depth_m: Tensor) -> Image.Image:
    """Depth [1, H, W] in metres (0 where there is nothing) as grey, near bright; see `FURTHEST_GREY`."""
    depth = depth_m[0].detach().cpu().double().numpy()
    there = depth > 0
    grey = np.zeros(depth.shape)
    if there.any():
        near, far = depth[there].min(), depth[there].max()
        share = (far - depth[there]) / max(far - near, 1e-9)
        grey[there] = FURTHEST_GREY + (255 - FURTHEST_GREY) * share
    return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")


def _picture(image_linear: Tensor) -> Image.Image:
    small = F.interpolate(image_linear.clamp(0.0, 1.0)[None], size=(VIEW_PX, VIEW_PX), mode="area")[0]
    return Image.fromarray(to_array(linear_to_srgb(small)))
