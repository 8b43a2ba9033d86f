# SPDX-License-Identifier: Apache-2.0
"""Labels that are pictures: depth, normals, UV, albedo and shading of what each pixel's centre sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hiface.morphable import MorphableModel
from hiface.render.interpolate import interpolate_surface, to_images
from hiface.render.rasterize import Fragments, fragments, rasterize
from hiface.render.texture import sample_texture
from hiface.synthetic.accessories import LABEL_ACCESSORY
from hiface.synthetic.compose import Composed, Picture
from hiface.synthetic.head import head_tables, set_back_m
from hiface.synthetic.lights import head_visibility, light_vertices, put_normals
from hiface.synthetic.scene import FAR_M
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


def trace_model(model: MorphableModel, picture: Picture) -> Traced:
    """Finds which pixels see the model.

    Args:
        model: Face model.
        picture: Pose and camera.

    Returns:
        Traced. Which triangle is in front is decided as in the picture, where what is inside the head lies a
        little deeper; depths are those of the model.
    """
    camera = picture.params.camera
    verts_cam = camera.to_cam(picture.vertices)
    z = verts_cam[:, 2]
    flat = torch.cat([camera.cam_to_px(verts_cam), z[:, None]], dim=1)
    deeper = flat.clone()
    deeper[:, 2] = torch.where(z > 0, z + set_back_m(model, picture.params.expression), z)
    ids = rasterize(deeper, model.data.triangles, camera.height, camera.width)
    frags = fragments(ids[None])
    nothing = flat.new_zeros(1, len(flat), 0)
    corners = flat.new_zeros(len(model.data.triangles), 3, 0)
    rows = interpolate_surface(flat[None], nothing, corners, model.data.triangles, frags)
    return Traced(verts_cam, flat[None], frags, rows[0])


def head_shown(composed: Composed, segmentation: Tensor) -> Tensor:
    """[S, S] bool, where a picture shows the face model: not the body's skin, not what is in front."""
    n = composed.subpixels
    own = (composed.head_depth == composed.depth)[n // 2 :: n, n // 2 :: n]
    return own & (segmentation >= HEAD_LABELS[0]) & (segmentation <= HEAD_LABELS[-1])


def person_depth(traced: Traced, composed: Composed, segmentation: Tensor) -> Tensor:
    """Depth of the person, clothes and hair included.

    Args:
        traced: From `trace_model`.
        composed: The drawn person.
        segmentation: [S, S] uint8.

    Returns:
        [S, S] camera z in metres, 0 on the background and where something flat is held in front.
    """
    n = composed.subpixels
    whole = composed.depth[n // 2 :: n, n // 2 :: n]
    head = head_shown(composed, segmentation)
    model = traced.depth()
    depth = torch.where(head & (model < FAR_M), model, whole)
    hidden = (segmentation == LABEL_ACCESSORY) & (composed.label != segmentation)
    return torch.where((depth < FAR_M) & (segmentation > 0) & ~hidden, depth, 0.0)


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
    traced = trace_model(model, picture)
    data, mesh = model.data, head_tables(model).mesh
    table = torch.zeros(data.n_vertices, 6)
    put_normals(table, traced.verts_cam, mesh.triangles)
    seen = head_visibility(model), picture.jaw_open
    light_vertices(table, picture.lights, seen, picture.T_cam_head[:3, :3], [])
    rows = interpolate_surface(traced.verts_px_z, table[None], mesh.corners, data.triangles, traced.frags)
    light, normals, uv = rows[1:4], unit_columns(rows[4:7]), (rows[7:9] + 1) / 2
    albedo = sample_texture(texture, uv.T)
    head = head_shown(composed, segmentation)
    whole = traced.image(torch.cat([normals, uv, albedo.T, light])) * head
    parts = whole.split(list(SURFACE_MAPS.values()))
    maps = {name: part.clone() for name, part in zip(SURFACE_MAPS, parts, strict=True)}
    return {"depth": person_depth(traced, composed, segmentation), **maps}
