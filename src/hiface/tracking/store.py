# SPDX-License-Identifier: Apache-2.0
"""What was seen in a video, on disk while it is tracked, so that an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hiface.atomic import atomic_write_bytes
from hiface.data.images import IMAGE_SUFFIXES
from hiface.networks.detect import Detection
from hiface.tracking.sightings import Followed, Sighting, WatchState
from hiface.types import Camera, FaceParams

_VERSION = 3
_CHUNK = 100  # frames


@dataclass
class Seen:
    """Frames seen so far.

    Attributes:
        times_s: Of all of them.
        sightings: Faces in them, in order.
        state: Of the watcher after the last of them.
    """

    times_s: list[float] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    state: WatchState = field(default_factory=WatchState)

    def add(self, time_s: float, found: Sequence[Sighting], state: WatchState) -> None:
        """Counts a frame as seen."""
        self.sightings += found
        self.state = state
        self.times_s.append(time_s)


class SightingStore:
    """Writes what is seen in pieces of some frames; each piece appears whole or not at all.

    Args:
        folder: Where; None keeps nothing.
        key: What the frames and the answers depend on; a store of another key is not read.
    """

    def __init__(self, folder: Path | None, key: dict[str, Any]) -> None:
        self._folder, self._key = folder, json.dumps({**key, "version": _VERSION}, sort_keys=True)
        self._written, self._pieces, self._before = 0, 0, 0

    def load(self) -> Seen:
        """What an earlier run with the same key has seen; pieces of other runs are deleted."""
        seen = Seen()
        while self._folder is not None:
            path = self._path(self._pieces)
            try:
                with safe_open(path, framework="pt") as file:
                    notes = file.metadata() or {}
                    if notes.get("key") != self._key:
                        break
                    tensors = {name: file.get_tensor(name) for name in file.keys()}
            except (OSError, SafetensorError):
                break
            seen.times_s += json.loads(notes["times_s"])
            seen.sightings += _unpacked(tensors, json.loads(notes["camera"]))
            seen.state = _state(tensors, json.loads(notes["state"]), seen.sightings)
            self._pieces += 1
        for path in self._paths()[self._pieces :]:
            path.unlink(missing_ok=True)
        self._written, self._before = len(seen.times_s), len(seen.sightings)
        return seen

    def keep(self, seen: Seen, last: bool = False) -> None:
        """Writes the frames since the last piece if they are enough for one, or if they are the last."""
        fresh = len(seen.times_s) - self._written
        if self._folder is None or fresh == 0 or (fresh < _CHUNK and not last):
            return
        sightings = seen.sightings[self._before :]
        size = [sightings[0].read.camera.width, sightings[0].read.camera.height] if sightings else [1, 1]
        notes = {
            "key": self._key,
            "times_s": json.dumps(seen.times_s[self._written :]),
            "state": json.dumps([getattr(seen.state, name) for name in _STATE]),
            "camera": json.dumps(size),
        }
        tensors = _packed(sightings) | _packed_state(seen.state)
        atomic_write_bytes(self._path(self._pieces), save(tensors, notes))
        self._pieces += 1
        self._written, self._before = len(seen.times_s), len(seen.sightings)

    def remove(self) -> None:
        """Deletes the pieces."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in self._paths():
            path.unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _paths(self) -> list[Path]:
        return [] if self._folder is None else sorted(self._folder.glob("seen_*.safetensors"))

    def _path(self, piece: int) -> Path:
        assert self._folder is not None
        return self._folder / f"seen_{piece:05d}.safetensors"


_DETECTION = tuple(f.name for f in fields(Detection) if f.name != "score")
_PARAMS = ("identity", "expression", "pose", "albedo", "light", "static")
_STATE = ("tracklets", "searched_s", "lost_s", "idle")


def _packed(sightings: Sequence[Sighting]) -> dict[str, Tensor]:
    numbers = [[s.tracklet, s.frame, s.time_s, s.detection.score] for s in sightings]
    tensors = {"numbers": torch.tensor(numbers, dtype=torch.float64).reshape(-1, 4)}
    if not sightings:
        return tensors
    for name in _DETECTION:
        tensors[f"detection.{name}"] = torch.stack([getattr(s.detection, name) for s in sightings])
    for name in _PARAMS:
        values = [getattr(s.read, name) for s in sightings]
        if all(value is not None for value in values):
            tensors[f"read.{name}"] = torch.stack(values)
    sizes = {len(s.trace) for s in sightings if s.trace is not None}
    if sizes:
        nothing = torch.full((sizes.pop(),), torch.nan)
        tensors["trace"] = torch.stack([nothing if s.trace is None else s.trace for s in sightings])
    tensors["camera.K"] = torch.stack([s.read.camera.K for s in sightings])
    tensors["camera.T_cam_object"] = torch.stack([s.read.camera.T_cam_object for s in sightings])
    return {name: value.contiguous() for name, value in tensors.items()}


def _unpacked(tensors: dict[str, Tensor], size: Sequence[int]) -> list[Sighting]:
    found = []
    for i, (tracklet, frame, time_s, score) in enumerate(tensors["numbers"].tolist()):
        parts = {name: tensors[f"detection.{name}"][i] for name in _DETECTION}
        coefficients = {n: tensors[f"read.{n}"][i] for n in _PARAMS if f"read.{n}" in tensors}
        camera = Camera(tensors["camera.K"][i], tensors["camera.T_cam_object"][i], size[0], size[1])
        read = FaceParams(**coefficients, camera=camera)
        trace = tensors["trace"][i] if "trace" in tensors else None
        detection = Detection(score=score, **parts)
        found.append(Sighting(int(tracklet), int(frame), time_s, detection, read, trace))
    return found


def _packed_state(state: WatchState) -> dict[str, Tensor]:
    if not state.followed:
        return {}
    return {
        "followed.velocity_px": torch.stack([torch.from_numpy(f.velocity_px) for f in state.followed]),
        "followed.likeness": torch.stack([f.likeness for f in state.followed]),
        "followed.numbers": torch.tensor([[f.count, f.strikes] for f in state.followed]),
    }


def _state(tensors: dict[str, Tensor], numbers: Sequence[Any], sightings: Sequence[Sighting]) -> WatchState:
    """State after a piece; the faces that are followed are the last that were seen."""
    parts = [tensors.get(f"followed.{name}", ()) for name in ("velocity_px", "likeness", "numbers")]
    last = sightings[len(sightings) - len(parts[0]) :]
    followed = [
        Followed(sighting, velocity.numpy(), likeness, *map(int, counted))
        for sighting, velocity, likeness, counted in zip(last, *parts, strict=True)
    ]
    return WatchState(followed, **dict(zip(_STATE, numbers, strict=True)))


def content_mark(source: str | Path) -> str:
    """Tells files and folders of pictures apart from others, and from themselves after a change.

    Args:
        source: What is read.

    Returns:
        Hash of the full path and, of each file, name, size and time of its last change.
    """
    path = Path(source).resolve()
    folder = path.is_dir()
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if folder else [path]
    stats = [(file.name, file.stat()) for file in files]
    said = [str(path), *([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
