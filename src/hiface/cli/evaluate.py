# SPDX-License-Identifier: Apache-2.0
"""`hiface eval`: a method on a benchmark, from the user's own copy of its data to a table."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from hiface.cli.bars import progress_bar
from hiface.errors import EvaluationDataError, OptionError
from hiface.methods.options import FOLDER, MethodOptions

if TYPE_CHECKING:
    from hiface.evaluation.runs import RunFolder


@dataclass(frozen=True)
class ProtocolOptions:
    """What single protocols need.

    Attributes:
        images: Folder of pictures, for realy; those of now and landmarks lie within the data.
        template_mask: File with a 0 or 1 for each vertex of the template, for realy.
        metrical: Unit of predictions for the metrical variant of now.
        image_set: Which list of pictures, for now.
        people: Number of people to make in the data folder, for synthetic, detail and tracking.
        seed: Whom they show.
    """

    images: Path | None = None
    template_mask: Path | None = None
    metrical: Literal["m", "cm", "mm"] | None = None
    image_set: Literal["val", "test"] = "val"
    people: int | None = None
    seed: int = 0


_DEFAULT = ProtocolOptions()
_METHOD_DEFAULT = MethodOptions()


def evaluate(
    protocol: Annotated[
        Literal["realy", "now", "landmarks", "synthetic", "detail", "tracking"], tyro.conf.Positional
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
            under another expression. tracking: landmarks through the frames of clips.
        data: The benchmark's folder; some have to be asked for at their own sites.
        method: hiface, hiface-refine, hiface-fit, mean, landmarks, eos, mediapipe, folder:PATH.
        out: Output folder. hiface_eval/<protocol>-<method> when left out.
        workers: Processes that score; as many as there are processors when left out.
        predictions: Predictions of any other program, in the benchmark's own layout; nothing is predicted
            then. For realy the topology is that of --template, with 85 keypoints in a .txt beside it, or of
            template.obj among them.
        special: What single protocols need.
        model: What methods need.

    Returns:
        Exit code: 0 if every picture has a score, else 1.
    """
    from hiface import __version__
    from hiface.evaluation.protocols.base import settings_of
    from hiface.evaluation.protocols.synthetic import SyntheticBenchmark
    from hiface.evaluation.report import write_reliability
    from hiface.evaluation.runs import RunFolder, predict, score, write_result
    from hiface.methods.registry import check_options, make_method, networks_digest

    name = "predictions" if predictions is not None else method
    short = Path(name.removeprefix(FOLDER)).name
    if predictions is not None and not predictions.is_dir():
        raise EvaluationDataError(f"there is no folder {predictions}; --predictions is where meshes lie")
    if workers is not None and workers < 1:
        raise OptionError("--workers must be 1 or more")
    check_options(method, model)
    kind = f"{protocol}-metrical" if special.metrical is not None else protocol
    folder = RunFolder(out or Path("hiface_eval") / f"{kind}-{short}", predictions)
    benchmark = _benchmark(protocol, data, folder, special, model.template)
    runner = None if predictions is not None else make_method(method, model)
    console = Console(stderr=True)
    total = len(benchmark.items())
    about = {"benchmark": benchmark.name, **settings_of(benchmark), "method": name, **asdict(model)}
    about |= {"predictions": predictions, "hiface": __version__, "networks": networks_digest()}
    folder.claim(json.loads(json.dumps(about, default=str)))
    with progress_bar() as progress:

        def counted(word: str):
            task = progress.add_task(word, total=total)
            return lambda item: progress.update(task, advance=1, description=f"{word} {item[-30:]}")

        if runner is not None:
            predict(benchmark, runner, folder, counted("predicting"))
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
        plot: PNG to write: bars, or for now the share of vertices below a distance.
        table: Markdown file to write.

    Returns:
        Exit code.
    """
    from hiface.atomic import atomic_write_bytes, atomic_write_text
    from hiface.evaluation import comparison
    from hiface.evaluation.report import read_result

    if not results:
        raise OptionError("name results: hiface compare hiface_eval/now-hiface hiface_eval/now-mean")
    read = [read_result(path) for path in results]
    text = comparison.markdown_table(read)
    print(text, end="")
    if table is not None:
        atomic_write_text(table, text)
    if plot is not None:
        atomic_write_bytes(plot, comparison.plot(read))
    return 0


def _benchmark(protocol: str, data: Path, folder: RunFolder, options: ProtocolOptions, template: Path | None):
    from hiface.evaluation.protocols.landmarks import LandmarkBenchmark
    from hiface.evaluation.protocols.now import NowBenchmark
    from hiface.evaluation.protocols.realy import RealyBenchmark
    from hiface.evaluation.protocols.synthetic import SyntheticBenchmark
    from hiface.evaluation.protocols.tracking import TrackingBenchmark

    if protocol != "realy" and any(value is not None for value in (options.images, options.template_mask)):
        raise OptionError("--images and --template-mask are for realy")
    if protocol != "now" and (options.metrical is not None or options.image_set != "val"):
        raise OptionError("--metrical and --image-set are for now")
    if protocol not in ("synthetic", "detail", "tracking") and (options.people is not None or options.seed):
        raise OptionError("--people and --seed are for synthetic, detail and tracking")
    if protocol == "tracking":
        if options.people is not None:
            _make_clips(data, options.people, options.seed)
        return TrackingBenchmark(data)
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


def _make_people(data: Path, options: ProtocolOptions) -> None:
    from hiface.evaluation.synthetic_set import read_about, write_set

    if options.people is None:
        read_about(data)
        return
    with progress_bar() as progress:
        task = progress.add_task("making people", total=options.people)
        write_set(data, options.people, options.seed, advance=lambda name: progress.update(task, advance=1))


def _make_clips(data: Path, people: int, seed: int) -> None:
    from hiface.evaluation.synthetic_clips import write_clips

    with progress_bar() as progress:
        task = progress.add_task("making clips", total=people)
        write_clips(data, people, seed, advance=lambda name: progress.update(task, advance=1))


def _print(rows: list[list[str]], title: str) -> None:
    table = Table(title=title)
    for i, column in enumerate(rows[0]):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table, markup=False)
