# SPDX-License-Identifier: Apache-2.0
"""What each part of the generator is worth: `python benchmarks/ablation.py WORK_DIR --photos PHOTOS_DIR`.

For each part a data set is made without it, a small landmark network is trained on it from scratch (same
recipe, same steps, same seeds), and its error is measured on real photos and on one common hold-out set that
has all parts. Crops are cut around the reference points, so the finder plays no role. What the augmentation
of training does again to the crops (things pasted in front; colours, blur, noise, compression) is switched
off with the part, unless the part's name ends in "in pictures only".

A run that was stopped goes on where it was: data, training and finished parts are kept in WORK_DIR.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from hiface.data.crop_arrays import to_picture
from hiface.data.crops import eye_roll, frame_of_points
from hiface.data.images import read_photo
from hiface.evaluation.holdout import join_faces, read_holdout, write_holdout
from hiface.evaluation.holdout_scores import read_crops, score_points
from hiface.evaluation.landmarks import eye_distance, nme51, offset_free_error, summarise
from hiface.morphable import load_model
from hiface.networks.landmarker import Landmarker
from hiface.networks.looks import LandmarkReader
from hiface.networks.runtime import TorchRunner
from hiface.networks.weights import load_landmarker, save_weights
from hiface.synthetic.datasets import make_spec
from hiface.synthetic.generator import GENERATOR_VERSION
from hiface.synthetic.shards import write_shards
from hiface.training.landmark_task import LandmarkRecipe, LandmarkTask
from hiface.training.loop import train
from hiface.training.recipes import RECIPES
from hiface.training.shards import mirror_of

SMALL = {"stem": 12, "widths": (24, 48, 96, 144), "hidden": 192}
SUBSETS = ("profile", "occluded", "dark", "strong expression", "low resolution", "cut")


@dataclass(frozen=True)
class Part:
    """One row of the table.

    Attributes:
        effects: Effects of the generator (`hiface.synthetic.effects`).
        jitter: Changes to the crops' jitter in training.
        share: Share of the pictures, and so of the people.
    """

    effects: str = "all"
    jitter: tuple[tuple[str, float | bool], ...] = ()
    share: float = 1.0


PARTS = {
    "all": Part(),
    "without hair": Part("all,-hair"),
    "without occluders": Part("all,-occluders,-glasses,-hats", (("occluded", 0.0),)),
    "without skin detail": Part("all,-skin,-wrinkles,-lashes"),
    "without camera": Part("all,-camera", (("degraded", False),)),
    "half the people": Part(share=0.5),
    "without occluders in pictures only": Part("all,-occluders,-glasses,-hats"),
    "without camera in pictures only": Part("all,-camera"),
}
DEFAULT_PARTS = tuple(PARTS)[:6]


@dataclass(frozen=True)
class Settings:
    """What all rows share; a finished row counts only for the same settings.

    Attributes:
        count: Pictures of a data set.
        steps: Steps of training.
        batch_size: Crops a step.
        held: Pictures of the hold-out set.
        size: Side of the pictures of a data set.
        seed: Of data, weights and batches.
    """

    count: int
    steps: int
    batch_size: int
    held: int
    size: int = 192
    seed: int = 0


def recipe_of(part: Part, settings: Settings) -> LandmarkRecipe:
    """The landmark network's recipe for a small network, with what the part changes."""
    recipe = RECIPES["landmarker"].task
    assert isinstance(recipe, LandmarkRecipe)
    return replace(
        recipe,
        batch_size=settings.batch_size,
        network=replace(recipe.network, **SMALL),
        jitter=replace(recipe.jitter, **dict(part.jitter)),
        seed=settings.seed,
    )


def data_folder(work: Path, part: Part, settings: Settings) -> Path:
    """Folder of a part's pictures; parts with the same pictures share it."""
    values = (part.effects.replace(",", ""), round(settings.count * part.share), settings.size, settings.seed)
    return work / "data" / "-".join(str(value) for value in values)


@contextlib.contextmanager
def bar(text: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; gives the function that moves it."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        item = progress.add_task(text, total=total)
        yield lambda done, of: progress.update(item, completed=done, total=of)


def trained(work: Path, name: str, settings: Settings, device: str, workers: int) -> Path:
    """Makes the data and trains the network of a part, as far as that is not done; returns its weights."""
    part, loop = PARTS[name], RECIPES["landmarker"].loop
    values = "-".join(
        str(v) for v in (settings.steps, settings.batch_size, settings.count, settings.size, settings.seed)
    )
    out = work / "runs" / f"{name.replace(' ', '_')}-{values}"
    path = out / "landmarker.safetensors"
    if path.is_file():
        return path
    folder = data_folder(work, part, settings)
    spec = make_spec(size=settings.size, seed=settings.seed, effects=part.effects)
    count = round(settings.count * part.share)
    with bar(f"pictures, {name}", count) as advance:
        write_shards(folder, count, spec, workers, advance)
    task = LandmarkTask(recipe_of(part, settings), (folder,), mirror_of())
    warmup = min(loop.warmup, settings.steps // 10)
    loop = replace(loop, steps=settings.steps, warmup=warmup, seed=settings.seed)
    network = train(task, loop, out, device, resume=True)
    assert isinstance(network, Landmarker)
    save_weights(network, path, {"part": name, "generator_version": GENERATOR_VERSION})
    return path


def photo_errors(reader: LandmarkReader, photos: Path) -> dict[str, float]:
    """Errors on photos with references, in crops cut around the reference points."""
    errors, offsets = [], []
    for photo in json.loads((photos / "reference.json").read_text(encoding="utf-8")):
        truths = [face["landmarks68"] for face in photo["faces"] if face["reference_trusted"]]
        if not truths:
            continue
        truth = torch.tensor(truths, dtype=torch.float32)[..., :2]
        frames = frame_of_points(truth, reader.crop_scale, eye_roll(truth)).rows()
        image = read_photo(photos / photo["file"]).image_srgb
        points = reader.read_twice(reader.crops(image, frames)).points
        found = torch.from_numpy(to_picture(frames, points))[:, :68]
        errors += nme51(found, truth).tolist()
        offsets.append((found - truth) / eye_distance(truth)[:, None, None])
    scores = summarise(errors)
    return {
        "faces": len(errors),
        "mean": scores["mean_percent"],
        "median": scores["median_percent"],
        "offset_free": round(100 * offset_free_error(torch.cat(offsets)), 3),
    }


def held_errors(reader: LandmarkReader, folders: tuple[Path, ...]) -> dict[str, dict[str, float]]:
    """Errors of the inner points by subset of the hold-out set."""
    names = tuple(load_model("open").data.expression_names)
    points, parts = [], []
    for folder in folders:
        for pictures, faces in read_holdout(folder, names):
            points.append(read_crops(reader, pictures, faces))
            parts.append(faces)
    table = score_points(torch.cat(points), join_faces(parts))
    return {name: table[name]["inner51"] for name in ("all", *SUBSETS)}


def markdown(rows: dict[str, dict]) -> str:
    """The rows as a table."""
    head = ("trained on pictures", "photos, mean", "median", "offsets removed", "hold-out, mean", *SUBSETS)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, row in rows.items():
        photos = row.get("photos") or {}
        cells = [f"{photos[key]:.2f}" if key in photos else "" for key in ("mean", "median", "offset_free")]
        cells += [f"{row['held'][key]['mean']:.2f}" for key in ("all", *SUBSETS)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def finished(path: Path, settings: Settings) -> dict[str, dict]:
    """Rows of an earlier run with the same settings and generator."""
    if not path.is_file():
        return {}
    stored = json.loads(path.read_text(encoding="utf-8"))
    same = stored.get("settings") == vars(settings) and stored.get("generator_version") == GENERATOR_VERSION
    return stored["rows"] if same else {}


def save(path: Path, settings: Settings, rows: dict[str, dict]) -> None:
    """Writes the rows, under a temporary name first."""
    about = {"benchmark": "ablation", "generator_version": GENERATOR_VERSION, "settings": vars(settings)}
    partial = path.with_suffix(".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(
        json.dumps({**about, "network": SMALL, "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )
    partial.replace(path)


def run(options: argparse.Namespace, settings: Settings, console: Console) -> dict[str, dict]:
    """All wanted rows; those that are there already are not made again."""
    rows, work = finished(options.out, settings), options.work / f"generator-{GENERATOR_VERSION}"
    with bar("pictures, hold-out", settings.held) as advance:
        held = write_holdout(work / f"held-{settings.held}", settings.held, advance=advance)
    for number, name in enumerate(options.parts, start=1):
        row = rows.get(name, {})
        if row and (row.get("photos") or options.photos is None):
            continue
        console.log(f"{number} of {len(options.parts)}: {name}")
        weights = trained(work, name, settings, options.device, options.workers)
        reader = LandmarkReader(TorchRunner(load_landmarker(weights), options.device))
        photos = photo_errors(reader, options.photos) if options.photos else {}
        rows[name] = {"photos": photos, "held": held_errors(reader, held)}
        save(options.out, settings, rows)
    return {name: rows[name] for name in PARTS if name in rows}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for data and runs")
    parser.add_argument("--photos", type=Path, help="folder of photos with reference.json")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(DEFAULT_PARTS), metavar="PART")
    parser.add_argument("--count", type=int, default=6000, help="pictures of a data set")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--held", type=int, default=600, help="pictures of the hold-out set")
    parser.add_argument("--size", type=int, default=192, help="side of the pictures of a data set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw, each 500 pictures")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file; ablation.json in the folder when left out")
    record = Path(__file__).parent / "results" / "ablation.json"
    parser.add_argument("--record", dest="out", action="store_const", const=record, help="what docs quote")
    options = parser.parse_args(arguments)
    options.out = options.out or options.work / "ablation.json"
    return options


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    names = ("count", "steps", "batch_size", "held", "size", "seed")
    settings = Settings(**{name: getattr(options, name) for name in names})
    print(markdown(run(options, settings, Console(stderr=True))))


if __name__ == "__main__":
    main()
