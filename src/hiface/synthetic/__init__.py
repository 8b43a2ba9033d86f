# SPDX-License-Identifier: Apache-2.0
"""Labelled pictures of people who do not exist."""

from hiface.synthetic.streaming import stream

__all__ = ["stream"]
