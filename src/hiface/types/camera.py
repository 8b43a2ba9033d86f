# SPDX-License-Identifier: Apache-2.0
"""Perspective camera with OpenCV axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hiface.errors import ShapeError


@dataclass(frozen=True)
class Camera:
    """Pinhole camera: x right, y down, z forward; pixel centre of the top-left pixel is (0.5, 0.5).

    Attributes:
        K: [*B, 3, 3] intrinsics in pixels of the original (upright) image.
        T_cam_object: [*B, 4, 4] rigid transform from object space to camera space, metres.
        width: Image width in pixels.
        height: Image height in pixels.
    """

    K: Tensor
    T_cam_object: Tensor
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.K.shape[-2:] != (3, 3):
            raise ShapeError(f"Camera.K must be [*B, 3, 3], got {tuple(self.K.shape)}")
        if self.T_cam_object.shape[-2:] != (4, 4):
            raise ShapeError(f"Camera.T_cam_object must be [*B, 4, 4], got {tuple(self.T_cam_object.shape)}")

    @property
    def R(self) -> Tensor:
        """[*B, 3, 3] rotation, object to camera."""
        return self.T_cam_object[..., :3, :3]

    @property
    def t(self) -> Tensor:
        """[*B, 3] translation, metres."""
        return self.T_cam_object[..., :3, 3]

    @property
    def focal_px(self) -> Tensor:
        """[*B] horizontal focal length in pixels."""
        return self.K[..., 0, 0]

    def to_cam(self, points_object: Tensor) -> Tensor:
        """Moves points into camera space.

        Args:
            points_object: [*B, N, 3] metres, object space.

        Returns:
            [*B, N, 3] metres, camera space.
        """
        return points_object @ self.R.transpose(-1, -2) + self.t[..., None, :]

    def cam_to_px(self, points_cam: Tensor) -> Tensor:
        """Projects camera-space points.

        Args:
            points_cam: [*B, N, 3] metres, z > 0.

        Returns:
            [*B, N, 2] pixels of the original image. Points with z <= 0 have no meaningful projection.
        """
        px_h = points_cam @ self.K.transpose(-1, -2)
        return px_h[..., :2] / px_h[..., 2:3]

    def project(self, points_object: Tensor) -> Tensor:
        """Projects object-space points to pixels: [*B, N, 3] metres to [*B, N, 2] pixels."""
        return self.cam_to_px(self.to_cam(points_object))

    def to(self, *args: Any) -> Camera:
        """Returns a copy on another device or in another dtype; arguments as for `Tensor.to`."""
        return Camera(self.K.to(*args), self.T_cam_object.to(*args), self.width, self.height)

    def __getitem__(self, index: int | slice) -> Camera:
        """Indexes the leading batch dimension."""
        return Camera(self.K[index], self.T_cam_object[index], self.width, self.height)

    @staticmethod
    def from_pose(
        R: Tensor,
        t: Tensor,
        focal_px: Tensor | float,
        width: int,
        height: int,
        centre_px: Tensor | None = None,
    ) -> Camera:
        """Builds a camera with square pixels.

        Args:
            R: [*B, 3, 3] object-to-camera rotation.
            t: [*B, 3] translation, metres.
            focal_px: [*B] or scalar focal length, pixels.
            width: Image width, pixels.
            height: Image height, pixels.
            centre_px: [*B, 2] principal point, pixels; the image centre if None.

        Returns:
            Camera with the batch shape of `t`.
        """
        batch = t.shape[:-1]
        focal = torch.as_tensor(focal_px, dtype=t.dtype, device=t.device).expand(batch)
        if centre_px is None:
            centre_px = t.new_tensor([width / 2, height / 2])
        centre = centre_px.expand(*batch, 2)
        zero, one = torch.zeros_like(focal), torch.ones_like(focal)
        rows = [focal, zero, centre[..., 0], zero, focal, centre[..., 1], zero, zero, one]
        K = torch.stack(rows, dim=-1).reshape(*batch, 3, 3)
        bottom = t.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*batch, 1, 4)
        T = torch.cat([torch.cat([R.expand(*batch, 3, 3), t[..., None]], dim=-1), bottom], dim=-2)
        return Camera(K, T, width, height)
