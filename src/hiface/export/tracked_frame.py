# SPDX-License-Identifier: Apache-2.0
"""A frame of a tracked video beside itself: with the fitted faces over it, and with their relief in clay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hiface.colour import linear_to_srgb, srgb_to_linear
from hiface.export.overview import clay, head_view, relief_normal_map
from hiface.export.pictures import to_array
from hiface.morphable import MorphableModel
from hiface.render import render
from hiface.render.normal_mapped import render_normal_map
from hiface.types import Camera, FaceParams

_LARGEST_WINDOW_PX = 512
_FEATHER = 5  # pixels of the window over which a face fades into the frame


@dataclass(frozen=True)
class ShownFace:
    """One face of a frame.

    Attributes:
        model: Face model.
        params: Unbatched coefficients; the camera is the frame's.
        texture_srgb: [3, S, S] sRGB, 0..1.
        displacement: [1, D, D] metres, or None.
    """

    model: MorphableModel
    params: FaceParams
    texture_srgb: Tensor
    displacement: Tensor | None


def frame_panels(image_srgb: np.ndarray, faces: Sequence[ShownFace], height_px: int) -> np.ndarray:
    """The frame, the fitted faces over it, and their relief in clay, side by side.

    Args:
        image_srgb: [H, W, 3] uint8.
        faces: Farthest first; may be empty.
        height_px: Height of the panels.

    Returns:
        [height_px, 3 W', 3] uint8 sRGB with W' in the frame's proportion.
    """
    height, width = image_srgb.shape[:2]
    scale = height_px / height
    size = max(2, round(width * scale)), height_px
    small = np.asarray(Image.fromarray(image_srgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
    fitted, detailed = small.copy(), small.copy()
    with torch.no_grad():
        for face in faces:
            _paint(face, scale, fitted, detailed)
    return np.concatenate([small, fitted, detailed], axis=1)


def _paint(face: ShownFace, scale: float, fitted: np.ndarray, detailed: np.ndarray) -> None:
    """Draws one face into two frames."""
    model, params = face.model, face.params
    mesh = model(params.identity, params.expression, params.pose)
    camera = scaled_camera(params.camera, scale)
    view = head_view(camera.project(mesh.vertices))
    side = int(min(view.side_px, _LARGEST_WINDOW_PX))
    if side < 8:
        return
    window = view.camera(camera, side)
    albedo = srgb_to_linear(face.texture_srgb)
    smooth = render(mesh, window, albedo, params.light)
    colours, normals = smooth.image, smooth.normals_cam
    if face.displacement is not None:
        relief = relief_normal_map(model, params, face.displacement)
        detailed_surface = render_normal_map(smooth, relief, window.R, params.light)
        colours, normals = detailed_surface.image, detailed_surface.normals_cam
    mask = _feathered(smooth.mask)
    corner = [c - view.side_px / 2 for c in view.centre_px]
    for picture, colour in ((fitted, colours), (detailed, clay(normals))):
        _paste(picture, to_array(linear_to_srgb(colour.clamp(0.0, 1.0))), mask, corner, view.side_px)


def scaled_camera(camera: Camera, scale: float) -> Camera:
    """The camera of a picture that was scaled."""
    K = camera.K.clone()
    K[:2] *= scale
    return Camera(K, camera.T_cam_object, round(camera.width * scale), round(camera.height * scale))


def _feathered(mask: Tensor) -> np.ndarray:
    """[S, S] 0..1: a mask [1, S, S] that fades inward at its edge."""
    soft = F.avg_pool2d(mask.float()[None], _FEATHER, 1, _FEATHER // 2)[0, 0]
    return (soft * 2.0 - 1.0).clamp(0.0, 1.0).numpy()


def _paste(picture: np.ndarray, face: np.ndarray, mask: np.ndarray, corner: list[float], side: float) -> None:
    """Blends a window into a picture [H, W, 3] uint8 in place."""
    height, width = picture.shape[:2]
    x0, y0 = (max(0, int(np.floor(c))) for c in corner)
    x1, y1 = min(width, int(np.ceil(corner[0] + side))), min(height, int(np.ceil(corner[1] + side)))
    if x1 <= x0 or y1 <= y0:
        return
    step = len(mask) / side
    box = tuple((a - c) * step for a, c in zip((x0, y0, x1, y1), (*corner, *corner), strict=True))
    size = (x1 - x0, y1 - y0)
    where = {"size": size, "box": _inside(box, len(mask)), "resample": Image.Resampling.BILINEAR}
    part = np.asarray(Image.fromarray(face).resize(**where), dtype=np.float32)
    share = np.asarray(Image.fromarray(mask).resize(**where))[..., None]
    old = picture[y0:y1, x0:x1]
    picture[y0:y1, x0:x1] = (old + share * (part - old) + 0.5).astype(np.uint8)


def _inside(box: tuple[float, ...], side: int) -> tuple[float, ...]:
    """A box kept within a square picture."""
    return tuple(min(max(value, 0.0), float(side)) for value in box)
