# SPDX-License-Identifier: Apache-2.0
"""Pictures of detailed faces: clay and colour, as the photo's camera or one before the face sees them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hiface.colour import linear_to_srgb, srgb_to_linear
from hiface.export.draw import crop_square
from hiface.export.overview import backdrop, clay, relief_normal_map
from hiface.export.pictures import to_array
from hiface.morphable import MorphableModel
from hiface.render import ambient_light, render
from hiface.render.normal_mapped import render_normal_map
from hiface.types import Camera, FaceParams

_SUPERSAMPLE = 2
_FACE_SHARE = 0.62  # height of the 68 points' box in the picture
_DISTANCE_M = 0.9


def portrait_camera(
    model: MorphableModel, params: FaceParams, size: int, turn: Tensor | None = None
) -> Camera:
    """A camera that looks at the face.

    Args:
        model: Face model.
        params: Whose face.
        size: Side of the picture, pixels.
        turn: [3, 3] rotation, object to camera; from the front if None.

    Returns:
        Camera at arm's length with the face in the middle.
    """
    rest = model.shape(params.identity, torch.zeros_like(params.expression))
    points = model.landmarks("ibug68", rest)
    R = torch.diag(points.new_tensor([1.0, -1.0, -1.0])) if turn is None else turn
    return camera_before(points, R, size, _FACE_SHARE, _DISTANCE_M)


def camera_before(points: Tensor, R: Tensor, size: int, share: float, distance_m: float) -> Camera:
    """A camera that has the middle of points' box in its own middle.

    Args:
        points: [N, 3] metres, object space.
        R: [3, 3] rotation, object to camera.
        size: Side of the picture, pixels.
        share: Of the picture's side, how much the longest side of the box fills.
        distance_m: From the camera to the middle.
    """
    low, high = points.amin(dim=0), points.amax(dim=0)
    t = points.new_tensor([0.0, 0.0, distance_m]) - R @ (0.5 * (low + high))
    return Camera.from_pose(R, t, share * size * distance_m / float((high - low).max()), size, size)


def face_picture(
    model: MorphableModel,
    params: FaceParams,
    displacement: Tensor,
    camera: Camera,
    texture_srgb: Tensor | None = None,
) -> Image.Image:
    """One face with its relief.

    Args:
        model: Face model.
        params: Unbatched coefficients.
        displacement: [1, S, S] metres.
        camera: Where it is seen from; its size is the picture's.
        texture_srgb: [3, h, w] sRGB 0..1 in the model's UV layout, lit evenly from above; grey clay if None.

    Returns:
        RGB picture.
    """
    big = camera.width * _SUPERSAMPLE
    zoom = camera.K.new_tensor([_SUPERSAMPLE, _SUPERSAMPLE, 1.0])[:, None]
    large = Camera(camera.K * zoom, camera.T_cam_object, big, camera.height * _SUPERSAMPLE)
    with torch.no_grad():
        mesh = model(params.identity, params.expression, params.pose)
        normals = relief_normal_map(model, params, displacement)
        albedo = model.albedo_map(params.albedo) if texture_srgb is None else srgb_to_linear(texture_srgb)
        light = ambient_light(0.62, normals)
        light[1], light[2] = -0.22, -0.30  # from above and from the camera
        smooth = render(mesh, large, albedo, light)
        drawn = render_normal_map(smooth, normals, large.R, light)
        colour = clay(drawn.normals_cam) if texture_srgb is None else drawn.image
        behind = backdrop(big)[:, : large.height]
        front = colour * smooth.alpha if texture_srgb is None else colour
        picture = front + behind * (1 - smooth.alpha)
        small = F.interpolate(picture.clamp(0, 1)[None], scale_factor=1 / _SUPERSAMPLE, mode="area")[0]
    return Image.fromarray(to_array(linear_to_srgb(small)))


def photo_panel(image_srgb: np.ndarray, box: Tensor, size: int) -> Image.Image:
    """The face of a photo [H, W, 3] uint8 with its box [4], as a square picture."""
    x0, y0, x1, y1 = box.tolist()
    side = max(x1 - x0, y1 - y0) / _FACE_SHARE
    return crop_square(image_srgb, (0.5 * (x0 + x1), 0.5 * (y0 + y1)), side, size)


def encode_animation(frames: Sequence[Image.Image], times_s: Sequence[float]) -> bytes:
    """Pictures as an animated WebP file that loops.

    Args:
        frames: Pictures of one size.
        times_s: When each begins, seconds; the last one lasts as long as the one before.
    """
    steps = np.diff(np.asarray(times_s)) if len(frames) > 1 else np.array([1.0])
    lasts = np.maximum(1, np.round(1000 * np.append(steps, steps[-1]))).astype(int)[: len(frames)]
    stream = io.BytesIO()
    rest = list(frames[1:])
    frames[0].save(
        stream, "WEBP", save_all=True, append_images=rest, duration=lasts.tolist(), loop=0, quality=88
    )
    return stream.getvalue()
