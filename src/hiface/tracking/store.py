# SPDX-License-Identifier: Apache-2.0
"""What was seen in a video, on disk while it is tracked, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hiface.atomic import atomic_write_bytes
from hiface.networks.detect import Detection
from hiface.tracking.sightings import Sighting
from hiface.types import Camera, FaceParams

_VERSION = 1
_CHUNK = 100  # frames


@dataclass
class Seen:
    """Frames seen so far.

    Attributes:
        times_s: Of all of them.
        cuts: Those that begin another scene.
        sightings: Faces in them, in order.
        tracklets: Number of tracklets.
    """

    times_s: list[float]
    cuts: list[int]
    sightings: list[Sighting]
    tracklets: int = 0

    def last(self) -> list[Sighting]:
        """Faces of the last frame."""
        return [s for s in self.sightings[-64:] if s.frame == len(self.times_s) - 1]


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
        """What an earlier run with the same key has seen; empty if there is none."""
        seen = Seen([], [], [])
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
            seen.cuts += json.loads(notes["cuts"])
            seen.sightings += _unpacked(tensors, json.loads(notes["camera"]))
            seen.tracklets = int(notes["tracklets"])
            self._pieces += 1
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
            "cuts": json.dumps([cut for cut in seen.cuts if cut >= self._written]),
            "tracklets": str(seen.tracklets),
            "camera": json.dumps(size),
        }
        atomic_write_bytes(self._path(self._pieces), save(_packed(sightings), notes))
        self._pieces += 1
        self._written, self._before = len(seen.times_s), len(seen.sightings)

    def remove(self) -> None:
        """Deletes the pieces."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in self._folder.glob("seen_*.safetensors"):
            path.unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _path(self, piece: int) -> Path:
        assert self._folder is not None
        return self._folder / f"seen_{piece:05d}.safetensors"


_DETECTION = tuple(f.name for f in fields(Detection) if f.name != "score")
_PARAMS = ("identity", "expression", "pose", "albedo", "light", "static")


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
        found.append(Sighting(int(tracklet), int(frame), time_s, Detection(score=score, **parts), read))
    return found
