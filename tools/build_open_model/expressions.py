# SPDX-License-Identifier: Apache-2.0
"""The 52 expressions, from the source's face units, with their known faults repaired."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from .basis import part_mask
from .eyelids import find_rings, keep_clear, rebuild_blink
from .mesh import DECIMETRE, HeadMesh
from .mpfb2 import BodyMesh, SourceData, read_target

UPPER_FACE = ("brow", "cheekSquint", "eye", "nose")
"""Units of the upper face; they must leave the inside of the mouth alone."""

LID_MOVERS = ("eye", "cheekSquint", "browDown", "noseSneer")
"""Units that move the lids; they must not push them into the eyeball."""

SOFTENING = {
    "mouthSmile": 10,
    "mouthDimple": 8,
    "mouthStretch": 6,
    "mouthFrown": 4,
    "mouthPress": 4,
    "mouthPucker": 4,
    "mouthFunnel": 4,
    "mouthLeft": 4,
    "mouthRight": 4,
    "cheekPuff": 8,
    "cheekSquint": 4,
}
"""Smoothing steps per group of units."""
SHARP_RINGS = 3
"""Rings around the mouth that keep their sculpted shape."""

TONGUE_REACH = 1.3
"""Makes up for the tongue's place further back in the mouth than in the source."""

TONGUE_LIFT = 0.006
"""How far the tongue's tip rises beyond the source's motion, metres, so that it passes over the lower lip."""

FLIP = np.array([-1.0, 1.0, 1.0])


def build_expressions(
    source: SourceData, body: BodyMesh, head: HeadMesh, scale: float, template: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray]:
    """Reads and repairs the 52 face units.

    Args:
        source: where the files lie.
        body: the base mesh.
        head: the head's connectivity.
        scale: the model's global scale.
        template: ``[V, 3]`` mean head, metres.

    Returns:
        The ARKit names in alphabetical order and ``[52, V, 3]`` float64 displacements in metres; left and
        right units are exact mirror images, the others exactly symmetric.
    """
    paths = source.expression_paths()
    names = tuple(sorted(paths))
    if len(names) != 52:
        raise ValueError(f"expected 52 face units, found {len(names)} under {source.root / 'faceunits01'}")
    raw = np.stack([read_target(paths[name], len(body.vertices))[head.source_ids] for name in names])
    basis = raw.astype(np.float64) * (DECIMETRE * scale)
    basis = mirror_pairs(names, _repair(names, basis, head), head.mirror_vertices)
    basis = _soften(names, basis, head)
    rings = find_rings(head, template)
    blink = names.index("eyeBlinkLeft")
    basis[blink] = rebuild_blink(head, rings, template, basis[blink])
    for name in names:
        if name.startswith(LID_MOVERS) and name.endswith("Left"):
            left, right = names.index(name), names.index(mirror_name(name))
            basis[left] = keep_clear(head, rings, template, basis[left])
            basis[right] = basis[left][head.mirror_vertices] * FLIP
    return names, basis


def _soften(names: tuple[str, ...], basis: np.ndarray, head: HeadMesh) -> np.ndarray:
    """Smooths the motion of cheek and chin away from the lips; the source has hard folds there."""
    count = basis.shape[1]
    average = smoothing_operator(head.triangles, count)
    skin = np.zeros(count)
    skin[head.part_vertices("skin")] = 1.0
    hops = _hops_from(head.part_vertices("mouth_interior"), average, count, limit=8)
    amount = 0.5 * skin * np.clip((hops - SHARP_RINGS) / 4.0, 0.0, 1.0)
    out = basis.copy()
    for i, name in enumerate(names):
        for _ in range(next((n for prefix, n in SOFTENING.items() if name.startswith(prefix)), 0)):
            out[i] += amount[:, None] * (average @ out[i] - out[i])
    return out


def _hops_from(start: np.ndarray, average: csr_matrix, count: int, limit: int) -> np.ndarray:
    """Number of edges from a set of vertices, at most ``limit``, ``[V]``."""
    hops = np.full(count, float(limit))
    reached = np.zeros(count)
    reached[start] = 1.0
    for step in range(limit):
        hops[(reached > 0) & (hops == limit)] = step
        reached = average @ reached + reached
    return hops


def _repair(names: tuple[str, ...], basis: np.ndarray, head: HeadMesh) -> np.ndarray:
    count = basis.shape[1]
    eyeballs = part_mask(head, ("eye_left", "eye_right"), count)
    inner_mouth = part_mask(head, ("mouth_interior", "teeth_upper", "teeth_lower", "tongue"), count)
    upper_teeth = part_mask(head, ("teeth_upper",), count)
    sockets = {side: part_mask(head, (f"socket_{side}",), count) for side in ("left", "right")}
    basis = basis.copy()
    basis[:, eyeballs] = 0.0
    basis[:, upper_teeth] = 0.0
    for i, name in enumerate(names):
        if name.startswith(UPPER_FACE):
            basis[i, inner_mouth] = 0.0
        if name.endswith("Left"):
            basis[i, sockets["right"]] = 0.0
        if name.endswith("Right"):
            basis[i, sockets["left"]] = 0.0
    tongue = names.index("tongueOut")
    basis[tongue] *= TONGUE_REACH
    basis[tongue] = _lifted(basis[tongue], part_mask(head, ("tongue",), count))
    return basis


def _lifted(motion: np.ndarray, tongue: np.ndarray) -> np.ndarray:
    """The tongue's motion, raised in proportion to how far each vertex moves."""
    distance = np.linalg.norm(motion, axis=1) * tongue
    out = motion.copy()
    out[:, 1] += TONGUE_LIFT * distance / distance.max()
    return out


def mirror_name(name: str) -> str:
    """The name of the mirrored expression: Left ↔ Right, others themselves."""
    if name.endswith("Left"):
        return name[:-4] + "Right"
    return name[:-5] + "Left" if name.endswith("Right") else name


def mirror_pairs(names: tuple[str, ...], basis: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Makes left and right units exact mirror images by averaging each with its mirrored partner."""
    partner = [names.index(mirror_name(name)) for name in names]
    return 0.5 * (basis + (basis[:, mirror] * FLIP)[partner])


def smoothing_operator(triangles: np.ndarray, count: int) -> csr_matrix:
    """Row-normalised vertex adjacency A, ``[V, V]``; uniform smoothing is ``x ← x + t (A x - x)``."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    both = np.concatenate([edges, edges[:, ::-1]])
    degree = np.bincount(both[:, 0], minlength=count)
    values = 1.0 / degree[both[:, 0]]
    return csr_matrix((values, (both[:, 0], both[:, 1])), shape=(count, count))
