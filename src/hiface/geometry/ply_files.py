# SPDX-License-Identifier: Apache-2.0
"""Parses .ply meshes, text and binary: vertices in the file's order and polygons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hiface.errors import MeshFileError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_LONGEST_HEADER = 1 << 16


@dataclass(frozen=True)
class _Property:
    """A column, or a list with the type of its length."""

    name: str
    kind: str
    length_kind: str | None = None


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: tuple[_Property, ...]


def parse_ply(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Reads a mesh.

    Args:
        path: The file.

    Returns:
        [V, 3] float64 vertices, and the corners of each polygon, int64.

    Raises:
        MeshFileError: Missing, damaged, cut short or without coordinates.
    """
    if not path.is_file():
        raise MeshFileError(f"{path} cannot be read; check its name")
    raw = path.read_bytes()
    try:
        order, elements, start = _header(raw)
        read = _text_tables if order == "" else _binary_tables
        tables = read(raw[start:], elements, order)
        columns = tables["vertex"]
        vertices = np.stack([np.asarray(columns[axis], dtype=np.float64) for axis in "xyz"], axis=1)
        lists = tables.get("face", {})
        polygons = next((lists[n] for n in ("vertex_indices", "vertex_index") if n in lists), [])
    except (ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise MeshFileError(f"{path} is damaged or not a .ply mesh ({error})") from error
    return vertices, [np.asarray(polygon, dtype=np.int64) for polygon in polygons]


def _header(raw: bytes) -> tuple[str, list[_Element], int]:
    end = raw.find(b"end_header", 0, _LONGEST_HEADER)
    if not raw.startswith(b"ply") or end < 0:
        raise ValueError("there is no whole header")
    start = raw.index(b"\n", end) + 1
    order, elements = "", []
    for line in raw[:end].decode("ascii").splitlines():
        words = line.split()
        if words[:1] == ["format"]:
            order = _ORDERS[words[1]]
        elif words[:1] == ["element"]:
            elements.append(_Element(words[1], int(words[2]), ()))
        elif words[:1] == ["property"]:
            listed = words[1] == "list"
            kinds = (_TYPES[words[3]], _TYPES[words[2]]) if listed else (_TYPES[words[1]], None)
            last = elements.pop()
            elements.append(_Element(last.name, last.count, (*last.properties, _Property(words[-1], *kinds))))
    return order, elements, start


def _text_tables(body: bytes, elements: list[_Element], order: str) -> dict[str, dict[str, list]]:
    lines = iter(line for line in body.decode("ascii").splitlines() if line.strip())
    tables: dict[str, dict[str, list]] = {}
    for element in elements:
        columns: dict[str, list] = {p.name: [] for p in element.properties}
        for _ in range(element.count):
            line = next(lines, None)
            if line is None:
                raise ValueError(f"the file ends within its elements {element.name!r}")
            words = iter(line.split())
            for p in element.properties:
                if p.length_kind is None:
                    columns[p.name].append(float(next(words, "?")))
                else:
                    columns[p.name].append([int(next(words, "?")) for _ in range(int(next(words, "?")))])
        tables[element.name] = columns
    return tables


def _binary_tables(body: bytes, elements: list[_Element], order: str) -> dict[str, dict]:
    tables: dict[str, dict] = {}
    place = 0
    for element in elements:
        if all(p.length_kind is None for p in element.properties):
            kind = np.dtype([(p.name, order + p.kind) for p in element.properties])
            rows = np.frombuffer(body, kind, element.count, place)
            place += kind.itemsize * element.count
            tables[element.name] = {p.name: rows[p.name] for p in element.properties}
        else:
            columns: dict[str, list] = {p.name: [] for p in element.properties}
            for _ in range(element.count):
                for p in element.properties:
                    count = 1
                    if p.length_kind is not None:
                        size = np.frombuffer(body, order + p.length_kind, 1, place)
                        place, count = place + size.itemsize, int(size[0])
                    values = np.frombuffer(body, order + p.kind, count, place)
                    place += values.nbytes
                    columns[p.name].append(values if p.length_kind is not None else values[0])
            tables[element.name] = columns
    return tables
