# SPDX-License-Identifier: Apache-2.0
"""One picture of a face for the interactive viewer, by the project's own renderer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.app.viewer_faces import ViewedFace
from hiface.colour import linear_to_srgb, srgb_to_linear
from hiface.detail.sd_detail import Parts
from hiface.export.overview import CLAY_SRGB, backdrop, normal_colours, relief_normal_map
from hiface.export.pictures import to_array
from hiface.geometry.normals import unit
from hiface.render import ambient_light, render
from hiface.render.environment import STUDIO_LIGHTS, studio_light
from hiface.render.interpolate import interpolate_surface, to_images
from hiface.render.normal_mapped import render_normal_map
from hiface.render.pipeline import RenderOutput
from hiface.result import FaceResult
from hiface.types import Camera

Shading = Literal["textured", "clay", "albedo", "normals"]
SHADINGS: tuple[Shading, ...] = get_args(Shading)
PARTS: tuple[Parts, ...] = get_args(Parts)
LAMP, PHOTO_LIGHT = "lamp", "photo"
LIGHTS = (LAMP, PHOTO_LIGHT, *STUDIO_LIGHTS)
LAMP_FAR = 4.0
"""A lamp that can be seen beside the head would be too near to light it well."""
_AMBIENT = (0.24, 0.25, 0.27)
_LAMP = (0.98, 0.96, 0.93)
_WRAP = 0.12  # of a lamp's light, how far it reaches round the edge of the shadow
_GLOSS, _GLOSS_SQUARES = 0.07, 5
_WIRE_SRGB = (0.08, 0.32, 0.62)
_WIRE_PX = 1.1


@dataclass(frozen=True)
class Look:
    """How a face is shown.

    Attributes:
        shading: What the surface looks like.
        parts: Which relief is on it.
        wires: Whether triangles are drawn over it.
        light: One of `LIGHTS`: the lamp at `lamp_m`, the fitted light of the photo, or a studio's.
        lamp_m: Where the lamp hangs, metres, world axes; its light comes from `LAMP_FAR` times as far away.
        intensity: Factor of the light, 0..3.
        opacity: Of the head over a picture behind it, 0..1.
    """

    shading: Shading = "textured"
    parts: Parts = "both"
    wires: bool = False
    light: str = LAMP
    lamp_m: tuple[float, float, float] = (-0.115, 0.06, 0.14)
    intensity: float = 1.0
    opacity: float = 1.0


def plain_backdrop(height: int, width: int) -> Tensor:
    """A soft vertical gradient, [3, H, W] linear."""
    return backdrop(height)[:, :, :1].expand(3, height, width)


def fitted_camera(camera: Camera, height: int, width: int) -> Camera:
    """A photo's camera for a view of another size and shape that shows the whole photo in its middle."""
    zoom = min(width / camera.width, height / camera.height)
    x, y = 0.5 * (width - zoom * camera.width), 0.5 * (height - zoom * camera.height)
    fit = camera.K.new_tensor([[zoom, 0.0, x], [0.0, zoom, y], [0.0, 0.0, 1.0]])
    return Camera(fit @ camera.K, camera.T_cam_object, width, height)


def photo_backdrop(image_srgb: np.ndarray, height: int, width: int) -> Tensor:
    """A photo [h, w, 3] uint8 in the middle of a view, where `fitted_camera` sees it; [3, H, W] linear."""
    zoom = min(width / image_srgb.shape[1], height / image_srgb.shape[0])
    size = max(1, round(zoom * image_srgb.shape[0])), max(1, round(zoom * image_srgb.shape[1]))
    photo = torch.from_numpy(image_srgb).permute(2, 0, 1)[None].float() / 255.0
    small = F.interpolate(photo, size=size, mode="bilinear", antialias=True, align_corners=False)[0]
    out = plain_backdrop(height, width).clone()
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    out[:, top : top + size[0], left : left + size[1]] = srgb_to_linear(small.clamp(0, 1))
    return out


def draw_face(
    viewed: ViewedFace,
    face: FaceResult,
    camera: Camera,
    T_cam_world: Tensor,
    look: Look,
    behind: Tensor,
    smooth_px: int = 1,
) -> np.ndarray:
    """Draws a face.

    Args:
        viewed: Whose texture.
        face: The same person with the expression to show.
        camera: Where it is seen from; its pose is that of the head.
        T_cam_world: [4, 4] world to camera, for the lamp.
        look: How.
        behind: [3, H, W] linear colour, of the camera's size.
        smooth_px: Each pixel is the mean of this number squared.

    Returns:
        [H, W, 3] uint8 sRGB.
    """
    with torch.no_grad():
        zoom = camera.K.new_tensor([smooth_px, smooth_px, 1.0])[:, None]
        width, height = camera.width * smooth_px, camera.height * smooth_px
        large = Camera(camera.K * zoom, camera.T_cam_object, width, height)
        colour, mask = _surface(viewed, face, large, T_cam_world, look)
        if smooth_px > 1:
            covered = F.avg_pool2d(mask.float()[None], smooth_px)[0]
            total = F.avg_pool2d((colour * mask)[None], smooth_px)[0]
        else:
            covered, total = mask.float(), colour * mask
        picture = behind + look.opacity * (total - covered * behind)
        return to_array(linear_to_srgb(picture.clamp(0.0, 1.0)))


def _surface(
    viewed: ViewedFace, face: FaceResult, camera: Camera, T_cam_world: Tensor, look: Look
) -> tuple[Tensor, Tensor]:
    """[3, H, W] linear colour of the head, and [1, H, W] bool where it is."""
    light = face.params.light
    white = ambient_light(1.0, light)
    texture = _texture(viewed, look)
    out = render(face.mesh, camera, texture, white, antialias=False)
    normals, shading = out.normals_cam, None
    photo_light = light * viewed.light_gain * look.intensity if look.light == PHOTO_LIGHT else None
    if look.light in STUDIO_LIGHTS:
        photo_light = studio_light(look.light) * look.intensity
    if look.parts != "none" and face.has_detail:
        relief = relief_normal_map(face.model, face.params, face.displacement(look.parts))
        bent = render_normal_map(out, relief, camera.R, white if photo_light is None else photo_light)
        normals, shading = bent.normals_cam, bent.shading
    elif photo_light is not None:
        shading = render(face.mesh, camera, texture, photo_light, antialias=False).shading
    if look.shading == "normals":
        colour = srgb_to_linear(normal_colours(normals).clamp(0, 1))
    elif look.shading == "albedo":
        colour = out.albedo
    elif photo_light is not None and shading is not None:
        colour = out.albedo * shading.clamp_min(0.0)
    else:
        colour = _lit(out, normals, camera, T_cam_world, look)
    if look.wires:
        share = _wires(face, camera, out)
        wire = srgb_to_linear(colour.new_tensor(_WIRE_SRGB))[:, None, None]
        colour = colour + share * (wire - colour)
    return colour, out.mask


def _texture(viewed: ViewedFace, look: Look) -> Tensor:
    if look.shading == "albedo":
        return viewed.texture_linear
    if look.shading == "textured":
        return viewed.hollow
    clay = srgb_to_linear(viewed.texture_linear.new_tensor(CLAY_SRGB))[:, None, None]
    hollow = viewed.hollow.sum(0) < 0.99 * viewed.texture_linear.sum(0)
    return torch.where(hollow, 0.35 * clay, clay)


def _lit(out: RenderOutput, normals: Tensor, camera: Camera, T_cam_world: Tensor, look: Look) -> Tensor:
    """[3, H, W] in the light of a lamp at a place, and a little from everywhere."""
    frags, z = out.surface.frags, out.surface.z[0]
    width, K = normals.shape[-1], camera.K
    n = normals.flatten(1)[:, frags.pixel]
    row = torch.div(frags.pixel, width, rounding_mode="floor")
    x, y = frags.pixel - row * width + 0.5 - K[0, 2], row + 0.5 - K[1, 2]
    rays = torch.stack([x / K[0, 0], y / K[1, 1], torch.ones_like(z)])
    lamp = T_cam_world[:3, :3] @ (LAMP_FAR * normals.new_tensor(look.lamp_m)) + T_cam_world[:3, 3]
    towards = unit(torch.addcmul(lamp[:, None], rays, z, value=-1.0), 0)
    cosine = (n * towards).sum(0)
    strength = ((cosine + _WRAP) / (1.0 + _WRAP)).clamp_min_(0.0)
    gloss = (n * unit(towards - unit(rays, 0), 0)).sum(0).clamp_min_(0.0)
    for _ in range(_GLOSS_SQUARES):
        gloss.square_()
    gloss *= _GLOSS * (cosine > 0)
    albedo = out.surface.albedo
    around = normals.new_tensor(_AMBIENT)[:, None] * (0.75 - 0.25 * n[1])
    shading = torch.addcmul(around, normals.new_tensor(_LAMP)[:, None], strength)
    return to_images(look.intensity * (albedo * shading + gloss * (0.3 + albedo)), frags)[0]


def _wires(face: FaceResult, camera: Camera, out: RenderOutput) -> Tensor:
    """[1, H, W] share of each pixel that the edges of the triangles cover."""
    mesh, frags = face.mesh, out.surface.frags
    cam = camera.to_cam(mesh.vertices)
    px = camera.cam_to_px(cam)
    corners = torch.eye(3).expand(len(mesh.triangles), 3, 3).contiguous()
    verts = torch.cat([px, cam[:, 2:]], dim=1)[None]
    bary = interpolate_surface(verts, verts[..., :0], corners, mesh.triangles, frags)[1:]
    a, b, c = px[mesh.triangles].unbind(1)
    (ux, uy), (vx, vy) = (b - a).unbind(1), (c - a).unbind(1)
    twice_area = (ux * vy - uy * vx).abs()
    sides = torch.stack([(c - b).norm(dim=1), (c - a).norm(dim=1), (b - a).norm(dim=1)])
    heights = twice_area / sides.clamp_min(1e-6)
    triangle = frags.triangle_id.flatten()[frags.pixel].long()
    nearest = (bary * heights[:, triangle]).amin(dim=0)
    share = (_WIRE_PX - nearest).clamp(0.0, 1.0)
    return to_images(0.75 * share[None], frags)[0]
