# SPDX-License-Identifier: Apache-2.0
"""Fine meshes with the relief in their vertices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hiface.errors import OptionError, ShapeError
from hiface.export.dense import dense_mesh
from hiface.export.obj import write_dense_obj
from hiface.geometry.normals import vertex_normals
from hiface.morphable import load_model
from hiface.render.texture import sample_texture
from test_obj_ply import read_obj
from toy import toy_model

FLAT = torch.zeros(1, 64, 64)


def volume(mesh):
    a, b, c = mesh.vertices.double()[mesh.triangles].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def test_finer_triangles_follow_the_curvature():
    """A coarse head of few triangles becomes rounder: its volume grows towards that of the smooth surface."""
    model = toy_model()
    volumes = [volume(dense_mesh(model, model.template, FLAT, steps).mesh) for steps in range(4)]
    steps = np.diff(volumes)
    assert (steps > 0).all() and steps[1] < 0.5 * steps[0] and steps[2] < 0.5 * steps[1]
    dense = dense_mesh(model, model.template, FLAT)
    assert len(dense.mesh.triangles) == 16 * len(model.triangles) == len(dense.triangle_parts)
    first = dense.mesh.vertices[: len(model.template)]
    assert torch.allclose(first, model.template, atol=1e-7)


def test_the_open_model_stays_closed_where_it_is():
    """Refined edges have as many triangles as the coarse ones: no cracks, at texture seams neither."""
    model = load_model("open")

    def borders(triangles):
        edges = np.sort(triangles.numpy()[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        _, count = np.unique(edges, axis=0, return_counts=True)
        return int((count == 1).sum()), int((count > 2).sum())

    relief = 1e-3 * torch.rand(1, 256, 256, generator=torch.Generator().manual_seed(0))
    dense = dense_mesh(model, model.template, relief)
    coarse = borders(model.triangles)
    assert borders(dense.mesh.triangles) == (4 * coarse[0], 4 * coarse[1])
    assert bool(dense.mesh.vertices.isfinite().all())


def test_relief_moves_vertices_along_normals():
    model = load_model("open")
    gen = torch.Generator().manual_seed(1)
    relief = torch.nn.functional.interpolate(1e-3 * torch.randn(1, 1, 16, 16, generator=gen), 256)[0]
    flat, rough = (dense_mesh(model, model.template, d).mesh for d in (torch.zeros_like(relief), relief))
    moved = rough.vertices - flat.vertices
    normals = vertex_normals(flat.vertices, flat.triangles)
    skin = model.data.triangle_parts.repeat_interleave(16) == model.data.part_names.index("skin")
    corners = flat.triangles[skin].flatten()
    depth = sample_texture(relief, flat.uv[flat.uv_triangles[skin].flatten()])[:, 0]
    along = (moved[corners] * normals[corners]).sum(1)
    assert float((along - depth).abs().median()) < 2e-5
    assert float((moved[corners].norm(dim=1) - along.abs()).abs().median()) < 2e-5


def test_the_file_has_every_triangle_with_its_texture_coordinates(tmp_path):
    model = load_model("open")
    dense = dense_mesh(model, model.template, FLAT, 1)
    files = write_dense_obj(tmp_path / "dense.obj", model, dense, torch.full((3, 8, 8), 0.5), units="mm")
    assert [f.name for f in files] == ["dense.png", "dense.mtl", "dense.obj"]
    obj = read_obj(files[-1])
    assert np.allclose(np.array(obj["v"]) / 1000, dense.mesh.vertices, atol=1e-6)
    assert np.allclose(np.array(obj["vt"]) * [1, -1] + [0, 1], dense.mesh.uv, atol=1e-6)
    assert len(obj["f"]) == len(dense.mesh.triangles)
    written = sorted([(c[0], c[1]) for c in corners] for corners, _ in obj["f"])
    kept = torch.stack([dense.mesh.triangles, dense.mesh.uv_triangles], dim=-1).tolist()
    assert written == sorted([(v, t) for v, t in corners] for corners in kept)
    assert {name for _, name in obj["f"]} >= {"skin", "eye_left", "teeth"}


def test_what_cannot_be_refined_is_a_named_error():
    model = toy_model()
    with pytest.raises(OptionError, match="0 to 4"):
        dense_mesh(model, model.template, FLAT, 5)
    with pytest.raises(ShapeError, match=r"\[1, S, S\]"):
        dense_mesh(model, model.template, FLAT[0])
