# SPDX-License-Identifier: Apache-2.0
"""The `hiface` command."""
