# SPDX-License-Identifier: Apache-2.0
"""L_shp: predicted against true shapes of synthetic faces, on the mesh and in the picture (HiFace).

A linear model's squared vertex distances are a quadratic form of the coefficients, so that the mean over all
vertices costs no more than a product with a small matrix and is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hiface.errors import ShapeError
from hiface.geometry.areas import vertex_areas
from hiface.losses.landmark_points import point_distance, weighted_mean
from hiface.morphable import MorphableModel

_ELSEWHERE = 0.01  # weight of the head outside the face


def face_weights(model: MorphableModel) -> Tensor:
    """[V] weights of the vertices: areas on the mean face, a hundredth of them outside the face; sum 1."""
    areas = vertex_areas(model.template, model.triangles)
    weights = torch.where(model.data.vertex_masks["face"].to(areas.device), areas, _ELSEWHERE * areas)
    return weights / weights.sum()


def rigid_motions(points: Tensor) -> Tensor:
    """Small rigid motions of points: [V, 3] to [6, V, 3], three shifts and three turns about their mean."""
    shifts = torch.eye(3, dtype=points.dtype, device=points.device)[:, None].expand(3, len(points), 3)
    around = (points - points.mean(dim=0)).expand(3, -1, -1)
    return torch.cat([shifts, torch.linalg.cross(shifts, around)])


class ShapeMetric(nn.Module):
    """Mean squared vertex distance of two sets of coefficients.

    Args:
        model: Face model.
        weights: [V] weights of the vertices, sum 1; `face_weights` if None.
    """

    def __init__(self, model: MorphableModel, weights: Tensor | None = None) -> None:
        super().__init__()
        root = (face_weights(model) if weights is None else weights).sqrt()[:, None].double()
        basis = torch.cat([model.identity_basis, model.expression_basis]).double()
        flat = (1e3 * basis * root).flatten(1)
        motions = (rigid_motions(model.template.double()) * root).flatten(1)
        motions = torch.linalg.qr(motions.T)[0]
        n = len(model.identity_basis)
        still = flat[:n] - (flat[:n] @ motions) @ motions.T
        self.form: Tensor
        self.aligned_form: Tensor
        self.motion_form: Tensor
        self.register_buffer("form", (flat @ flat.T).float(), persistent=False)
        self.register_buffer("motion_form", (flat[n:] @ flat[n:].T).float(), persistent=False)
        self.register_buffer("aligned_form", (still @ still.T).float(), persistent=False)

    def neutral(self, identity: Tensor, truth: Tensor) -> Tensor:
        """Mean squared distance of faces at rest after rigid alignment.

        The alignment is the least-squares one for small motions, which is what the error of a shape needs.

        Args:
            identity: [*B, K] sigma.
            truth: [*B, K].

        Returns:
            [*B] mm^2. Differentiable.
        """
        return quadratic(identity - truth, self.aligned_form)

    def expressive(
        self, identity: Tensor, expression: Tensor, true_identity: Tensor, true_expression: Tensor
    ) -> Tensor:
        """Mean squared distance with expression in object space, not aligned: [*B], mm^2. Differentiable."""
        difference = torch.cat([identity - true_identity, expression - true_expression], dim=-1)
        return quadratic(difference, self.form)

    def motion(self, expression: Tensor, truth: Tensor) -> Tensor:
        """Mean squared distance of two expressions of the same person: [*B, E] twice to [*B], mm^2."""
        return quadratic(expression - truth, self.motion_form)


def quadratic(x: Tensor, form: Tensor) -> Tensor:
    """x^T A x for rows [*B, n] and a symmetric matrix [n, n]: [*B].

    Raises:
        ShapeError: The sizes differ.
    """
    if x.shape[-1] != len(form):
        raise ShapeError(f"expected {len(form)} coefficients, got {x.shape[-1]}")
    return ((x @ form) * x).sum(dim=-1)


def projected_distance(points: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Mean distance of projected landmarks, weighted: [B, L, 2] twice and [B, L] to a scalar."""
    return weighted_mean(point_distance(points, truth), weights)
