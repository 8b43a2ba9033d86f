# SPDX-License-Identifier: Apache-2.0
"""The handful of coefficients that everything else is a function of."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from hiface.types.camera import Camera


@dataclass(frozen=True)
class FaceParams:
    """Coefficients of one face in one picture (or a batch of them).

    Attributes:
        identity: [*B, K] identity, in standard deviations.
        expression: [*B, 52] ARKit blendshape weights in 0..1, alphabetical order.
        pose: [*B, J, 3] rotation vectors of the joints relative to their parents, radians. The pose of
            the head in the picture is carried by `camera.T_cam_object`.
        albedo: [*B, A] albedo, in standard deviations.
        light: [*B, 9, 3] spherical-harmonics light (linear RGB) in camera axes.
        camera: Intrinsics and head pose.
        static: [*B, S] static detail code, or None where no detail was estimated.
    """

    identity: Tensor
    expression: Tensor
    pose: Tensor
    albedo: Tensor
    light: Tensor
    camera: Camera
    static: Tensor | None = None

    def replace(self, **changes: Tensor | Camera) -> FaceParams:
        """Copy with some fields replaced."""
        return replace(self, **changes)

    def to(self, *args: torch.device | torch.dtype | str) -> FaceParams:
        """Copy on another device or in another dtype."""
        return FaceParams(
            **{
                f.name: None if getattr(self, f.name) is None else getattr(self, f.name).to(*args)
                for f in fields(self)
            }
        )

    def __getitem__(self, index: int | slice) -> FaceParams:
        """Indexes the leading batch dimension."""
        return FaceParams(
            **{
                f.name: None if getattr(self, f.name) is None else getattr(self, f.name)[index]
                for f in fields(self)
            }
        )
