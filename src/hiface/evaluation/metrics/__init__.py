# SPDX-License-Identifier: Apache-2.0
"""Errors of meshes against scans and against shapes with true correspondence."""
