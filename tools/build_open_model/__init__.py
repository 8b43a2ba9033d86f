# SPDX-License-Identifier: Apache-2.0
"""Builds the open face model from CC0 data; run as ``python -m tools.build_open_model``."""
