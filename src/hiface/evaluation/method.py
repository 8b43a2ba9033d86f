# SPDX-License-Identifier: Apache-2.0
"""What a method that is compared has to give: one interface for ours and for all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from hiface.data import Photo
from hiface.geometry.mesh_files import PlainMesh
from hiface.types import LandmarkSet


@dataclass(frozen=True)
class Prediction:
    """One face of one photo, as a method sees it. Tensors are on the CPU, without batch dimensions.

    Attributes:
        box: [4] x0, y0, x1, y1 in pixels of the upright photo.
        landmarks68_px: [68, 2] iBUG points in pixels of the upright photo, or None.
        vertices: [V, 3] shape with the photo's expression, without the head's pose, or None for methods that
            give points only. +Y up, +Z out of the face.
        neutral_vertices: [V, 3] the same person at rest, same topology, or None if the method has no such
            thing.
        triangles: [T, 3] int64, or None.
        keypoints: Name ("ibug68", "now7", "realy85") to points on the topology.
        topology: Name of the topology; "open" has true correspondence with synthetic people.
        metric: Whether the unit is the metre and sizes are meant to be right.
        displacement: [1, S, S] metres in the open model's texture layout, or None.
        reexpress: Displacement under another expression ([E] of the open model, 0..1), or None.
        blendshapes: [52] ARKit weights of the photo in alphabetical order, or None.
        T_cam_head: [4, 4] pose of the head, metres, or None.
    """

    box: Tensor
    landmarks68_px: Tensor | None = None
    vertices: Tensor | None = None
    neutral_vertices: Tensor | None = None
    triangles: Tensor | None = None
    keypoints: Mapping[str, LandmarkSet] = field(default_factory=dict)
    topology: str = ""
    metric: bool = False
    displacement: Tensor | None = None
    reexpress: Callable[[Tensor], Tensor] | None = None
    blendshapes: Tensor | None = None
    T_cam_head: Tensor | None = None

    def mesh(self, neutral: bool = False) -> PlainMesh | None:
        """The shape as a mesh, or None where the method gives none."""
        vertices = self.neutral_vertices if neutral else self.vertices
        return None if vertices is None or self.triangles is None else PlainMesh(vertices, self.triangles)

    def keypoint_places(self, name: str, neutral: bool = False) -> Tensor | None:
        """[L, 3] places of a keypoint set on the shape, or None where the method has no such set."""
        mesh = self.mesh(neutral)
        if mesh is None or name not in self.keypoints:
            return None
        return self.keypoints[name].positions(mesh.vertices, mesh.triangles)


class Method(Protocol):
    """A way from a photo to faces.

    Attributes:
        name: What it is called on the command line and in results.
        licence: Of its model and weights, as far as known.
        description: One line for tables.
    """

    name: str
    licence: str
    description: str

    def load(self) -> None:
        """Reads models; raises a HifaceError that names the fix where something is missing."""
        ...

    def reconstruct(self, photo: Photo) -> list[Prediction]:
        """Faces of one photo, the most certain first; an empty list if there is none."""
        ...
