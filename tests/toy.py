"""A small ellipsoid head with the same classes as the real model, for tests that need no asset."""

from __future__ import annotations

import math

import torch

from hiface.assets import load_json_asset
from hiface.morphable.data import MorphableModelData
from hiface.morphable.model import MorphableModel
from hiface.types import LandmarkSet

RADII_M = (0.07, 0.11, 0.09)


def sphere(rings: int, segments: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit UV sphere: vertices [V, 3], triangles [T, 3], uv [U, 2], uv_triangles [T, 3]; seam at the back."""
    lat = torch.linspace(0, math.pi, rings + 1, dtype=torch.float64)
    lon = torch.linspace(-math.pi, math.pi, segments + 1, dtype=torch.float64)
    uv = torch.stack(torch.meshgrid(lon / (2 * math.pi) + 0.5, lat / math.pi, indexing="xy"), -1).reshape(
        -1, 2
    )

    def vertex(r: int, s: int) -> int:
        if r == 0:
            return 0
        if r == rings:
            return 1
        return 2 + (r - 1) * segments + s % segments

    verts = [[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]]
    for r in range(1, rings):
        for s in range(segments):
            a, b = lat[r].item(), lon[s].item()
            verts.append([math.sin(a) * math.sin(b), math.cos(a), math.sin(a) * math.cos(b)])
    triangles, uv_triangles = [], []
    for r in range(rings):
        for s in range(segments):
            a, b = (r, s), (r, s + 1)
            c, d = (r + 1, s), (r + 1, s + 1)
            corners = [] if r == rings - 1 else [(a, c, d)]
            corners += [] if r == 0 else [(a, d, b)]
            for tri in corners:
                triangles.append([vertex(*p) for p in tri])
                uv_triangles.append([p[0] * (segments + 1) + p[1] for p in tri])
    return (
        torch.tensor(verts, dtype=torch.float64),
        torch.tensor(triangles),
        uv,
        torch.tensor(uv_triangles),
    )


def toy_model(rings: int = 24, segments: int = 32, n_identity: int = 8, seed: int = 0) -> MorphableModel:
    """Ellipsoid head with smooth random bases; joints as in the open model."""
    unit, triangles, uv, uv_triangles = sphere(rings, segments)
    gen = torch.Generator().manual_seed(seed)
    template = (unit * torch.tensor(RADII_M, dtype=torch.float64)).float()
    n = template.shape[0]

    def smooth_fields(count: int, scale_m: float) -> torch.Tensor:
        freq = torch.randn(count, 3, 3, generator=gen) * 2.0
        phase = torch.rand(count, 1, 3, generator=gen) * 6.28
        return scale_m * torch.sin(unit.float() @ freq + phase)

    mirrored = template * torch.tensor([-1.0, 1.0, 1.0])

    names = tuple(load_json_asset("expressions/arkit52.json")["names"])
    weights = torch.zeros(n, 5)
    weights[:, 1] = 1.0
    albedo_mean = torch.full((3, 32, 32), 0.5)
    ids = torch.arange(0, triangles.shape[0], 7)
    points = LandmarkSet("ibug68", ids[:68], torch.full((68, 3), 1 / 3))
    return MorphableModel(
        MorphableModelData(
            name="toy",
            version="1",
            licence="Apache-2.0",
            template=template,
            triangles=triangles,
            uv=uv.float(),
            uv_triangles=uv_triangles,
            identity_basis=smooth_fields(n_identity, 0.003),
            identity_std=torch.ones(n_identity),
            expression_basis=smooth_fields(len(names), 0.002),
            expression_names=names,
            joint_names=("neck", "head", "jaw", "eye_left", "eye_right"),
            joint_parents=(-1, 0, 1, 1, 1),
            joints_template=torch.tensor(
                [
                    [0, -0.1, -0.02],
                    [0, -0.03, -0.01],
                    [0, -0.02, 0.0],
                    [0.03, 0.02, 0.06],
                    [-0.03, 0.02, 0.06],
                ]
            ),
            joints_identity_basis=torch.zeros(n_identity, 5, 3),
            skin_weights=weights,
            albedo_mean=albedo_mean,
            albedo_basis=0.05 * torch.randn(3, 3, 32, 32, generator=gen),
            albedo_names=("a", "b", "c"),
            triangle_parts=torch.zeros(triangles.shape[0], dtype=torch.int64),
            part_names=("skin",),
            mirror_vertices=torch.cdist(mirrored, template).argmin(dim=1),
            vertex_masks={"face": template[:, 2] > 0, "skin": torch.ones(n, dtype=torch.bool)},
            landmark_sets={"ibug68": points, "dense": points},
        )
    )
