# SPDX-License-Identifier: Apache-2.0
"""Faces in another light and from another side: the photo lit anew, or the head with its de-lit texture."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import roma
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hiface.assets import load_json_asset
from hiface.colour import linear_to_srgb, srgb_to_linear
from hiface.data.panoramas import read_panorama
from hiface.errors import OptionError, ShapeError
from hiface.export.delit import believable_shading
from hiface.export.detail_pictures import camera_before
from hiface.export.json_params import read_face_json
from hiface.export.overview import backdrop, relief_normal_map
from hiface.export.pictures import to_array
from hiface.morphable import MorphableModel
from hiface.render import ambient_light, render
from hiface.render.environment import STUDIO_LIGHTS, panorama_light, studio_light, turned_light
from hiface.render.interpolate import interpolate_surface, to_images
from hiface.render.normal_mapped import render_normal_map
from hiface.render.pyramid import blur, push_pull, smoothstep
from hiface.render.shade import sh_basis, sh_basis_rows
from hiface.render.visibility import reaching_light
from hiface.types import Camera, FaceParams

_SUPERSAMPLE = 2
_EXPOSED = 0.8  # of the lit skin, this share is darker than what the exposure is set by
_BRIGHT = 1.15  # linear shading of that skin in a picture of a head
_DARKEST = 0.06  # added to shading, of the usual one: where a photo has no light is nothing to light anew
_DISTANCE_M = 1.2
_HEAD_SHARE = 0.82  # of a picture's height
_WINDOW_PX = 1024
_MARGIN = 0.35  # of the head's size, in which the new light fades into the photo
_ROWS = 256


def read_light(source: str | Path, turn_deg: float = 0.0) -> Tensor:
    """Light by name, of a panorama or of another photo.

    Args:
        source: A name of `STUDIO_LIGHTS`, a panorama (`read_panorama`), or a face.json, whose photo's light
            is taken.
        turn_deg: Turns the light about the vertical; at 90 what was behind the head is at the right.

    Returns:
        [9, 3] spherical harmonics in camera axes.

    Raises:
        OptionError: Neither a name nor a file.
        ImageError: The panorama cannot be used.
        FaceFileError: The face.json cannot be read.
        MissingExtraError: .hdr and .exr need OpenImageIO.
    """
    path = Path(source)
    if str(source) in STUDIO_LIGHTS:
        light = studio_light(str(source))
    elif path.suffix.lower() == ".json":
        light = read_face_json(path).params.light
        level = light[0].clamp_min(1e-6)
        light = light * (level.mean() / level)  # its mean colour is the skin's as much as the light's
    elif path.suffix:
        light = panorama_light(read_panorama(path))
    else:
        raise OptionError(
            f"there is no light {source!r}; use one of {', '.join(STUDIO_LIGHTS)}, a panorama (.hdr, .exr, "
            ".jpg, .png) or a face.json"
        )
    return turned_light(light, turn_deg)


def head_rotation(yaw_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> Tensor:
    """[3, 3] rotation, object to camera, of a head that is turned from facing the camera.

    Args:
        yaw_deg: Positive turns the face to the picture's right.
        pitch_deg: Positive looks up.
        roll_deg: Positive tilts the head clockwise in the picture.
    """
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    angles = torch.tensor([-pitch_deg, yaw_deg, -roll_deg]) * (math.pi / 180.0)
    return facing @ roma.euler_to_rotmat("ZYX", angles.flip(0))


def head_camera(model: MorphableModel, params: FaceParams, size: int, turn: Tensor) -> Camera:
    """A camera at arm's length that sees the whole head, turned about its middle.

    Args:
        model: Face model.
        params: Whose head.
        size: Side of the picture, pixels.
        turn: [3, 3] rotation, object to camera (`head_rotation`).
    """
    head = model.shape(params.identity, torch.zeros_like(params.expression))
    return camera_before(head, turn, size, _HEAD_SHARE, _DISTANCE_M)


def shading_maps(
    model: MorphableModel,
    params: FaceParams,
    camera: Camera,
    lights: list[Tensor],
    displacement: Tensor | None = None,
    texture_linear: Tensor | None = None,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """What several lights do to a head, its own shadow and its relief included.

    Args:
        model: Face model.
        params: One face, without batch dimensions.
        camera: Where it is seen from.
        lights: [9, 3] each, camera axes.
        displacement: [1, S, S] metres, or None.
        texture_linear: [3, h, w] linear albedo in the model's UV layout; white if None.

    Returns:
        Shading [3, H, W] of each light, 0 where there is no head; albedo [3, H, W]; [H, W] bool where the
        head is.
    """
    mesh = model(params.identity, params.expression, params.pose)
    white = ambient_light(1.0, params.light)
    texture = params.light.new_ones(3, 1, 1) if texture_linear is None else texture_linear
    smooth = render(mesh, camera, texture, white, antialias=False)
    normals = smooth.normals_cam
    if displacement is not None:
        relief = relief_normal_map(model, params, displacement)
        normals = render_normal_map(smooth, relief, camera.R, white).normals_cam
    verts_cam = camera.to_cam(mesh.vertices)
    verts_px_z = torch.cat([camera.cam_to_px(verts_cam), verts_cam[:, 2:]], dim=1)[None]
    frags = smooth.surface.frags
    basis = sh_basis_rows(*normals.flatten(1)[:, frags.pixel].unbind(0))
    no_corners = verts_px_z.new_zeros(len(mesh.triangles), 3, 0)
    mouth_open = _mouth_open(model, params)
    shadings = []
    for light in lights:
        reaching = reaching_light(model, light, camera.R, mouth_open).flatten(1)[None]
        rows = interpolate_surface(verts_px_z, reaching, no_corners, mesh.triangles, frags)[1:]
        shading = (basis[:, None] * rows.unflatten(0, (9, 3))).sum(0).clamp_min(0.0)
        shadings.append(to_images(shading, frags)[0])
    return shadings, smooth.albedo, smooth.mask[0]


def head_picture(
    model: MorphableModel,
    params: FaceParams,
    camera: Camera,
    texture_srgb: Tensor,
    light: Tensor,
    displacement: Tensor | None = None,
) -> Image.Image:
    """The head alone in some light, exposed for its bright skin.

    Args:
        model: Face model.
        params: One face, without batch dimensions.
        camera: Where it is seen from; its size is the picture's.
        texture_srgb: [3, h, w] sRGB 0..1, de-lit, in the model's UV layout.
        light: [9, 3] in camera axes.
        displacement: [1, S, S] metres, or None.

    Returns:
        RGB picture before a plain backdrop.

    Raises:
        ShapeError: The light is not [9, 3] finite numbers.
    """
    light = _checked(light, params)
    zoom = camera.K.new_tensor([_SUPERSAMPLE, _SUPERSAMPLE, 1.0])[:, None]
    width, height = camera.width * _SUPERSAMPLE, camera.height * _SUPERSAMPLE
    large = Camera(camera.K * zoom, camera.T_cam_object, width, height)
    with torch.no_grad():
        texture = srgb_to_linear(texture_srgb)
        (shading,), albedo, mask = shading_maps(model, params, large, [light], displacement, texture)
        lit = albedo * shading * (_BRIGHT / _level(shading, mask))
        behind = F.interpolate(backdrop(height)[None], size=(height, width), mode="nearest")[0]
        picture = torch.where(mask, _shoulder(lit), behind)
        small = F.avg_pool2d(picture[None], _SUPERSAMPLE)[0]
    return Image.fromarray(to_array(linear_to_srgb(small)))


def relit_photo(
    model: MorphableModel,
    params: FaceParams,
    image_srgb: np.ndarray,
    light: Tensor,
    displacement: Tensor | None = None,
    onto: np.ndarray | None = None,
) -> np.ndarray:
    """A photo with its face in another light.

    Each pixel of the head is multiplied by the new shading over the old one (ratio images, Riklin-Raviv and
    Shashua 2001), so that everything the model does not know stays; around the head that fades. The
    brightness of the lit skin is kept.

    Args:
        model: Face model.
        params: The fitted face of the photo, without batch dimensions.
        image_srgb: [H, W, 3] uint8.
        light: [9, 3] in camera axes.
        displacement: [1, S, S] metres, or None.
        onto: [H, W, 3] uint8, what the head is put on: the photo after heads further away; the photo if None.

    Returns:
        [H, W, 3] uint8.

    Raises:
        ShapeError: The light is not [9, 3] finite numbers.
    """
    light, onto = _checked(light, params), image_srgb if onto is None else onto
    with torch.no_grad():
        window = _window(model, params, image_srgb.shape[:2])
        if window is None:
            return onto.copy()
        x0, y0, x1, y1 = window
        scale = min(1.0, _WINDOW_PX / max(x1 - x0, y1 - y0))
        width, height = max(2, round((x1 - x0) * scale)), max(2, round((y1 - y0) * scale))
        sx, sy = width / (x1 - x0), height / (y1 - y0)
        crop = params.light.new_tensor([[sx, 0.0, -x0 * sx], [0.0, sy, -y0 * sy], [0.0, 0.0, 1.0]])
        camera = Camera(crop @ params.camera.K, params.camera.T_cam_object, width, height)
        (old, new), _, mask = shading_maps(model, params, camera, [params.light, light], displacement)
        if not bool(mask.any()):
            return onto.copy()
        believed = believable_shading(old[:, mask].T, mask[mask], 0.0, (0.0, math.inf))
        if believed is None:
            return onto.copy()
        maps = _gain(old.masked_scatter(mask, believed.T), new, mask)
        out = onto.copy()
        for row in range(y0, y1, _ROWS):
            end = min(row + _ROWS, y1)
            strip = torch.from_numpy(image_srgb[row:end, x0:x1].copy()).permute(2, 0, 1).float() / 255.0
            gain, matte = _rows(maps, (row - y0, end - y0), (y1 - y0, x1 - x0)).split([3, 1])
            lit = to_array(linear_to_srgb(_brightened(srgb_to_linear(strip), gain)))
            below, share = out[row:end, x0:x1], matte[0].numpy()[..., None]
            out[row:end, x0:x1] = np.round(below + share * (lit.astype(np.float32) - below)).astype(np.uint8)
    return out


def light_ball(light: Tensor, size: int) -> Image.Image:
    """A matte white ball in a light [9, 3], as a square picture before the backdrop of `head_picture`."""
    side = size * _SUPERSAMPLE
    at = (torch.arange(side) + 0.5) / side * 2.4 - 1.2
    y, x = torch.meshgrid(at, at, indexing="ij")
    inside = x * x + y * y < 1
    z = -(1 - x * x - y * y).clamp_min(0.0).sqrt()
    shading = (
        (sh_basis(torch.stack([x, y, z], dim=-1)) @ light.detach().cpu().float())
        .movedim(-1, 0)
        .clamp_min(0.0)
    )
    lit = shading * (0.75 * _BRIGHT / _level(shading, inside))
    picture = F.avg_pool2d(torch.where(inside, _shoulder(lit), backdrop(side))[None], _SUPERSAMPLE)[0]
    return Image.fromarray(to_array(linear_to_srgb(picture)))


def _checked(light: Tensor, params: FaceParams) -> Tensor:
    """A light in the kind of numbers of a face."""
    if light.shape != (9, 3) or not bool(light.isfinite().all()):
        raise ShapeError(f"a light must be [9, 3] finite numbers, got {tuple(light.shape)}")
    return light.to(params.light)


def _mouth_open(model: MorphableModel, params: FaceParams) -> float:
    """How far the lips are apart: 0 closed, 1 as with the jaw wide open."""
    data = model.data
    if "ibug68" not in data.landmark_sets or "jawOpen" not in data.expression_names:
        return 0.0
    wide = torch.zeros_like(params.expression)
    wide[model.expression_index("jawOpen")] = 1.0
    pairs = torch.tensor(load_json_asset("landmarks/ibug68_groups.json")["lip_pairs"])
    gaps = []
    for expression in (params.expression, wide):
        lips = model.landmarks("ibug68", model.shape(params.identity, expression))
        gaps.append(float((lips[pairs[:, 0]] - lips[pairs[:, 1]]).norm(dim=1).mean()))
    return min(1.0, gaps[0] / max(gaps[1], 1e-6))


def _level(shading: Tensor, mask: Tensor) -> float:
    """Grey shading that most of what is lit does not exceed."""
    grey = shading.mean(dim=0)[mask]
    if len(grey) == 0:
        return 1.0
    return max(1e-4, float(torch.quantile(grey[:: max(1, len(grey) // 100_000)], _EXPOSED)))


def _shoulder(linear: Tensor) -> Tensor:
    """Keeps what is below 0.7 and bends what is above smoothly towards 1."""
    return torch.where(linear < 0.7, linear, 1.0 - 0.3 * torch.exp(-(linear - 0.7).clamp_min(0.0) / 0.3))


def _brightened(linear: Tensor, gain: Tensor) -> Tensor:
    """Multiplies by `gain`, and never exceeds white."""
    return torch.where(gain > 1.0, 1.0 - (1.0 - linear) ** gain, linear * gain)


def _window(
    model: MorphableModel, params: FaceParams, size: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 in pixels: the head with a margin, within the photo; None where it is not in it."""
    px = params.camera.project(model.vertices(params.identity, params.expression, params.pose))
    low, high = px.amin(dim=0), px.amax(dim=0)
    margin = _MARGIN * float((high - low).max())
    x0, y0 = (max(0, int(v)) for v in (low - margin).tolist())
    x1, y1 = (min(limit, math.ceil(v)) for v, limit in zip((high + margin).tolist(), size[::-1], strict=True))
    return (x0, y0, x1, y1) if x1 - x0 >= 2 and y1 - y0 >= 2 else None


def _gain(old: Tensor, new: Tensor, mask: Tensor) -> Tensor:
    """[4, h, w] new over old light, on the head and continued around it, and how much it counts there."""
    old, new = (shading / _level(shading, mask) + _DARKEST for shading in (old, new))
    log = (new / old).log()
    side = max(mask.shape)
    known = mask.float()[None]
    inner = -F.max_pool2d(-known, 5, stride=1, padding=2)[0]
    filled = blur(push_pull(log, inner), max(1, side // 64))
    fade = smoothstep(blur(known, max(1, side // 14))[0], 0.05, 0.75)
    sharp = smoothstep(blur(inner[None], max(1, side // 256))[0], 0.2, 1.0)
    return torch.cat([(filled + sharp * (log - filled)).exp(), fade[None]])


def _rows(gain: Tensor, rows: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Rows of `gain` as if it had been made `size` (height, width) large, bilinear."""
    if gain.shape[-2:] == torch.Size(size):
        return gain[:, rows[0] : rows[1]]
    y = (torch.arange(*rows) + 0.5) / size[0] * 2 - 1
    x = (torch.arange(size[1]) + 0.5) / size[1] * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None].to(gain)
    return F.grid_sample(gain[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
