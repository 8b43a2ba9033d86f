# SPDX-License-Identifier: Apache-2.0
"""`hiface eval`: a method on a benchmark, from the user's own copy of its data to a table."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hiface.cli.bars import progress_bar
from hiface.errors import EvaluationDataError, OptionError
from hiface.methods.options import FOLDER, MethodOptions
from hiface.optional import needed

if TYPE_CHECKING:
    from collections.abc import Callable

    from hiface.evaluation.method import Method
    from hiface.evaluation.protocols.base import Benchmark
    from hiface.evaluation.runs import RunFolder


@dataclass(frozen=True)
class ProtocolOptions:
    """What single protocols need.

    Attributes:
        images: Folder of pictures, for realy; those of now and landmarks lie within the data.
        template_mask: File with a 0 or 1 for each vertex of the template, for realy.
        metrical: Unit of predictions for the metrical variant of now.
        image_set: Which list of pictures, for now.
        people: Number of people, clips or videos to make in the data folder, for synthetic, detail, tracking
            and video.
        seed: Whom they show; 0 when left out. A set that is there already must be of this seed.
        height: Height of the videos to make, in pixels; from 720 on they are 16:9. For video.
    """

    images: Path | None = None
    template_mask: Path | None = None
    metrical: Literal["m", "cm", "mm"] | None = None
    image_set: Literal["val", "test"] = "val"
    people: int | None = None
    seed: int | None = None
    height: int = 512


_DEFAULT = ProtocolOptions()
_METHOD_DEFAULT = MethodOptions()
_BENDING = (("igl", "libigl"), ("scipy.sparse", "scipy"), ("qdldl", "qdldl"))
_NEEDED = {  # module and package
    "realy": _BENDING,
    "synthetic": _BENDING,
    "now": _BENDING[:1],
    "video": (("scipy.signal", "scipy"),),
}


def evaluate(
    protocol: Annotated[
        Literal["realy", "now", "landmarks", "synthetic", "detail", "tracking", "video"],
        tyro.conf.Positional,
    ],
    data: Path,
    method: str = "hiface",
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    workers: int | None = None,
    predictions: Path | None = None,
    special: tyro.conf.OmitArgPrefixes[ProtocolOptions] = _DEFAULT,
    model: tyro.conf.OmitArgPrefixes[MethodOptions] = _METHOD_DEFAULT,
) -> int:
    """Measures a method on a benchmark.

    Predictions and scores are kept in the output folder, so that a second run goes on where the first was
    stopped, and meshes lie there in the benchmark's own layout, ready to be sent to its organisers.

    Args:
        protocol: realy: four regions of REALY's scans. now: NoW's neutral scans. landmarks: 68 points on
            photos. synthetic: portraits of people who do not exist, with exact shapes. detail: their wrinkles
            under another expression. tracking: landmarks through the frames of clips. video: coefficients,
            blinks, jitter and who is who in videos; methods see each frame as a photo, trackers are scored by
            --predictions.
        data: The benchmark's folder; some have to be asked for at their own sites.
        method: hiface, hiface-refine, hiface-fit, mean, landmarks, eos, mediapipe, folder:PATH.
        out: Output folder. hiface_eval/<protocol>-<method> when left out.
        workers: Processes that score; as many as there are processors when left out.
        predictions: Predictions of any other program, in the benchmark's own layout (for video
            <clip>/track.json); nothing is predicted then. For realy the topology is that of --template, with
            85 keypoints in a .txt beside it, or of template.obj among them.
        special: What single protocols need.
        model: What methods need.

    Returns:
        Exit code: 0 if every picture has a score, else 1.
    """
    from hiface.evaluation.protocols.synthetic import SyntheticBenchmark
    from hiface.evaluation.report import write_reliability
    from hiface.evaluation.runs import RunFolder, score, write_result
    from hiface.methods.registry import check_options, make_method

    name = "predictions" if predictions is not None else method
    short = Path(name.removeprefix(FOLDER)).name
    if predictions is not None and not predictions.is_dir():
        raise EvaluationDataError(f"there is no folder {predictions}; --predictions is where meshes lie")
    if workers is not None and workers < 1:
        raise OptionError("--workers must be 1 or more")
    check_options(method, model if predictions is None else replace(model, template=None))
    if model.template is not None and predictions is not None and protocol != "realy":
        raise OptionError("--template with --predictions is for realy")
    _check_extras(protocol)
    kind = f"{protocol}-metrical" if special.metrical is not None else protocol
    folder = RunFolder(out or Path("hiface_eval") / f"{kind}-{short}", predictions)
    benchmark = _benchmark(protocol, data, folder, special, model.template)
    runner = None if predictions is not None else make_method(method, model)
    console = Console(stderr=True, emoji=False)
    total = len(benchmark.items())
    folder = replace(folder, about=_about(benchmark, name, model, predictions))
    folder.check()
    with progress_bar() as progress:

        def counted(word: str):
            task = progress.add_task(word, total=total)
            return lambda item: progress.update(task, advance=1, description=f"{word} {item[-30:]}")

        if runner is not None:
            _predict(benchmark, runner, folder, counted("predicting"))
        rows = score(benchmark, folder, workers or os.cpu_count() or 1, counted("scoring"))
    command = shlex.join(["hiface", *sys.argv[1:]])
    result = write_result(benchmark, name, rows, folder, command)
    _print(benchmark.table(result["summary"]), f"{name} on {benchmark.name}, version {benchmark.version}")
    for row in [row for row in rows if row["status"] != "ok"][:10]:
        console.print(
            f"{row['name']}: {row['status']} {row.get('reason', '')}", markup=False, highlight=False
        )
    if isinstance(benchmark, SyntheticBenchmark) and not benchmark.detail_only:
        for path in write_reliability(benchmark, rows, folder):
            console.print(f"wrote {path}", markup=False, highlight=False)
    console.print(f"{result['statuses']}, everything in {folder.result}", markup=False, highlight=False)
    return 0 if set(result["statuses"]) == {"ok"} else 1


def compare(
    results: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULT ...")],
    plot: Path | None = None,
    table: Path | None = None,
) -> int:
    """Puts runs of `hiface eval` on one benchmark side by side.

    Args:
        results: Files result.json, or their folders.
        plot: Picture to write (.png, .svg or .pdf): bars, or for now the share of vertices below a distance.
        table: Markdown file to write.

    Returns:
        Exit code.
    """
    from hiface.atomic import atomic_write_bytes, atomic_write_text
    from hiface.evaluation import comparison
    from hiface.evaluation.report import read_result

    if not results:
        raise OptionError("name results: hiface compare hiface_eval/now-hiface hiface_eval/now-mean")
    kind = "" if plot is None else plot.suffix.lower().removeprefix(".")
    if plot is not None and kind not in comparison.PLOT_KINDS:
        raise OptionError(f"{plot} must end in .{', .'.join(comparison.PLOT_KINDS)}")
    read = [read_result(path) for path in results]
    text = comparison.markdown_table(read)
    print(text, end="")
    if table is not None:
        atomic_write_text(table, text)
    if plot is not None:
        atomic_write_bytes(plot, comparison.plot(read, kind))
    return 0


def _benchmark(protocol: str, data: Path, folder: RunFolder, options: ProtocolOptions, template: Path | None):
    from hiface.evaluation.protocols.landmarks import LandmarkBenchmark
    from hiface.evaluation.protocols.now import NowBenchmark
    from hiface.evaluation.protocols.realy import RealyBenchmark
    from hiface.evaluation.protocols.synthetic import SyntheticBenchmark
    from hiface.evaluation.protocols.tracking import TrackingBenchmark
    from hiface.evaluation.protocols.video import VideoBenchmark

    if protocol != "realy" and any(value is not None for value in (options.images, options.template_mask)):
        raise OptionError("--images and --template-mask are for realy")
    if protocol != "now" and (options.metrical is not None or options.image_set != "val"):
        raise OptionError("--metrical and --image-set are for now")
    made_here = ("synthetic", "detail", "tracking", "video")
    if protocol not in made_here and (options.people is not None or options.seed is not None):
        raise OptionError("--people and --seed are for synthetic, detail, tracking and video")
    if protocol in ("tracking", "video") and options.seed is not None and options.people is None:
        raise OptionError("--seed says whom the clips show that --people makes; give both")
    if protocol != "video" and options.height != _DEFAULT.height:
        raise OptionError("--height is for video")
    if protocol in ("tracking", "video"):
        _make_clips(protocol, data, options)
        return TrackingBenchmark(data) if protocol == "tracking" else VideoBenchmark(data)
    if protocol in ("synthetic", "detail"):
        _make_people(data, options)
        return SyntheticBenchmark(data, protocol == "detail")
    if not data.is_dir():
        raise EvaluationDataError(
            f"there is no folder {data}; --data is the user's own copy of the benchmark"
        )
    if protocol == "realy":
        elsewhere = template if folder.made_elsewhere is not None else None
        return RealyBenchmark(data, options.images, elsewhere, options.template_mask, folder.predictions)
    if protocol == "now":
        return NowBenchmark(data, options.metrical, options.image_set)
    return LandmarkBenchmark(data)


def _about(benchmark: Benchmark, name: str, model: MethodOptions, predictions: Path | None) -> dict[str, Any]:
    """What a run is of, in JSON's types; the same folder is the same however it is written."""
    from hiface import __version__
    from hiface.evaluation.protocols.base import settings_of
    from hiface.methods.registry import networks_digest

    if name.startswith(FOLDER):
        name = f"{FOLDER}{Path(name.removeprefix(FOLDER)).resolve()}"
    about = {"benchmark": benchmark.name, **settings_of(benchmark), "method": name, **asdict(model)}
    about |= {"predictions": predictions, "hiface": __version__, "networks": networks_digest()}
    return json.loads(json.dumps(about, default=lambda path: str(path.resolve())))


def _check_extras(protocol: str) -> None:
    """Raises MissingExtraError before anything is made or predicted that could not be scored."""
    for module, package in _NEEDED.get(protocol, ()):
        needed(module, f"eval {protocol} needs {package}")


def _predict(benchmark: Benchmark, method: Method, folder: RunFolder, advance: Callable[[str], None]) -> None:
    from hiface.evaluation.protocols.video import VideoBenchmark, predict_videos
    from hiface.evaluation.runs import predict

    if isinstance(benchmark, VideoBenchmark):
        predict_videos(benchmark, method, folder, advance)
    else:
        predict(benchmark, method, folder, advance)


def _make_people(data: Path, options: ProtocolOptions) -> None:
    from hiface.evaluation.synthetic_set import read_about, write_set

    if options.people is None:
        read_about(data, options.seed)
        return
    with progress_bar() as progress:
        task = progress.add_task("making people", total=options.people)
        write_set(
            data, options.people, options.seed or 0, advance=lambda name: progress.update(task, advance=1)
        )


def _make_clips(protocol: str, data: Path, options: ProtocolOptions) -> None:
    from hiface.evaluation.synthetic_clips import write_clips
    from hiface.evaluation.synthetic_videos import write_videos
    from hiface.synthetic.video_kinds import VideoStyle

    if options.people is None:
        return
    with progress_bar() as progress:
        task = progress.add_task("making clips", total=options.people)

        def advance(name: str) -> None:
            progress.update(task, advance=1)

        if protocol == "tracking":
            write_clips(data, options.people, options.seed or 0, advance=advance)
        else:
            style = VideoStyle(options.height, options.height >= 720)
            write_videos(data, options.people, options.seed or 0, style, advance)


def _print(rows: list[list[str]], title: str) -> None:
    table = Table(title=Text(title))
    for i, column in enumerate(rows[0]):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows[1:]:
        table.add_row(*row)
    Console(emoji=False).print(table, markup=False)
