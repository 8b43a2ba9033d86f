# SPDX-License-Identifier: Apache-2.0
"""Pictures in, and crops of them."""

from hiface.data.images import Photo, PhotoStore, StoredPhoto, read_photo

__all__ = ["Photo", "PhotoStore", "StoredPhoto", "read_photo"]
