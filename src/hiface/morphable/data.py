# SPDX-License-Identifier: Apache-2.0
"""What a linear face model is made of, whatever file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from hiface.errors import ModelFormatError
from hiface.types import LandmarkSet


@dataclass(frozen=True)
class ContourLines:
    """Candidate points of the yaw-dependent jaw contour.

    Attributes:
        points: LandmarkSet of all candidates, line after line ([17 * C] points).
        valid: [17, C] bool, False where a line has fewer than C candidates.
    """

    points: LandmarkSet
    valid: Tensor

    def positions(self, vertices: Tensor, triangles: Tensor) -> Tensor:
        """Candidate positions, [*B, 17, C, 3], in the space of `vertices` ([*B, V, 3])."""
        flat = self.points.positions(vertices, triangles)
        return flat.reshape(*flat.shape[:-2], *self.valid.shape, 3)


@dataclass(frozen=True)
class MorphableModelData:
    """Tensors and names of a linear or bilinear face model with skinning, in metres and object space.

    Bases are already multiplied by their standard deviations, so every coefficient is in sigma and N(0, 1)
    under the model's prior; expression coefficients are 0..1 or in sigma, see `expression_kind`.

    Attributes:
        name: Model name, "open" for the shipped one.
        version: Version of the model file.
        licence: Licence of the model's data.
        template: [V, 3] mean shape.
        triangles: [T, 3] int64.
        uv: [U, 2] origin top-left.
        uv_triangles: [T, 3] int64.
        identity_basis: [K, V, 3].
        identity_std: [K] standard deviations already contained in `identity_basis`.
        expression_basis: [E, V, 3].
        expression_names: E names; for the open model the 52 of ARKit in alphabetical order.
        joint_names: J names.
        joint_parents: J indices, -1 for a root; parents come before children.
        joints_template: [J, 3] joint positions of the mean shape.
        joints_identity_basis: [K, J, 3].
        skin_weights: [V, J], rows sum to 1.
        albedo_mean: [3, H, W] linear RGB.
        albedo_basis: [A, 3, H, W].
        albedo_names: A names.
        triangle_parts: [T] int64 index into `part_names`.
        part_names: Names of the mesh parts ("skin", "eye_left", ...).
        mirror_vertices: [V] int64 index of each vertex's mirror image.
        vertex_masks: Name to bool [V].
        landmark_sets: Name to points.
        contour: Jaw-contour candidates or None.
        pairs: Name to [P, 2] int64 landmark or vertex pairs (eyelids, lips).
        quads: [Q, 4] int64 quads that the triangles were split from, or None.
        metadata: How the file was made.
        expression_kind: "unit" for expressions of 0..1, "sigma" for coefficients that are N(0, 1).
        pose_correctives: [9 (J - 1), V, 3] offsets per entry of R_j - I, row by row, of the joints after the
            first, added before skinning; or None.
        joints_expression_basis: [E, J, 3] how expressions move the joints at rest, or None.
        bilinear_basis: [K, E, V, 3] offsets per product of an identity and an expression coefficient; None
            where a shape is the sum of identity and expression.
    """

    name: str
    version: str
    licence: str
    template: Tensor
    triangles: Tensor
    uv: Tensor
    uv_triangles: Tensor
    identity_basis: Tensor
    identity_std: Tensor
    expression_basis: Tensor
    expression_names: tuple[str, ...]
    joint_names: tuple[str, ...]
    joint_parents: tuple[int, ...]
    joints_template: Tensor
    joints_identity_basis: Tensor
    skin_weights: Tensor
    albedo_mean: Tensor
    albedo_basis: Tensor
    albedo_names: tuple[str, ...]
    triangle_parts: Tensor
    part_names: tuple[str, ...]
    mirror_vertices: Tensor
    vertex_masks: Mapping[str, Tensor] = field(default_factory=dict)
    landmark_sets: Mapping[str, LandmarkSet] = field(default_factory=dict)
    contour: ContourLines | None = None
    pairs: Mapping[str, Tensor] = field(default_factory=dict)
    quads: Tensor | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    expression_kind: Literal["unit", "sigma"] = "unit"
    pose_correctives: Tensor | None = None
    joints_expression_basis: Tensor | None = None
    bilinear_basis: Tensor | None = None

    def __post_init__(self) -> None:
        v, t, k, e, j = (
            self.n_vertices,
            self.triangles.shape[0],
            self.n_identity,
            len(self.expression_names),
            self.n_joints,
        )
        expected = {
            "template": (v, 3),
            "triangles": (t, 3),
            "uv_triangles": (t, 3),
            "identity_basis": (k, v, 3),
            "identity_std": (k,),
            "expression_basis": (e, v, 3),
            "joints_template": (j, 3),
            "joints_identity_basis": (k, j, 3),
            "skin_weights": (v, j),
            "triangle_parts": (t,),
            "mirror_vertices": (v,),
            "pose_correctives": (9 * (j - 1), v, 3),
            "joints_expression_basis": (e, j, 3),
            "bilinear_basis": (k, e, v, 3),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            got = shape if value is None else tuple(value.shape)
            if got != shape:
                raise ModelFormatError(f"face model {self.name!r}: {name} must be {shape}, got {got}")
        for name, rows, count in (
            ("triangles", self.triangles, v),
            ("uv_triangles", self.uv_triangles, len(self.uv)),
        ):
            if rows.dtype != torch.int64 or not t or int(rows.min()) < 0 or int(rows.max()) >= count:
                raise ModelFormatError(
                    f"face model {self.name!r}: {name} must be whole numbers in 0..{count - 1}; a "
                    "triangle points past the last vertex, or there is none"
                )
        parents = self.joint_parents
        if len(parents) != j or not all(isinstance(p, int) and -1 <= p < i for i, p in enumerate(parents)):
            raise ModelFormatError(
                f"face model {self.name!r}: expected the parent of each of its {j} joints, -1 or a joint "
                f"before it, got {str(parents)[:80]}"
            )
        if self.expression_kind not in ("unit", "sigma"):
            raise ModelFormatError(
                f"face model {self.name!r}: expression_kind must be 'unit' or 'sigma', got "
                f"{str(self.expression_kind)[:40]!r}"
            )
        if self.albedo_basis.shape[1:] != self.albedo_mean.shape or len(self.albedo_names) != len(
            self.albedo_basis
        ):
            raise ModelFormatError(f"face model {self.name!r}: albedo basis and mean do not match")

    @property
    def n_vertices(self) -> int:
        """Number of vertices V."""
        return self.template.shape[0]

    @property
    def n_identity(self) -> int:
        """Number of identity coefficients K."""
        return self.identity_basis.shape[0]

    @property
    def n_joints(self) -> int:
        """Number of joints J."""
        return len(self.joint_names)
