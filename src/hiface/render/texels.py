# SPDX-License-Identifier: Apache-2.0
"""Which point of the surface each texel shows, and how well a photo sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hiface.geometry.constants import cached_per_tensor
from hiface.geometry.normals import unit, vertex_normals
from hiface.morphable import MorphableModel
from hiface.render.interpolate import interpolate_surface
from hiface.render.pyramid import blur, smoothstep
from hiface.render.rasterize import fragments, rasterize
from hiface.render.texture import sample_texture
from hiface.render.uv_space import uv_space
from hiface.types import Camera, FaceParams

PHOTO_SIDE_PX = (512, 1024)
LARGEST_REGION_PX = 4096
DEPTH_BIAS_M = 0.002
DEPTH_JUMP_M = 0.006
STEEPEST = 10.0
"""A surface may rise by this many pixel footprints over two pixels before it counts as an outline."""
FACING = (0.2, 0.6)
"""Cosines between surface and line of sight at which a photo begins to count and counts fully."""


PAINTED = ((("brows", "lips"), 3), (("eyelids",), 1))
"""Masks of what is coloured otherwise than skin, and how many texels of a map of 256 around them."""


@dataclass(frozen=True)
class TexelSurface:
    """The surface under the texels of a square map; only texels that show a triangle are listed.

    Attributes:
        size: Side of the map in texels.
        texel: [N] int64 index into the flattened map.
        part: [N] int64 part of the model.
        points_cam: [N, 3] metres, camera space.
        normals_cam: [N, 3] unit.
        inner_face: [N] 0..1, whether it is inner face, where a photo shows the face and nothing else.
    """

    size: int
    texel: Tensor
    part: Tensor
    points_cam: Tensor
    normals_cam: Tensor
    inner_face: Tensor

    def to_map(self, values: Tensor, background: float = 0.0) -> Tensor:
        """Writes [N, C] values into a [C, size, size] map."""
        canvas = values.new_full((values.shape[1], self.size * self.size), background)
        canvas[:, self.texel] = values.t()
        return canvas.reshape(-1, self.size, self.size)

    @property
    def covered(self) -> Tensor:
        """[size, size] bool, whether a texel shows a triangle."""
        flat = torch.zeros(self.size * self.size, dtype=torch.bool, device=self.texel.device)
        flat[self.texel] = True
        return flat.reshape(self.size, self.size)


def texel_surface(model: MorphableModel, params: FaceParams, size: int) -> TexelSurface:
    """Surface points under the texels.

    Args:
        model: The face model.
        params: One face, without batch dimensions.
        size: Side of the map in texels.

    Returns:
        Points and normals in the photo's camera space.
    """
    with torch.no_grad():
        verts = model.vertices_cam(params)
        inner = _inner_face(model).to(verts)[:, None]
        surface = torch.cat([verts, vertex_normals(verts, model.triangles), inner], dim=1)[model.triangles]
        flat = torch.cat([model.uv * size, torch.ones_like(model.uv[:, :1])], dim=1)
        texel, triangle, rows = _rasterized(flat, model.uv_triangles, (size, size), surface)
        part = model.data.triangle_parts.to(texel.device)[triangle]
        points, normals, inside = rows[1:].t().split([3, 3, 1], dim=1)
        return TexelSurface(size, texel, part, points, unit(normals, 1), inside[:, 0])


def _inner_face(model: MorphableModel) -> Tensor:
    """[V] bool: the face without the forehead (hair) but with the brows; all if there are no masks."""
    masks = model.data.vertex_masks
    everything = torch.ones(model.data.n_vertices, dtype=torch.bool)
    nothing = ~everything
    return masks.get("face", everything) & ~masks.get("forehead", nothing) | masks.get("brows", nothing)


def plain_skin(model: MorphableModel, size: int) -> Tensor:
    """[size, size] 0 on brows, lips and lids and close to them, 1 elsewhere; 1 without masks."""
    return _plain_skin(model.uv, model, size)


@cached_per_tensor
def _plain_skin(uv: Tensor, model: MorphableModel, size: int) -> Tensor:
    data, free = model.data, torch.ones(1, size, size, device=uv.device)
    space = uv_space(uv, model.uv_triangles, model.triangles, data.n_vertices, size)
    for names, reach in PAINTED:
        chosen = [data.vertex_masks[name] for name in names if name in data.vertex_masks]
        if chosen:
            inside = torch.stack(chosen).any(0).to(uv)[:, None]
            painted = (space.lift(inside) > 0.02).to(free)
            radius = round(reach * size / 256)
            free = free * (1 - F.max_pool2d(painted, 2 * radius + 1, 1, radius))
    return free[0]


def _rasterized(
    verts_px_z: Tensor, triangles: Tensor, size: tuple[int, int], corner_values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Covered pixels of one image: index [P], triangle [P], and depth over the corner values [1 + D, P]."""
    frags = fragments(rasterize(verts_px_z[None], triangles, *size))
    attributes = verts_px_z[None, :, :0]
    rows = interpolate_surface(verts_px_z[None], attributes, corner_values, triangles, frags)
    triangle = frags.triangle_id.reshape(-1)[frags.pixel].long()
    covered = triangle >= 0
    return frags.pixel[covered], triangle[covered], rows[:, covered]


def head_region(
    model: MorphableModel,
    params: FaceParams,
    image_srgb: np.ndarray,
    largest_px: int = LARGEST_REGION_PX,
) -> tuple[Tensor, Camera]:
    """The part of a photo around the projected head, so that only that becomes floats.

    Args:
        model: The face model.
        params: One face, without batch dimensions.
        image_srgb: [H, W, 3] uint8, the photo of `params.camera`.
        largest_px: The photo is made smaller by a whole number until neither side is longer.

    Returns:
        [3, h, w] sRGB in 0..1, and its camera.
    """
    with torch.no_grad():
        px = params.camera.project(model.vertices(params.identity, params.expression, params.pose))
    limit = np.array(image_srgb.shape[1::-1])
    low = np.clip(np.nan_to_num(px.amin(dim=0).floor().numpy()), 0, limit - 1).astype(int)
    high = np.clip(np.nan_to_num(px.amax(dim=0).ceil().numpy()), low + 1, limit).astype(int)
    region = image_srgb[low[1] : high[1], low[0] : high[0]]
    factor = max(1, -(-int((high - low).max()) // largest_px))
    if factor > 1:
        region = np.asarray(Image.fromarray(np.ascontiguousarray(region)).reduce(factor))
    x0, y0 = (low / factor).tolist()
    zoom = params.camera.K.new_tensor([[1 / factor, 0, -x0], [0, 1 / factor, -y0], [0, 0, 1]])
    camera = Camera(zoom @ params.camera.K, params.camera.T_cam_object, region.shape[1], region.shape[0])
    photo = torch.from_numpy(np.array(region)).to(params.light.device).permute(2, 0, 1)
    return photo.float() / 255.0, camera


@dataclass(frozen=True)
class PhotoCrop:
    """The part of a photo that shows the head, brought to another size.

    Attributes:
        image_linear: [3, h, w] linear RGB.
        camera: Camera of the crop.
    """

    image_linear: Tensor
    camera: Camera


def crop_to_head(
    image_linear: Tensor, camera: Camera, verts_cam: Tensor, side_px: tuple[int, int] = PHOTO_SIDE_PX
) -> PhotoCrop | None:
    """Cuts the head out of the photo.

    Args:
        image_linear: [3, H, W] linear RGB.
        camera: Camera of the photo.
        verts_cam: [V, 3] metres, camera space.
        side_px: The crop's longer side is brought within these limits.

    Returns:
        The crop, or None where the head does not lie in the picture.
    """
    height, width = image_linear.shape[-2:]
    px = camera.cam_to_px(verts_cam)
    low = px.min(dim=0).values.floor().clamp_min(0).int().tolist()
    high = px.max(dim=0).values.ceil().int().tolist()
    x0, y0, x1, y1 = low[0], low[1], min(high[0], width), min(high[1], height)
    if x1 - x0 < 2 or y1 - y0 < 2 or bool((verts_cam[:, 2] <= 0).any()):
        return None
    crop = image_linear[:, y0:y1, x0:x1]
    side = max(x1 - x0, y1 - y0)
    scale = min(max(side, side_px[0]), side_px[1]) / side
    h, w = max(2, round((y1 - y0) * scale)), max(2, round((x1 - x0) * scale))
    if scale != 1.0:
        crop = F.interpolate(crop[None], size=(h, w), mode="bicubic", antialias=True, align_corners=False)[0]
        crop = crop.clamp(0.0, 1.0)
    zoom = camera.K.new_tensor(
        [[w / (x1 - x0), 0.0, -x0 * w / (x1 - x0)], [0.0, h / (y1 - y0), -y0 * h / (y1 - y0)]]
    )
    K = torch.cat([zoom, zoom.new_tensor([[0.0, 0.0, 1.0]])]) @ camera.K
    return PhotoCrop(crop, Camera(K, camera.T_cam_object, w, h))


def photo_weights(surface: TexelSurface, crop: PhotoCrop, verts_cam: Tensor, triangles: Tensor) -> Tensor:
    """How well the photo shows each texel.

    Zero where the surface is turned away, hidden by the head itself, at an outline or outside the picture.

    Args:
        surface: From `texel_surface`.
        crop: From `crop_to_head`.
        verts_cam: [V, 3] metres, camera space.
        triangles: [T, 3] int64.

    Returns:
        [N] in 0..1.
    """
    camera = crop.camera
    depth, inside = _depth_maps(camera, verts_cam, triangles)
    px = camera.cam_to_px(surface.points_cam)
    uv = px / px.new_tensor([camera.width, camera.height])
    in_picture = ((uv > 0) & (uv < 1)).all(dim=1)
    column = px[:, 0].long().clamp(0, camera.width - 1)
    row = px[:, 1].long().clamp(0, camera.height - 1)
    near = surface.points_cam[:, 2] <= depth[row, column] + DEPTH_BIAS_M
    sight = -unit(surface.points_cam, 1)
    cosine = (sight * surface.normals_cam).sum(dim=1)
    weight = smoothstep(cosine, *FACING) * sample_texture(inside[None], uv)[:, 0]
    return torch.where(near & in_picture, weight, 0.0)


def _depth_maps(camera: Camera, verts_cam: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """[h, w] depth of each pixel (far where there is no head), and [h, w] 1 away from outlines, 0 at them."""
    px = camera.cam_to_px(verts_cam)
    z = verts_cam[:, 2]
    no_values = verts_cam.new_zeros(len(triangles), 3, 0)
    size = (camera.height, camera.width)
    pixel, _, rows = _rasterized(torch.cat([px, z[:, None]], dim=1), triangles, size, no_values)
    behind = float(z.max()) + 1.0
    depth = z.new_full((camera.height * camera.width,), behind)
    depth[pixel] = rows[0]
    depth = depth.reshape(1, 1, camera.height, camera.width)
    far = F.max_pool2d(depth, 3, stride=1, padding=1)
    near = -F.max_pool2d(-depth, 3, stride=1, padding=1)
    footprint = near / camera.focal_px
    edge = (far - near > (STEEPEST * footprint).clamp_min(DEPTH_JUMP_M)).to(z.dtype)
    radius = max(1, round(0.006 * max(camera.height, camera.width)))
    edge = F.max_pool2d(edge, 2 * radius + 1, stride=1, padding=radius)[0]
    inside = (1.0 - blur(edge, radius) * 2.0).clamp(0.0, 1.0) * (1.0 - edge)
    return depth[0, 0], inside[0]
