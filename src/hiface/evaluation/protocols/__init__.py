# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: what each expects on the disk, saves of a prediction and makes of the scores."""
