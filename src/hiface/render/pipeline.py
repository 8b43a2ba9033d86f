# SPDX-License-Identifier: Apache-2.0
"""Mesh, camera, texture and light to an image, differentiable to all four."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hiface.errors import ShapeError
from hiface.geometry.constants import cached_per_tensor
from hiface.geometry.normals import vertex_normal_rows
from hiface.render.antialias import blend, silhouette_links
from hiface.render.interpolate import interpolate_surface, to_images
from hiface.render.rasterize import Fragments, fragments, rasterize
from hiface.render.shade import shade_rows
from hiface.render.texture import sample_fragments
from hiface.types import Camera, FaceMesh


@dataclass(frozen=True)
class Surface:
    """What is known about the visible surface, one column per fragment.

    Attributes:
        frags: The fragments, P of them.
        z: [1, P] camera z, metres.
        normals: [3, P] unit normals in camera axes.
        grid: [2, P] texture coordinates as 2 uv - 1.
        albedo: [3, P] linear.
        shading: [3, P].
    """

    frags: Fragments
    z: Tensor
    normals: Tensor
    grid: Tensor
    albedo: Tensor
    shading: Tensor


@dataclass(frozen=True)
class RenderOutput:
    """Everything that was rendered, at the camera's pixels.

    Maps other than `image`, `alpha` and `triangle_id` are written into images when they are first read; all
    of them are differentiable.

    Attributes:
        image: [*B, 3, H, W] linear colour over the background, not clamped.
        alpha: [*B, 1, H, W] coverage in 0..1; equal to `mask` without antialiasing.
        triangle_id: [*B, H, W] int32, -1 where there is no triangle.
        surface: The visible surface as rows of fragments.
    """

    image: Tensor
    alpha: Tensor
    triangle_id: Tensor
    surface: Surface

    def _map(self, rows: Tensor) -> Tensor:
        maps = to_images(rows, self.surface.frags)
        return maps.reshape(*self.triangle_id.shape[:-2], *maps.shape[1:])

    @property
    def mask(self) -> Tensor:
        """[*B, 1, H, W] bool, whether the pixel's centre sees a triangle."""
        return (self.triangle_id >= 0).unsqueeze(-3)

    @cached_property
    def depth(self) -> Tensor:
        """[*B, 1, H, W] camera z in metres, 0 where there is no triangle."""
        return self._map(self.surface.z)

    @cached_property
    def normals_cam(self) -> Tensor:
        """[*B, 3, H, W] unit shading normals in camera axes, 0 where there is no triangle."""
        return self._map(self.surface.normals)

    @cached_property
    def albedo(self) -> Tensor:
        """[*B, 3, H, W] linear texture colour, 0 where there is no triangle."""
        return self._map(self.surface.albedo)

    @cached_property
    def shading(self) -> Tensor:
        """[*B, 3, H, W] light on the surface, 0 where there is no triangle."""
        return self._map(self.surface.shading)

    @cached_property
    def uv(self) -> Tensor:
        """[*B, 2, H, W] texture coordinates, origin top-left, 0 where there is no triangle."""
        return self._map(self.surface.grid * 0.5 + 0.5)


@cached_per_tensor
def _grid_corners(uv: Tensor, uv_triangles: Tensor, dtype: torch.dtype) -> Tensor:
    """[T, 3, 2] texture coordinates of the triangle corners, as 2 uv - 1."""
    return (uv[uv_triangles] * 2.0 - 1.0).to(dtype)


def _flatten(tensor: Tensor, batch: torch.Size, n_trailing: int) -> Tensor:
    """Broadcasts the leading dimensions to `batch` and merges them into one."""
    tail = tensor.shape[tensor.dim() - n_trailing :]
    return tensor.expand(*batch, *tail).reshape(batch.numel(), *tail)


def render_surface(
    mesh: FaceMesh, verts_cam: Tensor, verts_px_z: Tensor, texture: Tensor, light: Tensor, triangle_id: Tensor
) -> Surface:
    """Interpolates, looks up and lights the visible surface.

    Args:
        mesh: For its topology and UV.
        verts_cam: [B, V, 3] camera-space vertices, metres.
        verts_px_z: [B, V, 3] x px, y px and z of the vertices.
        texture: [B, 3, h, w] linear albedo.
        light: [B, 9, 3].
        triangle_id: [B, H, W] int32.

    Returns:
        Surface; differentiable to vertices, texture and light.
    """
    frags = fragments(triangle_id)
    normals = vertex_normal_rows(verts_cam, mesh.triangles).permute(1, 2, 0)
    corners = _grid_corners(mesh.uv, mesh.uv_triangles, verts_cam.dtype)
    rows = interpolate_surface(verts_px_z, normals, corners, mesh.triangles, frags)
    z, raw_normals, grid = rows.split([1, 3, 2])
    unit, shading = shade_rows(raw_normals, light, frags).split(3)
    return Surface(frags, z, unit, grid, sample_fragments(texture, grid, frags), shading)


def render(
    mesh: FaceMesh,
    camera: Camera,
    texture: Tensor,
    light: Tensor,
    size: int | tuple[int, int] | None = None,
    background: Tensor | None = None,
    antialias: bool = True,
) -> RenderOutput:
    """Renders textured meshes under spherical-harmonics light.

    Pixels are those of `camera.K`: to render a crop or another resolution, pass a camera whose K says so.
    Gradients reach vertices, camera, texture, light and background; through silhouettes only with
    `antialias`.

    Args:
        mesh: Object-space mesh, vertices [*B, V, 3] in metres. Pass the same `triangles` object every time:
            what depends only on the topology is remembered.
        camera: Camera with batch shape *B, or one that broadcasts to it.
        texture: [*B, 3, h, w] linear albedo, origin top-left; broadcasts to *B.
        light: [*B, 9, 3] spherical-harmonics light in camera axes (`hiface.render.shade`); broadcasts to *B.
        size: Output height and width in pixels (one number for a square); the camera's size if None.
        background: Linear colour behind the mesh, [*B, 3, H, W] or anything that broadcasts to it (such as
            [3, 1, 1]); black if None.
        antialias: Blend pixels along silhouettes, which gives silhouettes a gradient.

    Returns:
        RenderOutput with batch shape *B, dtype and device of the vertices.

    Raises:
        ShapeError: Shapes do not fit together.
    """
    if texture.dim() < 3 or texture.shape[-3] != 3 or light.shape[-2:] != (9, 3):
        raise ShapeError(
            "expected texture [*B, 3, h, w] and light [*B, 9, 3], "
            f"got {tuple(texture.shape)} and {tuple(light.shape)}"
        )
    height, width = (size, size) if isinstance(size, int) else size or (camera.height, camera.width)
    trailing = [(mesh.vertices, 2), (camera.K, 2), (camera.T_cam_object, 2), (texture, 3), (light, 2)]
    batch = torch.broadcast_shapes(*(tensor.shape[: tensor.dim() - n] for tensor, n in trailing))
    verts, K, T_cam_object, texture, light = (_flatten(tensor, batch, n) for tensor, n in trailing)
    cam = T_cam_object[:, :3, :3] @ verts.transpose(1, 2) + T_cam_object[:, :3, 3:]
    px_x, px_y, px_w = (K @ cam).unbind(1)
    z = cam[:, 2].contiguous()
    x, y = px_x / px_w, px_y / px_w
    verts_px_z = torch.stack([x, y, z], dim=-1)
    triangle_id = rasterize(verts_px_z, mesh.triangles, height, width)
    surface = render_surface(mesh, cam.transpose(1, 2), verts_px_z, texture, light, triangle_id)
    if background is not None:
        background = background.expand(*batch, 3, height, width).reshape(-1, 3, height, width)
    image = to_images(surface.albedo * surface.shading, surface.frags, background)
    alpha = (triangle_id >= 0).to(verts.dtype).unsqueeze(1)
    if antialias:
        nearness = to_images(surface.z.detach().reciprocal(), surface.frags).squeeze(1)
        w = torch.where(z > 0, z.reciprocal(), 0.0).detach()
        links = silhouette_links((x, y, w), nearness, mesh.triangles)
        image, alpha = blend(image, links), blend(alpha, links)
    return RenderOutput(
        image.reshape(*batch, 3, height, width),
        alpha.reshape(*batch, 1, height, width),
        triangle_id.reshape(*batch, height, width),
        surface,
    )
