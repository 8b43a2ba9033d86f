# SPDX-License-Identifier: Apache-2.0
"""Packaged files: the open face model, landmark sets, orders and network weights."""

from hiface.assets.loader import asset_path, list_assets, load_json_asset, load_tensors_asset

__all__ = ["asset_path", "list_assets", "load_json_asset", "load_tensors_asset"]
