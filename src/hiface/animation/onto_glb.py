# SPDX-License-Identifier: Apache-2.0
"""Gives a GLB file from anywhere, whose morph targets have ARKit's names, a motion as one more animation.

Meshes, textures, extensions and other animations stay as they are: the JSON is read and written again with
entries added at the ends of its lists, and new numbers go after the end of the binary chunk.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import roma
import torch

from hiface.animation.motion import Motion
from hiface.animation.orders import arkit_name, expression_order, reorder
from hiface.errors import MeshFileError, OptionError, ShapeError
from hiface.export.clips import continuous_quaternions, matrix_to_quaternion
from hiface.export.glb_container import GlbContent, pack_glb, pad4, unpack_glb

_FLOAT = 5126
_CV_TO_GL = np.diag([1.0, -1.0, -1.0])
_MOST_NAMES = 12
_REST = {"translation": (0.0, 0.0, 0.0), "rotation": (0.0, 0.0, 0.0, 1.0), "scale": (1.0, 1.0, 1.0)}


def animate_glb(
    glb: bytes,
    motion: Motion,
    names: Sequence[str] | None = None,
    with_head: bool = False,
    title: str = "hiface motion",
) -> bytes:
    """Adds a motion to a GLB file.

    What other animations of the file move, and the motion does not, gets its rest as a constant: programs
    that go from one animation to another leave it where it was.

    Args:
        glb: The file. The names of its targets are in `extras.targetNames` of meshes or primitives; ARKit's
            own, in any letter case, or with _L and _R (`hiface.animation.orders.arkit_name`). Targets with
            other names keep their weights.
        motion: Expressions 0..1; its first frame is at 0 seconds.
        names: Names of the motion's expressions; ARKit's 52 if None.
        with_head: Also turn the node named head, about its own place; a head at rest must look along +Z, with
            +Y up, as glTF says.
        title: Name of the animation.

    Returns:
        The file with the animation.

    Raises:
        MeshFileError: It is no GLB, is damaged, or has no target with such a name; the message lists those
            that it has.
        OptionError: The head is to be turned, but the file has no node named head, or it has a matrix.
        ShapeError: The head is to be turned, but the motion does not know how; or there is not one name per
            expression.
    """
    names = expression_order("arkit52") if names is None else tuple(names)
    if len(names) != motion.expression.shape[1]:
        raise ShapeError(f"expected {motion.expression.shape[1]} names, got {len(names)}")
    content = unpack_glb(glb)
    try:
        return pack_glb(_with_animation(content, motion, names, with_head, title))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, (OptionError, ShapeError)):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise MeshFileError(f"this GLB is damaged ({reason}); export it again") from error


def _with_animation(
    content: GlbContent, motion: Motion, names: Sequence[str], with_head: bool, title: str
) -> GlbContent:
    document = dict(content.document)
    nodes, meshes = document.get("nodes", []), document.get("meshes", [])
    targets = {i: found for i, mesh in enumerate(meshes) if (found := target_names(mesh)) is not None}
    driven = {i: found for i, found in targets.items() if _driven(found, names)}
    users = [(n, node["mesh"]) for n, node in enumerate(nodes) if node.get("mesh") in driven]
    if not users:
        raise MeshFileError(_no_names(targets))
    store = _Store(document, content.binary)
    times = motion.times.double().numpy() - float(motion.times[0])
    clock = store.accessor(times, bounds=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []

    def add(node: int, path: str, output: int) -> None:
        channels.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
        samplers.append({"input": clock, "output": output, "interpolation": "LINEAR"})

    done: dict[tuple[int, bytes], int] = {}
    for n, mesh in users:
        values = _weights(motion, names, driven[mesh], nodes[n].get("weights", meshes[mesh].get("weights")))
        key = (mesh, values.tobytes())
        if key not in done:
            done[key] = store.accessor(values.ravel())
        add(n, "weights", done[key])
    if with_head:
        n, quaternions = _head(nodes, motion)
        add(n, "rotation", store.accessor(quaternions))
    held = _held(document, {(c["target"]["node"], c["target"]["path"]) for c in channels})
    if held:
        clock = store.accessor(np.zeros(1), bounds=True)
    for (n, path), values in held.items():
        add(n, path, store.accessor(values))
    animation = {"name": title, "channels": channels, "samplers": samplers}
    document["animations"] = [*document.get("animations", []), animation]
    return GlbContent(store.finished(), store.binary, content.others)


def target_names(mesh: dict[str, Any]) -> list[str] | None:
    """Names of a mesh's morph targets, or None where it has no targets or no names for them.

    Args:
        mesh: Entry of a glTF document.

    Returns:
        One name per target.
    """
    primitives = mesh.get("primitives", [])
    count = len(primitives[0].get("targets", [])) if primitives else 0
    for holder in (mesh, *primitives):
        extras = holder.get("extras")
        found = extras.get("targetNames") if isinstance(extras, dict) else None
        if isinstance(found, list) and count and len(found) == count:
            return [str(name) for name in found]
    return None


def _driven(targets: Sequence[str], names: Sequence[str]) -> bool:
    shapes = {arkit_name(name) for name in names} - {None}
    return any(arkit_name(name) in shapes for name in targets)


def _no_names(targets: dict[int, list[str]]) -> str:
    found = sorted({name for names in targets.values() for name in names})
    if not found:
        return "this GLB has no morph targets with names; export them with extras.targetNames"
    shown = ", ".join(found[:_MOST_NAMES]) + (" ..." if len(found) > _MOST_NAMES else "")
    return f"no morph target of this GLB has an ARKit name such as jawOpen; it has {shown}; rename them"


def _weights(motion: Motion, names: Sequence[str], targets: Sequence[str], rest: Any) -> np.ndarray:
    """[N, T] values; targets that the motion does not know keep `rest` (0 where the file has none)."""
    values = reorder(motion.expression.double(), names, targets).clamp(0, 1).numpy()
    shapes = {arkit_name(name) for name in names} - {None}
    for i, name in enumerate(targets):
        if arkit_name(name) not in shapes and name not in names:
            values[:, i] = float(rest[i]) if i < len(rest or []) else 0.0
    return values


def _head(nodes: Sequence[dict[str, Any]], motion: Motion) -> tuple[int, np.ndarray]:
    """The head's node, and its rotations [N, 4] relative to its parent."""
    if motion.R_cam_head is None:
        raise ShapeError(
            "this motion has no head rotation; record it with head rotation or leave the head still"
        )
    found = [i for i, node in enumerate(nodes) if _plain(str(node.get("name", ""))) == "head"]
    found.sort(key=lambda i: "mesh" in nodes[i])
    if not found:
        shown = ", ".join(str(node.get("name", "?")) for node in nodes[:_MOST_NAMES])
        raise OptionError(
            f"this GLB has no node named head, only {shown}; rename one or leave the head still"
        )
    head = found[0]
    if "matrix" in nodes[head]:
        raise OptionError("the head's node has a matrix, which cannot be animated; export it as rotation")
    parents = {child: i for i, node in enumerate(nodes) for child in node.get("children", [])}
    above, at = np.eye(3), head
    for _ in nodes:
        if at not in parents:
            break
        at = parents[at]
        above = _rotation(nodes[at]) @ above
    R = _CV_TO_GL @ motion.R_cam_head.double().numpy()
    local = above.T @ R @ above @ _rotation(nodes[head])
    return head, continuous_quaternions(matrix_to_quaternion(local))


def _held(document: dict[str, Any], moved: set[tuple[int, str]]) -> dict[tuple[int, str], np.ndarray]:
    """Rest by node and path of what the document's animations move, but for what is moved anyway."""
    held = {}
    for channel in (c for animation in document.get("animations", []) for c in animation["channels"]):
        n, path = (channel["target"].get(key) for key in ("node", "path"))
        if n is None or (n, path) in moved or path not in ("weights", *_REST):
            continue
        node = document["nodes"][n]
        if path == "weights":
            mesh = document["meshes"][node["mesh"]]
            count = len(mesh["primitives"][0]["targets"])
            held[n, path] = np.array(node.get(path, mesh.get(path, [0.0] * count)))
        else:
            held[n, path] = np.array([node.get(path, _REST[path])])
    return held


def _plain(name: str) -> str:
    return name.replace(":", ".").rsplit(".", 1)[-1].strip().lower()


def _rotation(node: dict[str, Any]) -> np.ndarray:
    """[3, 3] rotation of a node relative to its parent."""
    if "matrix" in node:
        columns = torch.tensor(node["matrix"], dtype=torch.float64).reshape(4, 4)[:3, :3].T
        return np.asarray(roma.special_procrustes(columns))
    quaternion = torch.tensor(node.get("rotation", [0.0, 0.0, 0.0, 1.0]), dtype=torch.float64)
    return roma.unitquat_to_rotmat(quaternion / quaternion.norm().clamp_min(1e-12)).numpy()


class _Store:
    """Appends accessors to a document; collects their bytes behind what the file has.

    Attributes:
        binary: The binary chunk so far, or None.
    """

    def __init__(self, document: dict[str, Any], binary: bytes | None) -> None:
        self._document = document
        self._accessors = list(document.get("accessors", []))
        self._views = list(document.get("bufferViews", []))
        self._buffers: list[dict[str, Any]] = [dict(buffer) for buffer in document.get("buffers", [])]
        # The chunk belongs to the first buffer if that has no address; else the numbers get their own buffer.
        self._in_chunk = not self._buffers or (binary is not None and "uri" not in self._buffers[0])
        self._new = bytearray(pad4(binary or b"") if self._in_chunk else b"")
        if not self._buffers:
            self._buffers = [{"byteLength": 0}]
        elif not self._in_chunk:
            self._buffers.append({"byteLength": 0})
        self._buffer = 0 if self._in_chunk else len(self._buffers) - 1
        self.binary = binary

    def accessor(self, values: np.ndarray, bounds: bool = False) -> int:
        array = np.ascontiguousarray(values, "<f4")
        view = {"buffer": self._buffer, "byteOffset": len(self._new), "byteLength": array.nbytes}
        self._new += array.tobytes()
        self._views.append(view)
        entry: dict[str, Any] = {
            "bufferView": len(self._views) - 1,
            "componentType": _FLOAT,
            "count": len(array),
            "type": "SCALAR" if array.ndim == 1 else f"VEC{array.shape[1]}",
        }
        if bounds:
            entry |= {"min": [float(array.min())], "max": [float(array.max())]}
        self._accessors.append(entry)
        return len(self._accessors) - 1

    def finished(self) -> dict[str, Any]:
        buffer = self._buffers[self._buffer]
        buffer["byteLength"] = len(self._new)
        if self._in_chunk:
            self.binary = bytes(self._new)
        else:
            text = base64.b64encode(self._new).decode("ascii")
            buffer["uri"] = f"data:application/octet-stream;base64,{text}"
        return self._document | {
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": self._buffers,
        }
