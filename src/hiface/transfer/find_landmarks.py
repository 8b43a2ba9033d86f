# SPDX-License-Identifier: Apache-2.0
"""Finds the landmark sets "ibug68" and "dense" on any head: the detector looks at pictures of its mean shape.

Each point that the landmark network sees in a picture is cast back onto the mesh; views from several sides
are combined with weights for their uncertainty, visibility and slant, robust against a wild one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from hiface.colour import linear_to_srgb
from hiface.errors import ModelFormatError
from hiface.geometry.closest import barycentric_of
from hiface.geometry.oriented import OrientedSurface, normals_of
from hiface.morphable import MorphableModelData
from hiface.networks.detect import Detection, FaceDetector
from hiface.render import ambient_light, render
from hiface.types import Camera, FaceMesh, LandmarkSet

VIEWS_DEGREES = (0.0, 20.0, -20.0, 40.0, -40.0)
"""Yaw of the pictures; the first is the frontal one, on which alone the 17 points of the jaw are read."""
_SIZE_PX = 512
_DISTANCE_M = 1.0
_MARGIN = 1.15
_GREY = 0.45  # linear, of models without albedo
_LIGHT = 0.75
_N_JAW = 17
_N_SPARSE = 68
_SPREAD_M = 0.0015  # where a view's weight is halved
_ROUNDS = 5
_SEARCH_PX = 12  # an outline point may lie this far beside the head


@dataclass(frozen=True)
class FoundPoints:
    """What was found on a mesh.

    Attributes:
        sets: "ibug68" and "dense".
        sigma_m: By name, [L] metres, how far apart the views put each point.
    """

    sets: Mapping[str, LandmarkSet]
    sigma_m: Mapping[str, Tensor]


def find_landmarks(data: MorphableModelData, plain: bool = False) -> FoundPoints:
    """Finds landmarks on the mean shape of a model.

    Args:
        data: A head or face in metres, +Y up, +Z out of the face.
        plain: Look at it in plain grey even if it has an albedo, so that two models look alike.

    Returns:
        The sets "ibug68" and "dense" of the open model, on this model's triangles.

    Raises:
        ModelFormatError: No face is found on it.
        AssetError: The networks' weights are missing.
        MissingExtraError: libigl or scipy is not installed.
    """
    vertices, triangles = data.template.float(), data.triangles
    texture = data.albedo_mean.float()
    if plain or len(data.albedo_names) == 0:
        texture = torch.full((3, 4, 4), _GREY)
    mesh = FaceMesh(vertices, triangles, data.uv.float(), data.uv_triangles)
    places, weights = [], []
    with torch.no_grad():
        for yaw in VIEWS_DEGREES:
            seen = _look(mesh, texture, yaw)
            if seen is None and yaw == VIEWS_DEGREES[0]:
                if not plain:  # its colours may be odd
                    return find_landmarks(data, plain=True)
                raise ModelFormatError(
                    f"no face is found on the mean shape of {data.name!r}: it must be a head or face in "
                    "metres with +Y up and +Z out of the face (hiface models info)"
                )
            if seen is not None:
                places.append(seen[0])
                weights.append(seen[1])
        weights[0] = weights[0].clamp_min(1e-12)  # the frontal view decides where no other sees a point
        points, spread = _combined(torch.stack(places), torch.stack(weights))
        sets = _on_surface(vertices, triangles, points)
    return FoundPoints(sets, {"ibug68": spread[:_N_SPARSE], "dense": spread[_N_SPARSE:]})


@cache
def _detector() -> FaceDetector:
    return FaceDetector()


def _look(mesh: FaceMesh, texture: Tensor, yaw_degrees: float) -> tuple[Tensor, Tensor] | None:
    """Points of one view on the mesh [L, 3] and their weights [L], or None where no face is found."""
    camera = _camera(mesh.vertices, yaw_degrees)
    light = ambient_light(_LIGHT, mesh.vertices)
    light[2] -= 0.25  # from the front, and some from above
    light[1] -= 0.2
    out = render(mesh, camera, texture, light, background=torch.full((3, 1, 1), 0.2))
    picture = (linear_to_srgb(out.image.clamp(0.0, 1.0)) * 255).round().to(torch.uint8).movedim(0, -1)
    found = _detector().detect(np.ascontiguousarray(picture.numpy()), float(camera.focal_px))
    if not found:
        return None
    return _cast(mesh, camera, out.triangle_id, found[0], frontal=yaw_degrees == VIEWS_DEGREES[0])


def _camera(vertices: Tensor, yaw_degrees: float) -> Camera:
    """Looks at the middle of a mesh from the side, the mesh filling most of the picture."""
    yaw = math.radians(yaw_degrees)
    turn = torch.tensor(
        [[math.cos(yaw), 0.0, math.sin(yaw)], [0.0, 1.0, 0.0], [-math.sin(yaw), 0.0, math.cos(yaw)]]
    )
    R = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ turn
    middle = (vertices.amax(0) + vertices.amin(0)) / 2
    reach = float((vertices - middle).norm(dim=1).max())
    t = torch.tensor([0.0, 0.0, _DISTANCE_M + reach]) - R @ middle
    focal = _SIZE_PX * (_DISTANCE_M + reach) / (2 * _MARGIN * reach)
    return Camera.from_pose(R, t, focal, _SIZE_PX, _SIZE_PX)


def _cast(
    mesh: FaceMesh, camera: Camera, triangle_id: Tensor, detection: Detection, frontal: bool
) -> tuple[Tensor, Tensor]:
    """Casts the detected points onto the mesh."""
    px = torch.cat([detection.landmarks68_px, detection.dense_px])
    sigma = torch.cat([detection.landmarks68_sigma_px, detection.dense_sigma_px])
    visible = torch.cat([detection.landmarks68_visible, detection.dense_visible])
    pixel, off = _covered_pixels(px, triangle_id >= 0)
    hit = triangle_id.long()[pixel[:, 1], pixel[:, 0]]
    corners = camera.to_cam(mesh.vertices)[mesh.triangles[hit]]
    a, b, c = corners.unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    aimed = torch.where((off > 0.7)[:, None], pixel + 0.5, px)
    ray = torch.cat([aimed, torch.ones_like(px[:, :1])], dim=1) @ torch.linalg.inv(camera.K).T
    along = (normal * ray).sum(-1)
    depth = (normal * a).sum(-1) / torch.where(along.abs() > 1e-6, along, torch.full_like(along, 1e-6))
    weights = barycentric_of(ray * depth[:, None], corners).clamp(0.0, 1.0)
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-9)
    points = (mesh.vertices[mesh.triangles[hit]] * weights[..., None]).sum(1)
    facing = -(normal * torch.nn.functional.normalize(ray, dim=-1)).sum(-1).clamp_max(0.0)
    weight = (facing / sigma).square() * (visible > 0.5) * (off <= _SEARCH_PX)
    if not frontal:
        weight[:_N_JAW] = 0.0  # they follow the outline, which is another line from the side
    return points, weight


def _covered_pixels(px: Tensor, covered: Tensor) -> tuple[Tensor, Tensor]:
    """The covered pixel [L, 2] (x, y) nearest to each point, and how far it is from it [L]."""
    height, width = covered.shape
    reach = torch.arange(-_SEARCH_PX, _SEARCH_PX + 1)
    step = torch.stack(torch.meshgrid(reach, reach, indexing="xy"), dim=-1).reshape(-1, 2)
    around = px.floor().long()[:, None] + step
    inside = ((around >= 0) & (around < torch.tensor([width, height]))).all(-1)
    clamped = around.clamp_min(0).minimum(torch.tensor([width - 1, height - 1]))
    good = inside & covered[clamped[..., 1], clamped[..., 0]]
    far = torch.where(good, (around + 0.5 - px[:, None]).norm(dim=-1), torch.inf)
    off, best = far.min(1)
    pixel = clamped[torch.arange(len(px)), best]
    if bool(off.isinf().any()):  # beside the head: any covered pixel, which gets no weight
        rows, columns = torch.nonzero(covered, as_tuple=True)
        pixel[off.isinf()] = torch.stack([columns[0], rows[0]])
    return pixel, off


def _combined(places: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Robust mean [L, 3] of several views [N, L, 3] with weights [N, L], and their spread [L], metres."""
    robust = weights
    mean, far = places[0], torch.zeros_like(weights)
    for _ in range(_ROUNDS):
        share = robust / robust.sum(0).clamp_min(1e-30)
        mean = (share[..., None] * places).sum(0)
        far = (places - mean).norm(dim=-1)
        robust = weights / (1.0 + (far / _SPREAD_M).square())
    return mean, ((weights * far.square()).sum(0) / weights.sum(0).clamp_min(1e-30)).sqrt()


def _on_surface(vertices: Tensor, triangles: Tensor, points: Tensor) -> dict[str, LandmarkSet]:
    surface = OrientedSurface(vertices, triangles)
    outward = normals_of(vertices, triangles)
    nearest = surface.find(points, torch.zeros_like(points))
    corners = triangles[nearest.triangle_ids]
    normals = (outward[corners] * nearest.barycentric[..., None]).sum(1)
    found = surface.find(points, torch.nn.functional.normalize(normals, dim=-1))
    cut: Sequence[tuple[str, slice]] = (("ibug68", slice(_N_SPARSE)), ("dense", slice(_N_SPARSE, None)))
    return {
        name: LandmarkSet(name, found.triangle_ids[rows], found.barycentric[rows].to(vertices.dtype))
        for name, rows in cut
    }
