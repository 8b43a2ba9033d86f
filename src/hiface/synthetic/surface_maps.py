# SPDX-License-Identifier: Apache-2.0
"""Labels that are pictures: depth, normals, UV, albedo and shading of what each pixel's centre sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.morphable import MorphableModel
from hiface.render.interpolate import interpolate_surface, to_images
from hiface.render.kernels.cpu import run_library
from hiface.render.kernels.library import has_library, loaded_library
from hiface.render.kernels.maps import DrawnLayers, label_maps
from hiface.render.kernels.skin import SkinMesh
from hiface.render.rasterize import Fragments, fragments, rasterize
from hiface.render.texture import sample_texture
from hiface.render.visibility import head_visibility
from hiface.synthetic.accessories import LABEL_ACCESSORY
from hiface.synthetic.compose import Composed, Picture
from hiface.synthetic.head import head_tables, set_back_m
from hiface.synthetic.lights import light_vertices, put_normals
from hiface.synthetic.scene import FAR_M, seen_vertices
from hiface.synthetic.skin import texels
from hiface.synthetic.vectors import unit_columns

HEAD_LABELS = (1, 2, 3)  # skin, eyes and mouth interior in the segmentation
SURFACE_MAPS = {"normals": 3, "uv": 2, "albedo": 3, "shading": 3}
"""Maps of the face model and how many channels they have."""


@dataclass(frozen=True)
class Traced:
    """The face model as pixel centres see it.

    Attributes:
        verts_cam: [V, 3] metres.
        verts_px_z: [1, V, 3] pixels and metres.
        frags: The pixels that see the model.
        z: [P] metres.
    """

    verts_cam: Tensor
    verts_px_z: Tensor
    frags: Fragments
    z: Tensor

    def image(self, rows: Tensor) -> Tensor:
        """Rows [C, P] as an image [C, S, S], zero elsewhere."""
        return to_images(rows, self.frags)[0]

    def depth(self) -> Tensor:
        """[S, S] metres, `FAR_M` where the model is not."""
        z = self.image(self.z[None])[0]
        return torch.where(z > 0, z, FAR_M)


def _seen_triangles(model: MorphableModel, picture: Picture, verts_cam: Tensor) -> tuple[Tensor, Tensor]:
    """[V, 3] pixels and metres, and [S, S] int32 triangles that pixel centres see, -1 for none.

    Which triangle is in front is decided as in the picture, where what is inside the head lies a little
    deeper.
    """
    camera, z = picture.params.camera, verts_cam[:, 2]
    flat = torch.cat([camera.cam_to_px(verts_cam), z[:, None]], dim=1)
    deeper = flat.clone()
    deeper[:, 2] = torch.where(z > 0, z + set_back_m(model, picture.params.expression), z)
    size, triangles = (camera.height, camera.width), head_tables(model).mesh.triangles
    if has_library():
        return flat, run_library(loaded_library(), deeper[None], triangles, *size)[0]
    return flat, rasterize(deeper, triangles, *size)


def trace_model(model: MorphableModel, picture: Picture) -> Traced:
    """Finds which pixels see the model.

    Args:
        model: Face model.
        picture: Pose and camera.

    Returns:
        Traced. Depths are those of the model.
    """
    verts_cam = picture.params.camera.to_cam(picture.vertices)
    flat, ids = _seen_triangles(model, picture, verts_cam)
    frags = fragments(ids[None])
    nothing = flat.new_zeros(1, len(flat), 0)
    corners = flat.new_zeros(len(model.data.triangles), 3, 0)
    rows = interpolate_surface(flat[None], nothing, corners, model.data.triangles, frags)
    return Traced(verts_cam, flat[None], frags, rows[0])


def head_shown(composed: Composed, segmentation: Tensor) -> Tensor:
    """[S, S] bool, where a picture shows the face model: not the body's skin, not what is in front."""
    return _own_pixels(_layers(composed, segmentation))


def _lit_rows(model: MorphableModel, picture: Picture, composed: Composed, ids: Tensor) -> Tensor:
    """[V, C] light with shadows and normals of the vertices that pixel centres [S, S] see."""
    rows, triangles = composed.head.rows, head_tables(model).mesh.triangles
    if rows is None:
        rows = torch.zeros(model.data.n_vertices, 6)
        put_normals(rows, composed.verts_cam, triangles)
    missing = seen_vertices(ids, triangles, len(rows)).numpy() & ~composed.head.lit.numpy()
    if missing.any():  # the others were lit when the head was drawn
        seen = head_visibility(model), picture.jaw_open
        wanted = torch.from_numpy(missing)
        light_vertices(rows, picture.lights, seen, picture.T_cam_head[:3, :3], [], wanted)
    return rows


def maps_plain(
    verts_px_z: Tensor, rows: Tensor, mesh: SkinMesh, frags: Fragments, texture: Tensor, layers: DrawnLayers
) -> tuple[Tensor, Tensor]:
    """What `hiface.render.kernels.maps.label_maps` does, in plain torch.

    Args:
        verts_px_z: [V, 3] pixels and metres.
        rows: [V, C >= 6] light and normals.
        mesh: Triangles and texture coordinates.
        frags: The pixels that see the model.
        texture: [3, s, s] linear albedo.
        layers: The drawn person.

    Returns:
        [S, S] metres, and [11, S, S] normals, uv, albedo, light.
    """
    table = rows[None, :, :6]
    values = interpolate_surface(verts_px_z[None], table, mesh.corners, mesh.triangles, frags)
    uv = (values[7:9] + 1) / 2
    albedo = sample_texture(texture, uv.T).T
    whole = torch.cat([values[:1], unit_columns(values[4:7]), uv, albedo, values[1:4]])
    head = _own_pixels(layers)
    z, maps = (to_images(whole, frags)[0] * head).split([1, len(whole) - 1])
    n, mask = len(layers.depth) // len(layers.mask), layers.mask
    depth = layers.depth[n // 2 :: n, n // 2 :: n]
    hidden = (mask == layers.accessory) & (layers.label != mask)
    person = torch.where((depth < layers.far_m) & (mask > 0) & ~hidden, depth, 0.0)
    return torch.where((z[0] > 0) & (z[0] < layers.far_m), z[0], person), maps


def _own_pixels(layers: DrawnLayers) -> Tensor:
    """[S, S] bool, where nothing is in front of the head."""
    n, (first, last) = len(layers.depth) // len(layers.mask), layers.head_labels
    own = (layers.head_depth == layers.depth)[n // 2 :: n, n // 2 :: n]
    return own & (layers.mask >= first) & (layers.mask <= last)


def _layers(composed: Composed, segmentation: Tensor) -> DrawnLayers:
    depths, masks = (composed.depth, composed.head_depth), (composed.label, segmentation)
    return DrawnLayers(*depths, *masks, (HEAD_LABELS[0], HEAD_LABELS[-1]), LABEL_ACCESSORY, FAR_M)


def surface_maps(
    model: MorphableModel, picture: Picture, composed: Composed, segmentation: Tensor, texture: Tensor
) -> dict[str, Tensor]:
    """All maps of a picture.

    Args:
        model: Face model.
        picture: Pose, camera and light.
        composed: The drawn person.
        segmentation: [S, S] uint8.
        texture: [3, h, w] linear albedo of the person.

    Returns:
        "depth" [S, S] metres of the whole person; and where the face model is seen (`head_shown`, 0
        elsewhere): "normals" [3, S, S] unit, camera axes; "uv" [2, S, S]; "albedo" [3, S, S] linear, of the
        texture (irises are painted on later); "shading" [3, S, S] light with shadows, without highlights.
    """
    verts_px_z, ids = _seen_triangles(model, picture, composed.verts_cam)
    rows, mesh = _lit_rows(model, picture, composed, ids), head_tables(model).mesh
    layers = _layers(composed, segmentation)
    if has_library():
        tables = verts_px_z, mesh.triangles, mesh.corners
        depth, maps = label_maps(tables, rows, ids, texels(texture), layers)
    else:
        depth, maps = maps_plain(verts_px_z, rows, mesh, fragments(ids[None]), texture, layers)
    parts = maps.split(list(SURFACE_MAPS.values()))
    return {"depth": depth, **dict(zip(SURFACE_MAPS, parts, strict=True))}
