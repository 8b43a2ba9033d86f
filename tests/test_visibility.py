# SPDX-License-Identifier: Apache-2.0
"""The head's own shadow as matrices on spherical-harmonics light."""

from __future__ import annotations

import roma
import torch

from hiface.geometry.normals import vertex_normals
from hiface.morphable import load_model
from hiface.render.shade import COSINE_LOBE, rotate_light, sh_basis
from hiface.render.visibility import (
    N_DIRECTIONS,
    head_visibility,
    light_transfer,
    sphere_directions,
    turned_transfer,
)


def test_transfer_is_what_the_table_of_directions_says():
    """Shading of every face vertex by random light: sum over the directions that are seen, and the matrix."""
    model = load_model("open")
    gen = torch.Generator().manual_seed(0)
    face = model.data.vertex_masks["face"]
    normals = vertex_normals(model.data.template, model.data.triangles)
    normals = torch.nn.functional.normalize(normals + 0.2 * torch.randn(normals.shape, generator=gen), dim=1)
    directions = sphere_directions()
    radiance = torch.randn(9, generator=gen)
    received = (normals @ directions.T).clamp_min(0) * (sh_basis(directions) @ radiance)
    received = received * (4.0 / N_DIRECTIONS)
    hidden = 1 - head_visibility(model).closed
    light = radiance * COSINE_LOBE
    basis = sh_basis(normals)
    lost = basis @ light - torch.einsum("vj,vjk,k->v", basis, light_transfer(model), light)
    true = (received * hidden).sum(1)
    assert float((lost - true)[face].std()) < 0.1 * float(true[face].std())


def test_nothing_hidden_changes_nothing():
    model = load_model("open")
    free = head_visibility(model).closed
    normals = vertex_normals(model.data.template, model.data.triangles)
    cosine = (normals @ sphere_directions().T).clamp_min(0)
    open_to_all = ((1 - free) * cosine).sum(1) < 0.005 * cosine.sum(1)
    assert int(open_to_all.sum()) > 100
    basis = sh_basis(normals[open_to_all])
    kept = torch.einsum("vj,vjk->vk", basis, light_transfer(model)[open_to_all])
    assert float((kept - basis).abs().mean()) < 0.01


def test_turned_transfer_shades_turned_normals_alike():
    gen = torch.Generator().manual_seed(1)
    transfer = torch.eye(9) + 0.2 * torch.randn(5, 9, 9, generator=gen)
    R = roma.rotvec_to_rotmat(torch.tensor([0.3, -0.8, 0.5]))
    normals = torch.nn.functional.normalize(torch.randn(5, 3, generator=gen), dim=1)
    light = torch.randn(9, 3, generator=gen)
    before = (sh_basis(normals)[:, None] @ transfer @ light)[:, 0]
    after = (sh_basis(normals @ R.T)[:, None] @ turned_transfer(transfer, R) @ rotate_light(light, R))[:, 0]
    assert torch.allclose(before, after, atol=1e-4)
