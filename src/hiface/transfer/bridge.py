# SPDX-License-Identifier: Apache-2.0
"""Bridges: where each vertex of one model lies on another, so that shapes can be written in its numbering.

A bridge holds indices and barycentric weights only, no vertex of either model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hiface.errors import ShapeError, TopologyError
from hiface.geometry.bending import BendingConfig
from hiface.geometry.closest import barycentric_of, closest_on_triangles
from hiface.geometry.oriented import OrientedSurface, normals_of
from hiface.morphable import MorphableModelData
from hiface.morphable.tensor_files import FileKind
from hiface.transfer.register import register
from hiface.types import LandmarkSet

FILE = FileKind(
    "hiface-bridge", "1", "bridge", "hiface models bridge", "make it again with hiface models bridge"
)
TRUSTED_M = 0.003
"""A vertex is trusted if the other surface is nearer than this,"""
TRUSTED_COSINE = 0.5
"""and faces the same way within 60 degrees; on its open border only if it is nearer than `_BORDER_M`."""
_BORDER_M = 0.0005
_SUM_OF_WEIGHTS = 1e-3
_TENSORS = ("triangle_ids", "barycentric", "trusted")


@dataclass(frozen=True)
class Topology:
    """What a bridge knows of a model.

    Attributes:
        name: The model's name.
        version: Its version.
        n_vertices: Number of vertices V.
        triangles: [T, 3] int64.
    """

    name: str
    version: str
    n_vertices: int
    triangles: Tensor

    @staticmethod
    def of(data: MorphableModelData) -> Topology:
        """That of a model."""
        return Topology(data.name, data.version, data.n_vertices, data.triangles)

    def has_mesh_of(self, data: MorphableModelData) -> bool:
        """Whether a model has as many vertices and the same triangles."""
        return data.n_vertices == self.n_vertices and torch.equal(data.triangles, self.triangles)

    def check(self, data: MorphableModelData) -> None:
        """Raises TopologyError if a model is another one."""
        if data.name != self.name or not self.has_mesh_of(data):
            raise TopologyError(
                f"this bridge is for the model {self.name!r} {self.version} with {self.n_vertices:,} "
                f"vertices, got {data.name!r} {data.version} with {data.n_vertices:,}; make one for it "
                "(hiface models bridge)"
            )


@dataclass(frozen=True)
class SurfaceMap:
    """Where N points lie on a mesh.

    Attributes:
        triangle_ids: [N] int64.
        barycentric: [N, 3] float32.
        trusted: [N] bool, False where the mesh has nothing that corresponds.
    """

    triangle_ids: Tensor
    barycentric: Tensor
    trusted: Tensor

    def apply(self, values: Tensor, triangles: Tensor) -> Tensor:
        """Values of vertices [*B, V, C] at the points, [*B, N, C], on the device of `values`."""
        corners = values[..., triangles[self.triangle_ids].to(values.device), :]
        return (corners * self.barycentric.to(values)[..., None]).sum(-2)


@dataclass(frozen=True)
class Bridge:
    """The correspondence of two models' surfaces.

    Attributes:
        source: Model that shapes come from.
        target: Model whose numbering they get.
        to_target: Place on the source of each vertex of the target.
        to_source: Place on the target of each vertex of the source.
    """

    source: Topology
    target: Topology
    to_target: SurfaceMap
    to_source: SurfaceMap

    @property
    def trusted(self) -> Tensor:
        """[Vt] bool, vertices of the target that correspond to something on the source."""
        return self.to_target.trusted

    def vertices(self, source_vertices: Tensor) -> Tensor:
        """A shape of the source in the target's numbering.

        Args:
            source_vertices: [*B, Vs, 3] any space and unit.

        Returns:
            [*B, Vt, 3] points of the source's surface; differentiable. Where `trusted` is False they are only
            the nearest, for example the rim of a neck for all vertices below it.

        Raises:
            TopologyError: Another number of vertices.
        """
        return self.values(source_vertices)

    def values(self, per_vertex: Tensor) -> Tensor:
        """Values of the source's vertices at the target's: colours, masks, whatever can be mixed.

        Args:
            per_vertex: [*B, Vs, C] floating. Of a mask give `mask.float()`: what comes out above 0.5 is in.

        Returns:
            [*B, Vt, C]; differentiable.

        Raises:
            TopologyError: Another number of vertices.
            ShapeError: The values are whole numbers or bools, which cannot be mixed.
        """
        if not per_vertex.is_floating_point():
            raise ShapeError(
                f"expected floating values, got {per_vertex.dtype}; give values.float() (a mask is what is "
                "above 0.5 then)"
            )
        if per_vertex.dim() < 2 or per_vertex.shape[-2] != self.source.n_vertices:
            raise TopologyError(
                f"expected values [*B, {self.source.n_vertices}, C] of the model {self.source.name!r}, got "
                f"{tuple(per_vertex.shape)}; the bridge leads from {self.source.name!r} to "
                f"{self.target.name!r}"
            )
        return self.to_target.apply(per_vertex, self.source.triangles)

    def reversed(self) -> Bridge:
        """The bridge in the other direction."""
        return Bridge(self.target, self.source, self.to_source, self.to_target)

    def landmarks(self, points: LandmarkSet, source: MorphableModelData) -> LandmarkSet:
        """A landmark set of the target on the source; `reversed` leads the other way.

        Args:
            points: L points on the target's triangles.
            source: The source, whose mean shape says which of the triangles around a point is nearest.

        Returns:
            The same L points on the source's triangles, with weights of the source's dtype.

        Raises:
            TopologyError: `source` is another model, or a point lies on a triangle that the target lacks.
        """
        self.source.check(source)
        ids = points.triangle_ids
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(self.target.triangles):
            raise TopologyError(
                f"the landmark set {points.name!r} is not of the model {self.target.name!r}, which has "
                f"{len(self.target.triangles):,} triangles"
            )
        on_source = self.values(source.template.double())
        wanted = (on_source[self.target.triangles[ids]] * points.barycentric.double()[..., None]).sum(1)
        candidates = self.to_target.triangle_ids[self.target.triangles[ids]]
        found = [
            _nearest_around(p, c, source.triangles, source.template.double())
            for p, c in zip(wanted, candidates, strict=True)
        ]
        rows = torch.tensor([triangle for triangle, _ in found], dtype=torch.int64)
        weights = torch.stack([w for _, w in found]) if found else points.barycentric.double()
        return LandmarkSet(points.name, rows, weights.to(source.template.dtype), points.mirror)

    def trusted_landmarks(self, points: LandmarkSet) -> Tensor:
        """[L] bool, which points of the target lie where the source has something that corresponds."""
        return self.trusted[self.target.triangles[points.triangle_ids]].all(-1)


def _nearest_around(
    point: Tensor, candidates: Tensor, triangles: Tensor, vertices: Tensor
) -> tuple[int, Tensor]:
    """The nearest of some triangles and of those that touch them, and the weights there [3]."""
    ids = torch.nonzero(torch.isin(triangles, triangles[candidates].unique()).any(1))[:, 0]
    corners = vertices[triangles[ids]]
    places = closest_on_triangles(point, corners)
    best = int((places - point).square().sum(-1).argmin())
    weights = barycentric_of(places[best][None], corners[best][None])[0].clamp_min(0.0)
    return int(ids[best]), weights / weights.sum()


def make_bridge(
    source: MorphableModelData, target: MorphableModelData, config: BendingConfig | None = None
) -> Bridge:
    """Works out which points of two models correspond.

    The open model, or else the one with fewer vertices, is bent onto the other (`hiface.transfer.register`);
    then each vertex of both looks for its place on the other, near and facing the same way.

    Args:
        source: Model that shapes will come from.
        target: Model whose numbering they will get.
        config: Weights of the bending.

    Returns:
        Bridge.

    Raises:
        ModelFormatError: No face is found on one of them, or they do not look alike.
        FitError: The bending failed.
        MissingExtraError: libigl or scipy is not installed.
    """
    if "open" in (source.name, target.name):
        turn = source.name != "open"
    else:
        turn = source.n_vertices > target.n_vertices
    if turn:
        return make_bridge(target, source, config).reversed()
    bent = register(source, target, config).vertices
    return Bridge(
        Topology.of(source),
        Topology.of(target),
        _places(target.template.double(), target.triangles, bent, source.triangles),
        _places(bent, source.triangles, target.template.double(), target.triangles),
    )


def _places(points: Tensor, triangles: Tensor, vertices: Tensor, onto: Tensor) -> SurfaceMap:
    found = OrientedSurface(vertices, onto).find(points, normals_of(points, triangles))
    trusted = (found.distances < TRUSTED_M) & (found.cosines > TRUSTED_COSINE)
    trusted &= ~found.on_border | (found.distances < _BORDER_M)
    return SurfaceMap(found.triangle_ids, found.barycentric.float(), trusted)


def write_bridge(bridge: Bridge, path: str | Path) -> Path:
    """Writes a bridge whole or not at all: indices, weights, names and vertex counts.

    Args:
        bridge: The bridge.
        path: File to write (.safetensors) or replace.

    Returns:
        The path.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    head: dict[str, dict[str, str | int]] = {}
    for side in ("source", "target"):
        topology: Topology = getattr(bridge, side)
        head[side] = {
            "name": topology.name,
            "version": topology.version,
            "n_vertices": topology.n_vertices,
        }
        tensors[f"{side}.triangles"] = topology.triangles
        places: SurfaceMap = getattr(bridge, f"to_{side}")
        tensors |= {f"to_{side}.{name}": getattr(places, name) for name in _TENSORS}
    return FILE.write(path, tensors, {"models": json.dumps(head)})


def read_bridge(
    path: str | Path,
    source: MorphableModelData | None = None,
    target: MorphableModelData | None = None,
) -> Bridge:
    """Reads a bridge.

    Args:
        path: File of `write_bridge`.
        source: Model that it has to lead from, or None.
        target: Model that it has to lead to, or None. A bridge that leads the other way, by its meshes or
            else by its names, is turned round.

    Returns:
        Bridge.

    Raises:
        ModelFormatError: Damaged, of another kind or of an unknown version.
        TopologyError: It is for other models.
    """
    path = Path(path)
    tensors, meta = FILE.read(path)
    try:
        bridge = _bridge(tensors, json.loads(meta["models"]))
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise FILE.damaged(path, error) from error
    bridge = max(bridge, bridge.reversed(), key=lambda found: _suits(found, source, target))
    for topology, data in ((bridge.source, source), (bridge.target, target)):
        if data is not None:
            topology.check(data)
    return bridge


def _suits(
    bridge: Bridge, source: MorphableModelData | None, target: MorphableModelData | None
) -> tuple[int, int]:
    """At how many ends the mesh of a bridge is that of the wanted model, and the name."""
    ends = [(t, d) for t, d in ((bridge.source, source), (bridge.target, target)) if d is not None]
    return sum(t.has_mesh_of(d) for t, d in ends), sum(t.name == d.name for t, d in ends)


def _bridge(tensors: Mapping[str, Tensor], head: Mapping[str, Mapping[str, str | int]]) -> Bridge:
    sides = {
        side: Topology(
            str(head[side]["name"]),
            str(head[side]["version"]),
            int(head[side]["n_vertices"]),
            tensors[f"{side}.triangles"],
        )
        for side in ("source", "target")
    }
    maps = {
        side: SurfaceMap(*(tensors[f"to_{side}.{name}"] for name in _TENSORS))
        for side in ("source", "target")
    }
    for side, onto in (("source", "target"), ("target", "source")):
        _check_corners(sides[side], side)
        _check_places(maps[side], sides[side].n_vertices, len(sides[onto].triangles), side)
    return Bridge(sides["source"], sides["target"], maps["target"], maps["source"])


def _check_corners(topology: Topology, side: str) -> None:
    triangles, n = topology.triangles, topology.n_vertices
    rows = triangles.dtype == torch.int64 and triangles.dim() == 2 and triangles.shape[1] == 3
    if not rows or not len(triangles) or int(triangles.min()) < 0 or int(triangles.max()) >= n:
        raise ShapeError(f"the triangles of the {side} must be rows of three whole numbers in 0..{n - 1}")


def _check_places(places: SurfaceMap, n: int, n_triangles: int, side: str) -> None:
    ids, weights, trusted = places.triangle_ids, places.barycentric, places.trusted
    if ids.shape != (n,) or weights.shape != (n, 3) or trusted.shape != (n,):
        raise ShapeError(f"to_{side} must have {n} rows")
    if ids.dtype != torch.int64 or trusted.dtype != torch.bool or not weights.is_floating_point():
        raise ShapeError(f"to_{side} must hold whole numbers, weights and bools")
    if int(ids.max()) >= n_triangles or int(ids.min()) < 0:
        raise ShapeError(f"to_{side} points past the mesh")
    inside = bool((weights >= -_SUM_OF_WEIGHTS).all())
    if not inside or not bool(((weights.sum(1) - 1).abs() < _SUM_OF_WEIGHTS).all()):
        raise ShapeError(f"to_{side} has weights that are negative, not finite or do not add up to 1")
