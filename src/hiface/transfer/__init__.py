# SPDX-License-Identifier: Apache-2.0
"""From one face model to another: landmarks found on any head, bridges between meshes, missing parts."""

from hiface.transfer.bridge import Bridge, make_bridge, read_bridge, write_bridge
from hiface.transfer.complete import complete_model, completed, is_complete
from hiface.transfer.find_landmarks import FoundPoints, find_landmarks

__all__ = [
    "Bridge",
    "FoundPoints",
    "complete_model",
    "completed",
    "find_landmarks",
    "is_complete",
    "make_bridge",
    "read_bridge",
    "write_bridge",
]
