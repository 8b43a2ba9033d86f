# SPDX-License-Identifier: Apache-2.0
"""Heads of the open model in the place of scans: estimators meet true correspondence."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hiface.evaluation.metrics.now import Scan
from hiface.evaluation.metrics.realy import REGIONS, Subject
from hiface.geometry.mesh_files import PlainMesh
from hiface.geometry.subdivide import subdivide
from hiface.morphable import MorphableModel

UNIT_M = 0.00895
"""A unit of REALY's scans, in the mean; thresholds of its steps are in units."""


def region_masks(model: MorphableModel) -> dict[str, Tensor]:
    """Region to [V] bool; like REALY's, the forehead reaches down around the eyes."""
    masks = model.data.vertex_masks
    around = (masks["left_eye_region"] | masks["right_eye_region"]) & masks["skin"]
    return {region: masks[region] | around if region == "forehead" else masks[region] for region in REGIONS}


def subject_of(model: MorphableModel, vertices: Tensor, steps: int = 0, name: str = "1") -> Subject:
    """A head as a subject of REALY.

    Args:
        model: The open model.
        vertices: [V, 3] metres.
        steps: How often each triangle of the scan is split into four.
        name: Number of the subject.

    Returns:
        Subject in units of 8.95 mm.
    """
    places, triangles, owner = _split(model, vertices, steps)
    regions = {}
    for region, mask in region_masks(model).items():
        chosen = triangles[mask[model.triangles].all(dim=1)[owner]]
        used, corners = torch.unique(chosen, return_inverse=True)
        regions[region] = PlainMesh(places[used] / UNIT_M, corners.reshape(-1, 3))
    keypoints = model.landmarks("realy85", vertices.double()) / UNIT_M
    return Subject(name, keypoints, regions, 1e3 * UNIT_M)


def scan_of(model: MorphableModel, vertices: Tensor, steps: int = 0) -> Scan:
    """A head at rest as a scan of NoW, in millimetres; arguments as in `subject_of`."""
    places, triangles, owner = _split(model, vertices, steps)
    outside = triangles[_skin_triangles(model)[owner]]
    used, corners = torch.unique(outside, return_inverse=True)
    mesh = PlainMesh(1e3 * places[used], corners.reshape(-1, 3))
    return Scan(mesh, 1e3 * model.landmarks("now7", vertices.double()))


def _split(model: MorphableModel, vertices: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices, triangles and the model's triangle that each lies in."""
    places, triangles = vertices.detach().cpu().double().numpy(), model.triangles.cpu().numpy()
    owner = torch.arange(len(triangles))
    for _ in range(steps):
        finer = subdivide(triangles, len(places))
        places, triangles = finer.middles(places), finer.triangles
        owner = owner.repeat_interleave(4)
    return torch.from_numpy(places), torch.from_numpy(triangles), owner


@lru_cache(maxsize=4)
def _skin_triangles(model: MorphableModel) -> Tensor:
    """[T] bool: what a scanner sees of a head, without eyeballs and what lies in the mouth."""
    return model.data.vertex_masks["skin"][model.triangles.cpu()].all(dim=1)
