# SPDX-License-Identifier: Apache-2.0
"""The byte level of glTF 2.0: buffer views and accessors (dense, sparse, all-zero)."""

from __future__ import annotations

from typing import Any

import numpy as np

from hiface.export.glb_container import GlbContent, pack_glb, pad4

ARRAY_BUFFER = 34962
ELEMENT_ARRAY_BUFFER = 34963
_COMPONENT = {
    np.dtype(np.uint8): 5121,
    np.dtype(np.uint16): 5123,
    np.dtype(np.uint32): 5125,
    np.dtype("<f4"): 5126,
}
_TYPE = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}


class GltfBuilder:
    """Collects binary data and the JSON entries that point into it.

    Attributes:
        accessors: Accessor entries so far.
    """

    def __init__(self) -> None:
        self.accessors: list[dict[str, Any]] = []
        self._views: list[tuple[dict[str, Any], bytearray]] = []
        self._sparse_views: dict[str, int] = {}
        self._zeros: dict[int, int] = {}

    def view(self, content: bytes, target: int | None = None) -> int:
        """Adds a buffer view; returns its index."""
        entry: dict[str, Any] = {} if target is None else {"target": target}
        self._views.append((entry, bytearray(content)))
        return len(self._views) - 1

    def accessor(self, values: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """Adds a dense accessor.

        Args:
            values: [N], [N, 2], [N, 3], [N, 4] or [N, 4, 4] (column-major) of uint8, uint16, uint32 or float.
            target: `ARRAY_BUFFER`, `ELEMENT_ARRAY_BUFFER` or None.
            bounds: Whether to state the smallest and largest values.

        Returns:
            The accessor's index.
        """
        array = np.ascontiguousarray(values if values.dtype.kind == "u" else values.astype("<f4"))
        entry = self._entry(array, bounds)
        entry["bufferView"] = self.view(array.tobytes(), target)
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def sparse(self, values: np.ndarray, keep: np.ndarray, bounds: bool = False) -> int:
        """Adds an accessor that stores only some rows; the others are zero.

        Args:
            values: [N, 3] float.
            keep: [N] bool rows to store.
            bounds: Whether to state the smallest and largest values.

        Returns:
            The accessor's index; all empty ones of the same length are one accessor without data.
        """
        rows = np.flatnonzero(keep)
        count = len(values)
        if len(rows) == 0:
            return self._zero_accessor(count)
        array = np.where(keep[:, None], values, 0.0).astype("<f4")
        index_type = np.dtype("<u2") if count <= 0xFFFF else np.dtype("<u4")
        entry = self._entry(array, bounds)
        entry["sparse"] = {
            "count": len(rows),
            "indices": {
                **self._append("indices", rows.astype(index_type)),
                "componentType": _COMPONENT[index_type],
            },
            "values": self._append("values", array[rows]),
        }
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def _zero_accessor(self, count: int) -> int:
        if count not in self._zeros:
            self.accessors.append(self._entry(np.zeros((count, 3), "<f4"), bounds=True))
            self._zeros[count] = len(self.accessors) - 1
        return self._zeros[count]

    def _append(self, kind: str, array: np.ndarray) -> dict[str, int]:
        if kind not in self._sparse_views:
            self._sparse_views[kind] = self.view(b"")
        index = self._sparse_views[kind]
        content = self._views[index][1]
        offset = len(content)
        content += pad4(array.tobytes())
        return {"bufferView": index, "byteOffset": offset}

    @staticmethod
    def _entry(array: np.ndarray, bounds: bool) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "componentType": _COMPONENT[array.dtype],
            "count": len(array),
            "type": _TYPE[array.shape[1:]],
        }
        if bounds:
            flat = array.reshape(len(array), -1)
            entry["min"] = flat.min(axis=0).astype(float).tolist()
            entry["max"] = flat.max(axis=0).astype(float).tolist()
        return entry

    def to_glb(self, document: dict[str, Any]) -> bytes:
        """Packs a glTF document and the collected data into GLB bytes.

        Args:
            document: glTF JSON without accessors, bufferViews and buffers.

        Returns:
            The content of a .glb file.
        """
        binary = bytearray()
        views = []
        for entry, content in self._views:
            views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(content), **entry})
            binary += pad4(bytes(content))
        full = {
            **document,
            "accessors": self.accessors,
            "bufferViews": views,
            "buffers": [{"byteLength": len(binary)}],
        }
        return pack_glb(GlbContent(full, bytes(binary)))
