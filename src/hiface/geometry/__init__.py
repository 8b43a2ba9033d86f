# SPDX-License-Identifier: Apache-2.0
"""Geometry that knows nothing of faces: rotations, alignment, normals."""
