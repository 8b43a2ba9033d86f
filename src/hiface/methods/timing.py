# SPDX-License-Identifier: Apache-2.0
"""Times methods against one another: on the same photos, in turn, so that a slow minute hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from hiface.data import Photo, read_photo
from hiface.errors import HifaceError
from hiface.evaluation.method import Method

BASELINE = "hiface"


@dataclass
class MethodTimes:
    """What a method took.

    Attributes:
        name: Its name.
        licence: Of model and weights.
        description: One line.
        load_s: Seconds of `load`.
        status: "ok", or the status of the error because of which it was left out: it could not be loaded, or
            it answered on no photo.
        reason: The error's text.
        faces: Faces found, by photo.
        errors: What went wrong with single photos, by photo.
        rounds: A round after another: seconds by photo.
    """

    name: str
    licence: str
    description: str
    load_s: float = 0.0
    status: str = "ok"
    reason: str = ""
    faces: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    rounds: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Timing:
    """Times of all methods.

    Attributes:
        methods: In the order asked for.
        photos: Photos that could be read, in order.
        unreadable: Reason by photo of the others.
        finished: Whether all rounds were run.
    """

    methods: list[MethodTimes]
    photos: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    finished: bool = False

    def round_seconds(self, method: MethodTimes) -> list[float]:
        """Seconds a photo of a method, one number for each round that all methods have finished.

        Photos on which one of the methods that ran failed are left out for all of them. If no round was
        finished, the photos that all methods have done count as one.
        """
        running = [one for one in self.methods if one.status == "ok"]
        failed = {photo for one in running for photo in one.errors}
        photos = [photo for photo in self.photos if photo not in failed]
        if method not in running or not photos:
            return []
        count = min(len(one.rounds) for one in running)
        whole = [r for r in range(count) if all(set(photos) <= set(one.rounds[r]) for one in running)]
        if not whole and count:
            photos = [photo for photo in photos if all(photo in one.rounds[0] for one in running)]
            whole = [0] if photos else []
        return [sum(method.rounds[r][photo] for photo in photos) / len(photos) for r in whole]

    def baseline(self) -> MethodTimes | None:
        """The method that the others are compared with: "hiface" if it ran, else the first that did."""
        running = [one for one in self.methods if one.status == "ok"]
        return next((one for one in running if one.name == BASELINE), running[0] if running else None)

    def ratio(self, method: MethodTimes) -> float | None:
        """Median over rounds of the method's seconds over those of the baseline in the same round."""
        base = self.baseline()
        if base is None:
            return None
        pairs = list(zip(self.round_seconds(method), self.round_seconds(base), strict=False))
        return median(own / other for own, other in pairs) if pairs else None


class Bench:
    """Loads methods, and runs them in turn.

    Args:
        methods: What to time; one that cannot be loaded is left out with its reason.
        photos: Picture files; they are read outside the times.

    Attributes:
        timing: What was measured so far.
    """

    def __init__(self, methods: Sequence[Method], photos: Sequence[Path]) -> None:
        self._methods, self._files = list(methods), list(photos)
        self._failed_with: dict[str, str] = {}
        self.timing = Timing([MethodTimes(m.name, m.licence, m.description) for m in methods])

    def run(self, repeats: int, advance: Callable[[str], None]) -> Timing:
        """Loads and warms up every method, then times all of them on every photo, `repeats` times over.

        The order of the methods moves on by one from photo to photo. `timing` holds what was measured when
        this is interrupted.

        Args:
            repeats: Rounds.
            advance: Called after each load, each warm-up and each time taken, with what was done.

        Returns:
            `timing`.
        """
        self._load(advance)
        self._warm_up(advance)
        turn = 0
        for number in range(repeats):
            for times in self.timing.methods:
                times.rounds.append({})
            for path in self._readable():
                photo, order = read_photo(path), self._ready()
                for i in range(len(order)):
                    method, times = order[(i + turn) % len(order)]
                    advance(f"round {number + 1}: {method.name}, {path.name}")
                    self._time(method, times, path, photo)
                turn += 1
            self._leave_out()
        self.timing.finished = True
        return self.timing

    def steps(self, repeats: int) -> int:
        """How often `run` calls `advance` at most."""
        return len(self._methods) * (2 + repeats * len(self._files))

    def _ready(self) -> list[tuple[Method, MethodTimes]]:
        pairs = zip(self._methods, self.timing.methods, strict=True)
        return [(method, times) for method, times in pairs if times.status == "ok"]

    def _readable(self) -> list[Path]:
        return [path for path in self._files if str(path) in self.timing.photos]

    def _leave_out(self) -> None:
        """Methods that have answered on no photo of a round get no time, and take none from the others."""
        for times in self.timing.methods:
            if times.status == "ok" and times.errors and len(times.errors) == len(self.timing.photos):
                times.status = self._failed_with[times.name]
                times.reason = f"no answer on any photo: {next(iter(times.errors.values()))}"

    def _load(self, advance: Callable[[str], None]) -> None:
        for method, times in self._ready():
            advance(f"loading {method.name}")
            started = time.perf_counter()
            try:
                method.load()
            except HifaceError as error:
                times.status, times.reason = error.status, str(error)
            times.load_s = time.perf_counter() - started

    def _warm_up(self, advance: Callable[[str], None]) -> None:
        """Reads every photo once, and runs every method on the first that can be read."""
        first = None
        for path in self._files:
            try:
                photo = read_photo(path)
            except HifaceError as error:
                self.timing.unreadable[str(path)] = str(error)
                continue
            self.timing.photos.append(str(path))
            first = first or photo
        if first is None:
            return
        for method, _ in self._ready():
            advance(f"warming up {method.name}")
            try:
                method.reconstruct(first)
            except HifaceError:
                continue  # the rounds will say so

    def _time(self, method: Method, times: MethodTimes, path: Path, photo: Photo) -> None:
        started = time.perf_counter()
        try:
            found = method.reconstruct(photo)
        except HifaceError as error:
            times.errors[str(path)] = str(error)
            self._failed_with[times.name] = error.status
            return
        times.rounds[-1][str(path)] = time.perf_counter() - started
        times.faces[str(path)] = len(found)
