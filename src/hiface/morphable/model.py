# SPDX-License-Identifier: Apache-2.0
"""One class for every linear face model: mean + identity + expression + skinning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import roma
import torch
from torch import Tensor, nn

from hiface.errors import ModelFormatError, ShapeError
from hiface.morphable.contour import select_contour
from hiface.morphable.data import MorphableModelData
from hiface.morphable.skinning import linear_blend_skinning
from hiface.types import FaceMesh, FaceParams, LandmarkSet


class MorphableModel(nn.Module):
    """S = S_mean + identity B_id + expression B_exp;  S_p = LBS(S, pose, J; W);  A = A_mean + albedo B_alb.

    Some models read from files add to S a bilinear term, sum_ke identity_k expression_e B_ke, and before
    skinning the pose correctives, sum_i vec(R - I)_i C_i (FLAME, Li et al. 2017, equation 1).

    Attributes:
        data: The model's tensors (on the CPU, float32) and names.
        cells: [F, 4] quads, or [F, 3] triangles of a model without quads, where it is.
    """

    # Buffers, declared for type checkers.
    template: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    joints_template: Tensor
    joints_identity_basis: Tensor
    skin_weights: Tensor
    albedo_mean: Tensor
    albedo_basis: Tensor
    triangles: Tensor
    uv: Tensor
    uv_triangles: Tensor
    cells: Tensor
    pose_correctives: Tensor | None
    joints_expression_basis: Tensor | None
    bilinear_basis: Tensor | None

    def __init__(self, data: MorphableModelData) -> None:
        super().__init__()
        self.data = data
        for name in (
            "template",
            "identity_basis",
            "expression_basis",
            "joints_template",
            "joints_identity_basis",
            "skin_weights",
            "albedo_mean",
            "albedo_basis",
            "triangles",
            "uv",
            "uv_triangles",
            "pose_correctives",
            "joints_expression_basis",
            "bilinear_basis",
        ):
            self.register_buffer(name, getattr(data, name), persistent=False)
        self.register_buffer("cells", data.triangles if data.quads is None else data.quads, persistent=False)
        self._expression_index = {name: i for i, name in enumerate(data.expression_names)}

    @property
    def name(self) -> str:
        """Model name."""
        return self.data.name

    def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Unposed vertices.

        Args:
            identity: [*B, k] with k <= K, in sigma.
            expression: [*B, E], 0..1 or in sigma, as `data.expression_kind` says.

        Returns:
            [*B, V, 3] metres, object space. Differentiable.
        """
        k = identity.shape[-1]
        if k > self.data.n_identity or expression.shape[-1] != len(self.data.expression_names):
            raise ShapeError(
                f"identity must have at most {self.data.n_identity} and expression exactly "
                f"{len(self.data.expression_names)} coefficients, got {k} and {expression.shape[-1]}"
            )
        offset = identity @ self.identity_basis[:k].flatten(1) + expression @ self.expression_basis.flatten(1)
        if self.bilinear_basis is not None:
            products = (identity[..., :, None] * expression[..., None, :]).flatten(-2)
            offset = offset + products @ self.bilinear_basis[:k].flatten(0, 1).flatten(1)
        return self.template + offset.unflatten(-1, (-1, 3))

    def joints(self, identity: Tensor, expression: Tensor | None = None) -> Tensor:
        """Rest joint positions, [*B, J, 3] metres, of an identity [*B, k].

        Args:
            identity: [*B, k] sigma.
            expression: [*B, E]; moves the joints only of models with a `joints_expression_basis`. None is the
                neutral face.
        """
        offset = identity @ self.joints_identity_basis[: identity.shape[-1]].flatten(1)
        if self.joints_expression_basis is not None and expression is not None:
            offset = offset + expression @ self.joints_expression_basis.flatten(1)
        return self.joints_template + offset.unflatten(-1, (-1, 3))

    def vertices(self, identity: Tensor, expression: Tensor, pose: Tensor) -> Tensor:
        """Posed vertices.

        Args:
            identity: [*B, k] sigma.
            expression: [*B, E] 0..1 or in sigma, as `data.expression_kind` says.
            pose: [*B, J, 3] joint rotations relative to the parent, radians.

        Returns:
            [*B, V, 3] metres, object space. Differentiable.
        """
        shape = self.shape(identity, expression)
        if self.pose_correctives is not None:
            shape = shape + self.pose_offsets(pose)
        return linear_blend_skinning(
            shape, self.joints(identity, expression), pose, self.data.joint_parents, self.skin_weights
        )

    def pose_offsets(self, pose: Tensor) -> Tensor:
        """Pose correctives, added before skinning: [*B, V, 3] metres of a pose [*B, J, 3], 0 without any."""
        if self.pose_correctives is None:
            return self.template.new_zeros(*pose.shape[:-2], *self.template.shape)
        turned = roma.rotvec_to_rotmat(pose[..., 1:, :])
        features = (turned - torch.eye(3, dtype=turned.dtype, device=turned.device)).flatten(-3)
        return (features @ self.pose_correctives.flatten(1)).unflatten(-1, (-1, 3))

    def forward(self, identity: Tensor, expression: Tensor, pose: Tensor) -> FaceMesh:
        """Posed mesh in object space; arguments as in `vertices`."""
        return self.mesh(self.vertices(identity, expression, pose))

    def mesh(self, vertices: Tensor) -> FaceMesh:
        """Any vertices [*B, V, 3] with the model's topology and UV layout."""
        return FaceMesh(vertices, self.triangles, self.uv, self.uv_triangles)

    def vertices_cam(self, params: FaceParams) -> Tensor:
        """Vertices of coefficients in camera space, [*B, V, 3] metres."""
        return params.camera.to_cam(self.vertices(params.identity, params.expression, params.pose))

    def albedo_map(self, albedo: Tensor) -> Tensor:
        """Albedo texture A = A_mean + albedo B_alb, clamped to [0, 1].

        Args:
            albedo: [*B, a] with a <= A, in sigma.

        Returns:
            [*B, 3, H, W] linear RGB. Differentiable where not clamped.
        """
        offset = albedo @ self.albedo_basis[: albedo.shape[-1]].flatten(1)
        return (self.albedo_mean + offset.unflatten(-1, tuple(self.albedo_mean.shape))).clamp(0.0, 1.0)

    def landmark_set(self, name: str) -> LandmarkSet:
        """A landmark set by name, on the model's device.

        Raises:
            ModelFormatError: The model has no such set.
        """
        try:
            return self.data.landmark_sets[name].to(str(self.template.device))
        except KeyError:
            known = ", ".join(sorted(self.data.landmark_sets))
            raise ModelFormatError(
                f"face model {self.name!r} has no landmark set {name!r}; it has {known}"
            ) from None

    def landmarks(self, name: str, vertices: Tensor) -> Tensor:
        """Points of a named set on `vertices` [*B, V, 3]: [*B, L, 3] in the same space."""
        return self.landmark_set(name).positions(vertices, self.triangles)

    def landmarks_cam(self, name: str, vertices_cam: Tensor) -> Tensor:
        """Like `landmarks`, for camera-space vertices; the jaw of "ibug68" follows the silhouette.

        Args:
            name: Landmark set.
            vertices_cam: [*B, V, 3] metres, camera space.

        Returns:
            [*B, L, 3] metres, camera space.
        """
        points = self.landmarks(name, vertices_cam)
        if name != "ibug68" or self.data.contour is None:
            return points
        contour = self.data.contour
        lines = contour.positions(vertices_cam, self.triangles)
        index = select_contour(lines, contour.valid.to(lines.device))
        jaw = lines.gather(-2, index[..., None, None].expand(*index.shape, 1, 3))[..., 0, :]
        return torch.cat([jaw, points[..., jaw.shape[-2] :, :]], dim=-2)

    def expression_vector(self, weights: Mapping[str, float]) -> Tensor:
        """Expression coefficients [E] from named weights; names left out are 0.

        Raises:
            ModelFormatError: A name is not one of the model's expressions.
        """
        values = [0.0] * len(self.data.expression_names)
        for name, value in weights.items():
            values[self.expression_index(name)] = float(value)
        return torch.tensor(values, dtype=self.template.dtype, device=self.template.device)

    def expression_index(self, name: str) -> int:
        """Position of an expression by its exact name.

        Raises:
            ModelFormatError: There is no such expression.
        """
        if name not in self._expression_index:
            close = [n for n in self._expression_index if n.lower() == name.lower()]
            hint = f"; did you mean {close[0]!r}?" if close else "; see model.data.expression_names"
            raise ModelFormatError(f"face model {self.name!r} has no expression {name!r}{hint}")
        return self._expression_index[name]

    def part_triangles(self, parts: Sequence[str]) -> Tensor:
        """Bool [T]: triangles that belong to one of the named parts."""
        ids = [self.data.part_names.index(p) for p in parts]
        return torch.isin(self.data.triangle_parts, torch.tensor(ids)).to(self.template.device)
