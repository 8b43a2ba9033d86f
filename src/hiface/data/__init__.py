# SPDX-License-Identifier: Apache-2.0
"""Pictures in, crops and colour."""

from hiface.data.colour import linear_to_srgb, srgb_to_linear, to_uint8
from hiface.data.images import Photo, PhotoStore, StoredPhoto, read_photo

__all__ = ["Photo", "PhotoStore", "StoredPhoto", "linear_to_srgb", "read_photo", "srgb_to_linear", "to_uint8"]
