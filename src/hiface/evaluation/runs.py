# SPDX-License-Identifier: Apache-2.0
"""Two loops that remember: predictions of a method on a benchmark's pictures, and their scores.

    OUT/run.json               what the run is of
    OUT/predictions/...        what the method said, in the benchmark's own layout
    OUT/notes/<name>.json      what became of each picture, and how long it took
    OUT/scores/<name>.json     what it scored, with the hash of the files that were scored
    OUT/result.json            everything, with versions and the command

Both loops leave whole files only and go on where they were stopped.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from hiface import __version__
from hiface.atomic import atomic_write_text
from hiface.errors import (
    EvaluationDataError,
    HifaceError,
    MissingExtraError,
    NoFaceError,
    OptionError,
    OutputError,
)
from hiface.evaluation.json_objects import read_json_object
from hiface.evaluation.method import Method
from hiface.evaluation.protocols.base import Benchmark, Item, photo_of, settings_of

FORMAT_VERSION = 1


@dataclass(frozen=True)
class RunFolder:
    """Where a run of one method on one benchmark is kept.

    Attributes:
        root: Its folder.
        made_elsewhere: Folder of predictions of another program, or None for `root`/predictions.
        about: What the run is of (benchmark, method and options, in JSON's types), or None if nobody asks.
    """

    root: Path
    made_elsewhere: Path | None = None
    about: dict[str, Any] | None = None

    @property
    def predictions(self) -> Path:
        """Files of the predictions."""
        return self.made_elsewhere or self.root / "predictions"

    def note(self, item: Item) -> Path:
        """What became of one picture."""
        return self.root / "notes" / f"{item.name}.json"

    def scores(self, item: Item) -> Path:
        """Scores of one picture."""
        return self.root / "scores" / f"{item.name}.json"

    @property
    def result(self) -> Path:
        """Everything."""
        return self.root / "result.json"

    def check(self) -> None:
        """Raises EvaluationDataError if the folder holds another run than `about`."""
        before, about = read_json_object(self.root / "run.json"), self.about
        if before is None or about is None or before == about:
            return
        other = ", ".join(
            f"{key} {before.get(key)}, not {about[key]}" for key in about if before.get(key) != about[key]
        )
        raise EvaluationDataError(f"{self.root} holds another run ({other}); choose another folder with -o")

    def claim(self) -> None:
        """Says what the run is of, in run.json; called when there is something to keep.

        Raises:
            EvaluationDataError: The folder holds another run.
            OutputError: The folder cannot be written.
        """
        self.check()
        if self.about is not None:
            atomic_write_text(self.root / "run.json", json.dumps(self.about, indent=1) + "\n")


def predict(benchmark: Benchmark, method: Method, folder: RunFolder, advance: Callable[[str], None]) -> None:
    """Runs the method on every picture that has no prediction yet.

    A picture that cannot be used, or where no face is found, becomes a note with a status. Only pictures
    without a face are not tried again.

    Args:
        benchmark: Protocol and data.
        method: What to run; loaded when the first picture needs it.
        folder: Where predictions go.
        advance: Called with the name of a picture when it is done.

    Raises:
        HifaceError: The method cannot be loaded, or the data or the folder cannot be used.
    """
    loaded = False
    for item in benchmark.items():
        if getattr(method, "always_again", False) or not _predicted(benchmark, item, folder):
            if not loaded:
                method.load()
                folder.claim()
                loaded = True
            _predict_one(benchmark, method, item, folder)
        advance(item.name)


def _predicted(benchmark: Benchmark, item: Item, folder: RunFolder) -> bool:
    note = read_json_object(folder.note(item))
    if note is None:
        return False
    if note["status"] == "ok":
        return bool(benchmark.saved(item, folder.predictions))
    return note["status"] == NoFaceError.status


def _predict_one(benchmark: Benchmark, method: Method, item: Item, folder: RunFolder) -> None:
    started = time.perf_counter()
    note: dict[str, Any] = {"name": item.name, "method": method.name}
    try:
        photo = photo_of(item)
        found = method.reconstruct(photo)
        note["seconds"] = round(time.perf_counter() - started, 4)
        benchmark.save(found, item, folder.predictions)
        note["status"] = "ok"
    except (OutputError, MissingExtraError, OptionError):
        raise
    except HifaceError as error:
        note.update(status=error.status, reason=str(error))
    atomic_write_text(folder.note(item), json.dumps(note, indent=1) + "\n")


def score(
    benchmark: Benchmark, folder: RunFolder, workers: int, advance: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Scores every saved prediction whose files, or whose ground truth, have changed since they were scored.

    Args:
        benchmark: Protocol and data.
        folder: Run.
        workers: Processes; 1 scores in this one.
        advance: Called with the name of a picture when it is done.

    Returns:
        A row per picture, in the benchmark's order: name, status, and the scores or a reason.

    Raises:
        HifaceError: The data or the folder cannot be used.
    """
    items = benchmark.items()
    folder.claim()
    waiting = []
    for item in items:
        if _needs_score(benchmark, item, folder):
            waiting.append(item)
        else:
            advance(item.name)
    for item in _scored(benchmark, folder, waiting, workers):
        advance(item.name)
    return [_row(benchmark, item, folder) for item in items]


def _needs_score(benchmark: Benchmark, item: Item, folder: RunFolder) -> bool:
    files = benchmark.saved(item, folder.predictions)
    old = read_json_object(folder.scores(item))
    if not files:
        return False
    return old is None or old.get("status") != "ok" or old.get("of") != _fingerprint(benchmark, item, files)


def _scored(benchmark: Benchmark, folder: RunFolder, items: list[Item], workers: int) -> Iterator[Item]:
    if workers <= 1 or len(items) <= 1:
        for item in items:
            _score_one(benchmark, item, folder)
            yield item
        return
    context = multiprocessing.get_context("spawn")
    count = min(workers, len(items))
    with ProcessPoolExecutor(count, context, _start_worker, (benchmark, folder)) as pool:
        try:
            jobs = {pool.submit(_score_named, item.name): item for item in items}
            for job in as_completed(jobs):
                job.result()
                yield jobs[job]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_worker: dict[str, Any] = {}


def _start_worker(benchmark: Benchmark, folder: RunFolder) -> None:
    """Keeps the benchmark in a process, so that only names go to it afterwards."""
    torch.set_num_threads(1)
    _worker.update(benchmark=benchmark, folder=folder, items={item.name: item for item in benchmark.items()})


def _score_named(name: str) -> None:
    _score_one(_worker["benchmark"], _worker["items"][name], _worker["folder"])


def _score_one(benchmark: Benchmark, item: Item, folder: RunFolder) -> None:
    started = time.perf_counter()
    content: dict[str, Any] = {"of": _fingerprint(benchmark, item, benchmark.saved(item, folder.predictions))}
    try:
        item.check()
        content.update(status="ok", scores=benchmark.score(item, folder.predictions))
    except (OutputError, MissingExtraError, OptionError):
        raise
    except HifaceError as error:
        content.update(status=error.status, reason=str(error))
    content["seconds"] = round(time.perf_counter() - started, 3)
    atomic_write_text(folder.scores(item), json.dumps(content, indent=1) + "\n")


def _row(benchmark: Benchmark, item: Item, folder: RunFolder) -> dict[str, Any]:
    scored, note = read_json_object(folder.scores(item)), read_json_object(folder.note(item))
    row: dict[str, Any] = {"name": item.name}
    there = bool(benchmark.saved(item, folder.predictions)) and (note is None or note["status"] == "ok")
    if there and scored is not None:
        row.update({key: scored[key] for key in ("status", "scores", "reason") if key in scored})
    elif note is not None and note["status"] != "ok":
        row.update(status=note["status"], reason=note.get("reason", ""))
    else:
        row.update(status="missing", reason="there is no prediction of this picture")
    if note is not None and "seconds" in note:
        row["seconds"] = note["seconds"]
    return row


def write_result(
    benchmark: Benchmark, method_name: str, rows: list[dict[str, Any]], folder: RunFolder, command: str
) -> dict[str, Any]:
    """Writes OUT/result.json and returns its content.

    Args:
        benchmark: Protocol.
        method_name: What was measured.
        rows: From `score`.
        folder: Run.
        command: The command line, to be kept with the figures.
    """
    statuses: dict[str, int] = {}
    for row in rows:
        statuses[row["status"]] = statuses.get(row["status"], 0) + 1
    seconds = [row["seconds"] for row in rows if "seconds" in row]
    result = {
        "format": FORMAT_VERSION,
        "benchmark": benchmark.name,
        "benchmark_version": benchmark.version,
        "method": method_name,
        "command": command,
        "hiface": __version__,
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": machine(),
        "statuses": statuses,
        "median_seconds": float(torch.tensor(seconds).median()) if seconds else None,
        "summary": benchmark.summarise([row for row in rows if row["status"] == "ok"]),
        "rows": rows,
    }
    atomic_write_text(folder.result, json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


def machine() -> str:
    """Processor and number of cores, without the name of the computer."""
    return f"{cpu_name()}, {multiprocessing.cpu_count()} threads, {platform.system()}"


def cpu_name() -> str:
    """Model of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """Commit of the source tree that is running, or None outside of one."""
    here = Path(__file__)

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(here.parent), *words]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return run.stdout.strip() if run.returncode == 0 else None

    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    name = git("rev-parse", "--short", "HEAD")
    return f"{name}-changed" if name and git("status", "--porcelain", "-uno") else name


def _fingerprint(benchmark: Benchmark, item: Item, files: list[Path]) -> str:
    """Hash of all that a score is of: settings, the prediction's files, and the ground truth."""
    digest = hashlib.sha256(f"{benchmark.name} {benchmark.version} {settings_of(benchmark)}".encode())
    for part in (*files, *benchmark.truth(item)):
        digest.update((_hash_of(part) if isinstance(part, Path) else part).encode() + b"\n")
    return digest.hexdigest()[:24]


def _hash_of(path: Path) -> str:
    """Hash of a file's content, or a word where it cannot be read."""
    try:
        stat = path.stat()
        return _hash_as_of(path, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return "unreadable"


@lru_cache(maxsize=256)
def _hash_as_of(path: Path, size: int, time_ns: int) -> str:
    """Scans are asked for by many pictures: each is read once as long as it stays as it is."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
