# SPDX-License-Identifier: Apache-2.0
"""The handful of coefficients that everything else is a function of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

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

    def replace(self, **changes: Any) -> FaceParams:
        """Copy with some fields replaced."""
        return replace(self, **changes)

    def map(self, change: Callable[[Any], Any]) -> FaceParams:
        """Copy with `change` applied to every tensor and the camera."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if value is not None})

    def to(self, *args: Any) -> FaceParams:
        """Copy on another device or in another dtype; arguments as for `Tensor.to`."""
        return self.map(lambda value: value.to(*args))

    def __getitem__(self, index: int | slice) -> FaceParams:
        """Indexes the leading batch dimension."""
        return self.map(lambda value: value[index])
