# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses of tensors that all parts of hiface exchange."""

from hiface.types.camera import Camera
from hiface.types.landmarks import LandmarkSet
from hiface.types.mesh import FaceMesh
from hiface.types.params import FaceParams

__all__ = ["Camera", "FaceMesh", "FaceParams", "LandmarkSet"]
