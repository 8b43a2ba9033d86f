# SPDX-License-Identifier: Apache-2.0
"""L_kd: a student is pulled to the coefficients and maps of a teacher on photos without labels (HiFace)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hiface.detail.basis import DetailBasis
from hiface.losses.detail_loss import dynamic_error, state_error
from hiface.losses.shape_loss import ShapeMetric
from hiface.networks.hiface import HifaceOutput


def distillation(
    shape: ShapeMetric, basis: DetailBasis, student: HifaceOutput, teacher: HifaceOutput
) -> Mapping[str, Tensor]:
    """How far a student is from its teacher, whose answers are taken for the truth.

    Args:
        shape: Vertex distance of the face model.
        basis: Detail basis with the networks' numbers of codes.
        student: Predictions with gradients.
        teacher: Predictions of another network on the same crops.

    Returns:
        "shape" mm^2, "expression", "static", "dynamic" (errors of the maps over those of the mean map),
        "pose", each [B].
    """
    goal = HifaceOutput(*(part.detach() for part in teacher))
    turn = (student.rotation6d - goal.rotation6d).square().sum(dim=-1)
    return {
        "shape": shape.expressive(student.identity, student.expression, goal.identity, goal.expression),
        "expression": (student.expression - goal.expression).abs().mean(dim=-1),
        "static": state_error(basis.static, student.static, goal.static),
        "dynamic": dynamic_error(basis, student.dynamic, goal.dynamic),
        "pose": turn + (student.place - goal.place).abs().sum(dim=-1),
    }
