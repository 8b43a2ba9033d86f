# SPDX-License-Identifier: Apache-2.0
"""Points, curves and distances on the head's triangles, exactly mirror-symmetric."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

Point = tuple[int, np.ndarray]
"""A surface point: triangle id and its ``[3]`` barycentric weights."""


@dataclass(frozen=True)
class Surface:
    """A mesh with the look-ups that landmark building needs.

    Attributes:
        vertices: ``[V, 3]`` metres.
        triangles: ``[T, 3]`` int64.
        parts: ``[T]`` int64 into ``part_names``.
        part_names: names of the parts.
        mirror: ``[V]`` int64, mirrored vertex.
        mirror_triangle: ``[T]`` int64, mirrored triangle.
        incident: vertex → ids of its triangles.
        of_source: source vertex id → vertex.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    parts: np.ndarray
    part_names: tuple[str, ...]
    mirror: np.ndarray
    mirror_triangle: np.ndarray
    incident: dict[int, list[int]]
    of_source: dict[int, int]

    @classmethod
    def from_base(cls, base: dict[str, Any]) -> Surface:
        """Builds the look-ups from the head mesh dictionary."""
        triangles, mirror = base["triangles"], base["mirror_vertices"]
        key = {tuple(sorted(t)): i for i, t in enumerate(triangles.tolist())}
        flipped = np.array([key[tuple(sorted(t))] for t in mirror[triangles].tolist()])
        incident: dict[int, list[int]] = defaultdict(list)
        for i, t in enumerate(triangles.tolist()):
            for v in t:
                incident[v].append(i)
        of_source = {int(s): i for i, s in enumerate(base["source_ids"])}
        names = tuple(str(n) for n in base["part_names"])
        parts = np.asarray(base["triangle_parts"])
        return cls(base["template"], triangles, parts, names, mirror, flipped, dict(incident), of_source)

    def part_triangles(self, name: str) -> np.ndarray:
        """Ids of the triangles of one part."""
        return np.flatnonzero(self.parts == self.part_names.index(name))

    def part_vertices(self, name: str) -> np.ndarray:
        """Sorted vertex ids of one part."""
        return np.unique(self.triangles[self.part_triangles(name)])

    def position(self, point: Point) -> np.ndarray:
        """``[3]`` position of a surface point."""
        return point[1] @ self.vertices[self.triangles[point[0]]]

    def positions(self, points: list[Point]) -> np.ndarray:
        """``[L, 3]`` positions of several surface points."""
        return np.stack([self.position(p) for p in points])

    def mirrored(self, point: Point) -> Point:
        """The exact mirror image of a surface point."""
        source = self.mirror[self.triangles[point[0]]].tolist()
        target = int(self.mirror_triangle[point[0]])
        order = [source.index(v) for v in self.triangles[target].tolist()]
        return target, point[1][order]

    def on_edge(self, a: int, b: int, t: float) -> Point:
        """The point ``(1 - t) a + t b`` on a mesh edge, on the skin's triangle if there is one."""
        shared = [i for i in self.incident[a] if b in self.triangles[i]]
        if not shared:
            raise ValueError(f"vertices {a} and {b} share no triangle")
        best = min(shared, key=lambda i: (self.parts[i] != self.part_names.index("skin"), i))
        weights = np.zeros(3)
        corners = self.triangles[best].tolist()
        weights[corners.index(a)] += 1.0 - t
        weights[corners.index(b)] += t
        return best, weights

    def at_vertex(self, vertex: int) -> Point:
        """A vertex as a surface point, on the skin if it touches it."""
        best = min(self.incident[vertex], key=lambda i: (self.parts[i] != self.part_names.index("skin"), i))
        return best, (self.triangles[best] == vertex).astype(np.float64)

    def closest(self, target: np.ndarray, triangle_ids: np.ndarray) -> Point:
        """The point of some triangles that lies nearest to ``target`` ``[3]``."""
        corners = self.vertices[self.triangles[triangle_ids]]
        near = np.argsort(np.linalg.norm(corners.mean(axis=1) - target, axis=1))[:64]
        best, best_distance = (0, np.zeros(3)), np.inf
        for i in triangle_ids[near].tolist():
            weights = closest_barycentric(target, self.vertices[self.triangles[i]])
            distance = float(np.linalg.norm(weights @ self.vertices[self.triangles[i]] - target))
            if distance < best_distance - 1e-12:
                best, best_distance = (i, weights), distance
        return best

    def normal(self, point: Point) -> np.ndarray:
        """``[3]`` unit normal of the point's triangle."""
        a, b, c = self.vertices[self.triangles[point[0]]]
        n = np.cross(b - a, c - a)
        return n / np.linalg.norm(n)

    def edge_graph(self, triangle_ids: np.ndarray, blocked: np.ndarray | None = None) -> Any:
        """``[V, V]`` sparse edge lengths of some triangles, without edges at ``blocked`` (``[V]`` bool)."""
        t = self.triangles[triangle_ids]
        edges = np.unique(np.sort(np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]]), axis=1), axis=0)
        if blocked is not None:
            edges = edges[~blocked[edges].any(axis=1)]
        length = np.linalg.norm(self.vertices[edges[:, 0]] - self.vertices[edges[:, 1]], axis=1)
        n = len(self.vertices)
        return coo_matrix((length, (edges[:, 0], edges[:, 1])), shape=(n, n)).tocsr()

    def flood(self, triangle_ids: np.ndarray, seed: int, blocked: np.ndarray) -> np.ndarray:
        """``[V]`` bool: vertices reached from ``seed`` without stepping on ``blocked`` vertices."""
        return np.isfinite(dijkstra(self.edge_graph(triangle_ids, blocked), directed=False, indices=seed))

    def path(self, triangle_ids: np.ndarray, start: int, end: int) -> list[int]:
        """Vertices of the shortest way along edges, both ends included."""
        graph = self.edge_graph(triangle_ids)
        _, before = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
        way = [end]
        while way[-1] != start:
            way.append(int(before[way[-1]]))
            if way[-1] < 0:
                raise ValueError(f"no way from vertex {start} to {end}")
        return way[::-1]


def closest_barycentric(target: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric weights of the point of a triangle (``[3, 3]``) nearest to ``target``."""
    a, b, c = corners
    basis = np.stack([b - a, c - a], axis=1)
    u, v = np.linalg.lstsq(basis, target - a, rcond=None)[0]
    inside = np.array([1.0 - u - v, u, v])
    if (inside >= 0.0).all():
        return inside
    best, best_distance = inside, np.inf
    for i, j in ((0, 1), (1, 2), (2, 0)):
        edge = corners[j] - corners[i]
        t = float(np.clip((target - corners[i]) @ edge / (edge @ edge), 0.0, 1.0))
        distance = float(np.linalg.norm(corners[i] + t * edge - target))
        if distance < best_distance:
            best, best_distance = np.zeros(3), distance
            best[i], best[j] = 1.0 - t, t
    return best


def along_chain(surface: Surface, chain: list[int], at: float, by_chord: bool = False) -> Point:
    """The point at a fraction of a chain of neighbouring vertices.

    Args:
        surface: the mesh.
        chain: vertex ids, each an edge away from the next.
        at: 0 at the first vertex … 1 at the last.
        by_chord: measure the fraction along the straight line from the first to the last vertex instead of
            along the chain.
    """
    p = surface.vertices[chain]
    if by_chord:
        axis = p[-1] - p[0]
        measure = (p - p[0]) @ axis / (axis @ axis)
    else:
        measure = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(p, axis=0), axis=1))])
        measure = measure / measure[-1]
    k = int(np.flatnonzero(measure[1:] >= at - 1e-12)[0])
    t = (at - measure[k]) / (measure[k + 1] - measure[k])
    return surface.on_edge(chain[k], chain[k + 1], float(np.clip(t, 0.0, 1.0)))


def section(surface: Surface, triangle_ids: np.ndarray, start: Point, end: Point) -> list[list[Point]]:
    """The curve from ``start`` to ``end`` where a plane through both cuts the surface.

    The plane contains the straight line between the points and the mean of their normals.

    Returns:
        Segments: pairs of points that lie in the same triangle, in order.
    """
    a, b = surface.position(start), surface.position(end)
    normal = np.cross(b - a, surface.normal(start) + surface.normal(end))
    height = (surface.vertices - a) @ (normal / np.linalg.norm(normal))
    crossing = {i: _cuts(surface, i, height) for i in triangle_ids.tolist()}
    by_edge: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, cuts in crossing.items():
        for edge in cuts:
            by_edge[edge].append(i)
    segments: list[list[Point]] = []
    exits = sorted(crossing[start[0]], key=lambda e: float((_cut_position(surface, e, height) - a) @ (b - a)))
    edge, triangle, here = exits[-1], start[0], start
    for _ in range(len(triangle_ids)):
        if triangle == end[0]:
            segments.append([here, end])
            return segments
        segments.append([here, _cut_point(surface, triangle, edge, height)])
        following = [i for i in by_edge[edge] if i != triangle]
        if not following:
            break
        triangle = following[0]
        here = _cut_point(surface, triangle, edge, height)
        edge = next(e for e in crossing[triangle] if e != edge)
    raise ValueError("the plane's cut does not reach the end point")


def _cuts(surface: Surface, triangle: int, height: np.ndarray) -> list[tuple[int, int]]:
    t = surface.triangles[triangle].tolist()
    pairs = ((t[0], t[1]), (t[1], t[2]), (t[2], t[0]))
    return [(min(e), max(e)) for e in pairs if (height[e[0]] > 0) != (height[e[1]] > 0)]


def _cut_position(surface: Surface, edge: tuple[int, int], height: np.ndarray) -> np.ndarray:
    t = height[edge[0]] / (height[edge[0]] - height[edge[1]])
    return (1 - t) * surface.vertices[edge[0]] + t * surface.vertices[edge[1]]


def _cut_point(surface: Surface, triangle: int, edge: tuple[int, int], height: np.ndarray) -> Point:
    t = height[edge[0]] / (height[edge[0]] - height[edge[1]])
    corners = surface.triangles[triangle].tolist()
    weights = np.zeros(3)
    weights[corners.index(edge[0])], weights[corners.index(edge[1])] = 1 - t, t
    return triangle, weights


def resample(surface: Surface, segments: list[list[Point]], count: int) -> list[Point]:
    """``count`` points at equal distances along a curve made of in-triangle segments, both ends included."""
    ends = [(surface.position(a), surface.position(b)) for a, b in segments]
    length = np.array([np.linalg.norm(b - a) for a, b in ends])
    total = np.concatenate([[0.0], np.cumsum(length)])
    points: list[Point] = []
    for s in np.linspace(0.0, total[-1], count):
        k = min(int(np.searchsorted(total, s, side="right")) - 1, len(segments) - 1)
        t = float(np.clip((s - total[k]) / max(length[k], 1e-12), 0.0, 1.0))
        (triangle, first), (_, second) = segments[k]
        points.append((triangle, (1 - t) * first + t * second))
    return points
