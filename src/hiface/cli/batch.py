# SPDX-License-Identifier: Apache-2.0
"""Runs a list of photos; one bad photo never stops the others, and a killed run leaves only whole folders."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from hiface.atomic import atomic_write_text
from hiface.cli.folders import prepare_folder, unique_names
from hiface.data import Photo, PhotoStore, StoredPhoto
from hiface.errors import HifaceError, OutputError
from hiface.reconstructor import Reconstructor
from hiface.saving import SaveOptions, save_deca, save_person

DONE_FILE = "photo.json"
PERSON_FILE = "person.json"
DECA = "deca"
"""The one format of a batch that is written in DECA's layout."""


@dataclass(frozen=True)
class BatchOptions:
    """Where and what to write.

    Attributes:
        out: Output folder.
        formats: Subset of glb, obj, dense, ply, json, maps, overview; or `DECA` alone.
        save: How faces are written.
        made_with: Options that results depend on, in JSON's types; kept beside results.
        resume: Skip photos that are done with the same `made_with`.
        taken: Folders of all photos, in small letters, for `DECA`; `run_batch` and `run_person` fill it in.
    """

    out: Path
    formats: tuple[str, ...]
    save: SaveOptions = field(default_factory=SaveOptions)
    made_with: dict[str, object] = field(default_factory=dict)
    resume: bool = False
    taken: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Row:
    """Outcome of one photo.

    Attributes:
        photo: Path as given.
        status: "ok", "no_face", "unreadable", "too_large", ...
        faces: Number of faces written.
        seconds: Time spent.
        detail: Folder written, or the reason of a failure.
        likeness: Of photos of one person, how like the face is to those of the others (`one_person`), -1..1.
    """

    photo: str
    status: str
    faces: int
    seconds: float
    detail: str
    likeness: float | None = None


def run_batch(
    reconstructor: Reconstructor, files: list[Path], options: BatchOptions, advance: Callable[[str], None]
) -> list[Row]:
    """Reconstructs every file and writes OUT/summary.json, also when interrupted.

    Args:
        reconstructor: Ready to use.
        files: Picture files.
        options: Where and what to write.
        advance: Called with a file's name when it is done.

    Returns:
        A row per file.

    Raises:
        OutputError: The output folder cannot be made or written.
    """
    prepare_folder(options.out)
    rows: list[Row] = []
    names = unique_names(files)
    options = replace(options, taken=frozenset(name.casefold() for name in names))
    try:
        for path, name in zip(files, names, strict=True):
            rows.append(_run_one(reconstructor, path, options.out / name, options))
            advance(path.name)
    finally:
        _write_json(options.out / "summary.json", [asdict(row) for row in rows])
    return rows


def run_person(
    reconstructor: Reconstructor, files: list[Path], options: BatchOptions, advance: Callable[[str], None]
) -> list[Row]:
    """Reconstructs one person from all files together; writes what `run_batch` writes.

    Args:
        reconstructor: Ready to use.
        files: Photos of one person.
        options: Where and what to write; with `resume` nothing is done if an earlier run has finished with
            just these photos and options.
        advance: Called with a file's name when it is done.

    Returns:
        A row per file.

    Raises:
        OutputError: The output folder cannot be made or written.
    """
    prepare_folder(options.out)
    names = unique_names(files)
    options = replace(options, taken=frozenset(name.casefold() for name in names))
    folders = dict(zip(files, (options.out / name for name in names), strict=True))
    rows = _person_before(folders, options) if options.resume else {}
    try:
        for path, row in _person_rows(reconstructor, folders, options) if not rows else ():
            rows[path] = row
            advance(path.name)
        photos = [asdict(rows[path]) for path in files]
        _write_json(options.out / PERSON_FILE, {"photos": photos, "made_with": options.made_with})
        return [rows[path] for path in files]
    finally:
        _write_json(options.out / "summary.json", [asdict(rows[path]) for path in files if path in rows])


def _person_before(folders: dict[Path, Path], options: BatchOptions) -> dict[Path, Row]:
    """Rows of an earlier run of the same kind whose folders are still its own; empty if there is none."""
    old = _read_done(options.out / PERSON_FILE, options)
    rows = {Path(row["photo"]): Row(**row) for row in old["photos"]} if old else {}
    whole = all(
        folders[path].is_dir() and not (folders[path] / DONE_FILE).exists()
        for path, row in rows.items()
        if path in folders and row.status == "ok"
    )
    if not whole or list(rows) != list(folders):
        return {}
    return {
        path: replace(row, seconds=0.0, detail=f"{row.detail} (done before)") for path, row in rows.items()
    }


def _person_rows(
    reconstructor: Reconstructor, folders: dict[Path, Path], options: BatchOptions
) -> Iterator[tuple[Path, Row]]:
    """Files with what became of them; those that were fitted are written when their row comes."""
    started = time.perf_counter()
    photos: dict[Path, Photo] = {}
    store = PhotoStore()
    for path in folders:
        try:
            photos[path] = StoredPhoto(path, store)
        except HifaceError as error:
            yield path, Row(str(path), error.status, 0, 0.0, str(error))
    try:
        found, likeness = reconstructor.find_person(list(photos.values())) if photos else ([], [])
        faces = reconstructor.together(found) if found else []
    except HifaceError as error:
        yield from ((path, Row(str(path), error.status, 0, 0.0, str(error))) for path in photos)
        return
    seconds = (time.perf_counter() - started) / max(1, len(faces))
    results = {id(face.photo): (face, like) for face, like in zip(faces, likeness, strict=True)}
    for path, photo in photos.items():
        face, like = results.get(id(photo), (None, None))
        if face is None:
            yield path, Row(str(path), "no_face", 0, 0.0, "no face was found")
            continue
        try:
            _write_photo([face], folders[path], options)
        except OutputError:
            raise
        except HifaceError as error:
            yield path, Row(str(path), error.status, 0, seconds, str(error))
        else:
            yield path, Row(str(path), "ok", 1, seconds, str(folders[path]), like)


def _run_one(reconstructor: Reconstructor, path: Path, folder: Path, options: BatchOptions) -> Row:
    started = time.perf_counter()
    done = _done_before(path, folder, options) if options.resume else None
    if done is not None:
        return done
    try:
        faces = reconstructor.reconstruct(path)
        if not faces:
            return Row(str(path), "no_face", 0, time.perf_counter() - started, "no face was found")
        _write_photo(faces, folder, options)
    except OutputError:
        raise
    except HifaceError as error:
        return Row(str(path), error.status, 0, time.perf_counter() - started, str(error))
    row = Row(str(path), "ok", len(faces), time.perf_counter() - started, str(folder))
    _write_json(folder / DONE_FILE, {**asdict(row), "made_with": options.made_with})
    return row


def _write_json(path: Path, content: object) -> None:
    atomic_write_text(path, json.dumps(content, indent=1) + "\n")


def _read_done(path: Path, options: BatchOptions) -> dict | None:
    """What an earlier run with the same options has left when it had finished."""
    if not path.is_file():
        return None
    done = json.loads(path.read_text(encoding="utf-8"))
    return done if isinstance(done, dict) and done.get("made_with") == options.made_with else None


def _done_before(path: Path, folder: Path, options: BatchOptions) -> Row | None:
    """The row of a photo that an earlier run has finished."""
    old = _read_done(folder / DONE_FILE, options)
    if old is None or old["photo"] != str(path):
        return None
    names = face_names(folder, old["faces"], options.taken) if DECA in options.formats else ()
    if not all((folder.parent / name).is_dir() for name in names):
        return None
    return Row(str(path), old["status"], old["faces"], 0.0, f"{folder} (done before)")


def face_names(folder: Path, count: int, taken: frozenset[str]) -> list[str]:
    """Folders of the faces of a photo in DECA's layout: anna, anna_2, anna_3, past those of other photos."""
    names = (f"{folder.name}_{n}" for n in itertools.count(2))
    free = (n for n in names if n.casefold() not in taken and not (folder.parent / n / DONE_FILE).exists())
    return [folder.name, *itertools.islice(free, count - 1)]


def _remove_surplus(folder: Path, count: int, options: BatchOptions) -> None:
    """Faces beyond `count` that an earlier run in DECA's layout has left."""
    path = folder / DONE_FILE
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if DECA in old.get("made_with", {}).get("formats", ()):
        for name in face_names(folder, old["faces"], options.taken)[count:]:
            shutil.rmtree(folder.parent / name, ignore_errors=True)
            (folder.parent / f"{name}_vis.jpg").unlink(missing_ok=True)


def _write_photo(faces: list, folder: Path, options: BatchOptions) -> None:
    """Writes all persons into a hidden sibling and renames it, so that a folder is whole or absent."""
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        partial.chmod(0o755)
        if DECA in options.formats:
            names = face_names(folder, len(faces), options.taken)
            for face, name in zip(faces, names, strict=True):
                save_deca(face, partial, name, options.save)
            whole = [partial / part for name in reversed(names) for part in (f"{name}_vis.jpg", name)]
            _remove_surplus(folder, len(faces), options)
        else:
            for i, face in enumerate(faces, start=1):
                person = partial / f"person{i}"
                person.mkdir()
                save_person(face, person, options.formats, options.save)
            whole = [partial]
        for part in whole:
            place = folder if part == partial else folder.parent / part.name
            if place.is_dir():
                shutil.rmtree(place)
            part.replace(place)
    except OSError as error:
        raise OutputError(
            f"cannot write {folder} ({error.strerror}); choose another folder with -o"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
