# SPDX-License-Identifier: Apache-2.0
"""`hiface bench`: times this library and others on the same photos in one run."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from hiface.cli.bars import progress_bar
from hiface.cli.folders import prepare_folder
from hiface.cli.reconstruct import expand_photos
from hiface.errors import OptionError
from hiface.methods.options import MethodOptions

if TYPE_CHECKING:
    from rich.console import Console

    from hiface.methods.timing import Bench, Timing

FORMAT_VERSION = 1
_DEFAULT = MethodOptions()


def bench(
    photos: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO ...")],
    methods: Annotated[str, tyro.conf.arg(metavar="LIST")] = "hiface,hiface-fit,mean,landmarks",
    repeats: int = 5,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None,
    threads: int | None = None,
    options: tyro.conf.OmitArgPrefixes[MethodOptions] = _DEFAULT,
) -> int:
    """Times methods on the same photos in one run: in turn, after a warm-up, photos read beforehand.

    A method that is not installed, or that answers on no photo, becomes a row with the reason. When stopped
    with Ctrl-C, what was measured so far is shown and written.

    Args:
        photos: Picture files, folders of pictures, or quoted patterns such as "photos/*.jpg".
        methods: Comma-separated list of hiface, hiface-refine, hiface-fit, mean, landmarks, eos, mediapipe,
            folder:PATH.
        repeats: Rounds over all photos.
        out: JSON file with all times, for which its folder is made.
        threads: Threads of torch; its own choice when left out. The small networks of ONNX Runtime take as
            many as there are cores, at most 4.
        options: What methods need.

    Returns:
        Exit code: 0 if all photos were read and all methods that are installed ran on all of them, else 1.
    """
    import torch
    from rich.console import Console

    from hiface.methods.registry import make_method
    from hiface.methods.timing import Bench

    names = parse_methods(methods)
    if repeats < 1 or (threads is not None and threads < 1):
        raise OptionError(f"--repeats and --threads must be at least 1, got {repeats} and {threads}")
    if out is not None and out.is_dir():
        raise OptionError(f"{out} is a folder; name a file, for example {out / 'bench.json'}")
    if out is not None:
        prepare_folder(out.parent)
    files = expand_photos(photos)
    if threads is not None:
        torch.set_num_threads(threads)
    console = Console(stderr=True, emoji=False)
    run = Bench([make_method(name, options) for name in names], files)
    try:
        _run(run, repeats, console)
    finally:
        if run.timing.photos:
            _print(run.timing, console)
        if out is not None:
            _write(out, run.timing, repeats)
    timing = run.timing
    if not timing.photos:
        raise OptionError(
            f"none of the photos can be read; the first: {next(iter(timing.unreadable.values()))}"
        )
    ran = [one for one in timing.methods if one.status == "ok"]
    whole = bool(ran) and not timing.unreadable and not any(one.errors for one in timing.methods)
    return 0 if whole else 1


def parse_methods(text: str) -> list[str]:
    """Splits "hiface,eos" without repeats; raises OptionError if nothing is named."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise OptionError("--methods needs one method at least, for example hiface,landmarks")
    return names


def machine() -> dict[str, Any]:
    """What the times depend on: processor, cores, threads, versions; nothing that names the computer."""
    import onnxruntime
    import torch

    from hiface import __version__
    from hiface.evaluation.runs import cpu_name
    from hiface.networks.runtime import default_threads

    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": cpu_name(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "usable_cores": len(affinity(0)) if affinity else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "onnxruntime_threads": default_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "hiface": __version__,
    }


def _run(run: Bench, repeats: int, console: Console) -> None:
    with progress_bar(console) as progress:
        task = progress.add_task("loading", total=run.steps(repeats))

        def advance(what: str) -> None:
            progress.update(task, advance=1, description=what[-50:])

        run.run(repeats, advance)


def rows(timing: Timing) -> list[dict[str, Any]]:
    """A row per method, in the order asked for: median and fastest seconds a photo, ratio, faces, times."""
    found = []
    for one in timing.methods:
        seconds = timing.round_seconds(one)
        row = {
            "name": one.name,
            "status": one.status,
            "reason": one.reason,
            "median_s": median(seconds) if seconds else None,
            "fastest_s": min(seconds) if seconds else None,
            "ratio": timing.ratio(one),
            "faces": sum(one.faces.values()),
        }
        found.append(row | {key: value for key, value in asdict(one).items() if key not in row})
        found[-1]["faces_by_photo"] = one.faces
    return found


def _write(path: Path, timing: Timing, repeats: int) -> None:
    from hiface.atomic import atomic_write_text

    base = timing.baseline()
    content = {
        "version": FORMAT_VERSION,
        "machine": machine(),
        "repeats": repeats,
        "finished": timing.finished,
        "ratio_to": None if base is None else base.name,
        "photos": timing.photos,
        "unreadable": timing.unreadable,
        "methods": rows(timing),
    }
    atomic_write_text(path, json.dumps(content, indent=1) + "\n")


def _print(timing: Timing, console: Console) -> None:
    from rich.console import Console
    from rich.table import Table

    base, about = timing.baseline(), machine()
    title = f"seconds a photo, {len(timing.photos)} photos" + ("" if timing.finished else " (stopped early)")
    table = Table(
        "method", "median", "fastest", f"times {base.name if base else '-'}", "faces", "", title=title
    )
    for row in rows(timing):
        numbers = (
            "-" if row[key] is None else f"{row[key]:.3g}" for key in ("median_s", "fastest_s", "ratio")
        )
        failed = f"failed on {len(row['errors'])} photos" if row["errors"] else row["description"]
        faces = str(row["faces"]) if row["status"] == "ok" else "-"
        table.add_row(row["name"], *numbers, faces, failed if row["status"] == "ok" else row["status"])
    Console(emoji=False).print(table, markup=False)
    console.print(
        f"{about['cpu']}, {about['usable_cores']} of {about['cores']} cores, {about['torch_threads']} torch "
        f"threads; Python {about['python']}, torch {about['torch']}, hiface {about['hiface']}",
        highlight=False,
        markup=False,
    )
    for photo, reason in timing.unreadable.items():
        console.print(f"left out {photo}: {reason}", highlight=False, markup=False)
    for one in timing.methods:
        if one.status != "ok":
            console.print(f"{one.name} has no time: {one.reason}", highlight=False, markup=False)
            continue
        for photo, reason in one.errors.items():
            console.print(f"{one.name} failed on {photo}: {reason}", highlight=False, markup=False)
