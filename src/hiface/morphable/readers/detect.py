# SPDX-License-Identifier: Apache-2.0
"""Finds the reader of a face-model file from what is in it, not from its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from hiface.errors import ModelFormatError
from hiface.morphable.data import MorphableModelData
from hiface.morphable.numpy_files import NPY_MAGIC, ZIP_MAGIC, npz_names, read_npy
from hiface.morphable.readers import bfm2009, bfm_h5, bilinear, flame, hiface_file, hifi3dpp, ict
from hiface.morphable.readers.matlab import mat_names

_LARGEST_HEAD = 2**30  # of a safetensors file, whose length comes first
_HDF_MAGIC = b"\x89HDF\r\n\x1a\n"
_BESIDE = (*flame.BESIDE, *bfm2009.BESIDE, *bilinear.BESIDE, *ict.BESIDE)
_INSIDE = (
    *ict.BESIDE,
    *(f"FaceXModel/{name}" for name in ict.BESIDE),
    bilinear.SHAPE_FILE,
    bilinear.MESH_FILES,
)
_PICKLE_STARTS = (b"\x80", b"(", b"}", b"c")


@dataclass(frozen=True)
class ModelFormat:
    """What hiface knows of a format, for lists and messages.

    Attributes:
        key: Short name, also the model's after reading (a family for the Basel .h5 files and FaceScape).
        title: Full name.
        files: Files to get.
        licence: Licence in a few words.
        commercial: Whether commercial use is allowed: "yes", "no" or what it depends on.
        source: Where it is obtained.
        extra: Extra of hiface that reading needs, or "".
        read: The reader.
    """

    key: str
    title: str
    files: str
    licence: str
    commercial: str
    source: str
    extra: str
    read: Callable[[Path, torch.dtype], MorphableModelData]


def _flame(path: Path, dtype: torch.dtype) -> MorphableModelData:
    return flame.read_flame(path, dtype=dtype)


FORMATS = {
    entry.key: entry
    for entry in (
        ModelFormat(
            "flame",
            "FLAME 2020, 2023",
            "generic_model.pkl, flame2023.pkl, flame2023_no_jaw.pkl, flame2023_Open.pkl",
            "Max Planck Society, research only",
            "no ('FLAME 2023 Open': see its page)",
            "flame.is.tue.mpg.de",
            "",
            _flame,
        ),
        ModelFormat(
            "bfm2009",
            "Basel Face Model 2009",
            "01_MorphableModel.mat (+ Exp_Pca.bin, std_exp.txt, BFM_exp_idx.mat)",
            "University of Basel, research only",
            "no",
            "faces.dmi.unibas.ch/bfm",
            "eval",
            bfm2009.read_bfm2009,
        ),
        ModelFormat(
            "bfm_h5",
            "Basel Face Model 2017, 2019",
            "model2017-1_*.h5, model2019_*.h5",
            "University of Basel, research only",
            "no",
            "faces.dmi.unibas.ch/bfm",
            "eval",
            bfm_h5.read_bfm_h5,
        ),
        ModelFormat(
            "hifi3dpp",
            "HIFI3D, HIFI3D++",
            "HIFI3D++.mat, AI-NExT-Shape.mat",
            "research only",
            "no (ask the authors)",
            "github.com/czh-98/REALY, github.com/tencent-ailab/hifi3dface",
            "eval",
            hifi3dpp.read_hifi3dpp,
        ),
        ModelFormat(
            "ict",
            "ICT-FaceKit light",
            "folder FaceXModel",
            "MIT",
            "yes",
            "github.com/ICT-VGL/ICT-FaceKit",
            "",
            ict.read_ict,
        ),
        ModelFormat(
            "bilinear",
            "FaceScape, FaceWarehouse",
            "facescape_bm_v1.6_*_id.npz, core_847_50_52.npy, folder of Tester_*",
            "universities of Nanjing and Zhejiang, research only",
            "no",
            "facescape.nju.edu.cn, kunzhou.net/zjugaps/facewarehouse",
            "",
            bilinear.read_bilinear,
        ),
        ModelFormat(
            "hiface",
            "converted by hiface",
            "*.safetensors",
            "that of the original",
            "as the original",
            "hiface models convert",
            "",
            hiface_file.read_model_file,
        ),
    )
}


def detect_format(path: str | Path) -> ModelFormat:
    """Finds the format of a file or folder.

    Args:
        path: What `hiface models list` names.

    Returns:
        Entry of `FORMATS`.

    Raises:
        ModelFormatError: No known face model; the message says what was found.
        MissingExtraError: A package is needed even to look inside.
    """
    path = Path(path)
    if path.is_dir():
        return FORMATS[_of_folder(path)]
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read ({error.strerror}); check its name") from error
    return FORMATS[_of_file(path, start)]


def read_model(path: str | Path, dtype: torch.dtype = torch.float32) -> MorphableModelData:
    """Reads any of the known face models.

    Args:
        path: File or folder.
        dtype: Of the tensors.

    Returns:
        The model in metres, object space, on the CPU.

    Raises:
        ModelFormatError: Not a known model, damaged, of another version, or larger than the memory.
        MissingExtraError: An optional package is needed.
    """
    path = Path(path)
    try:
        return detect_format(path).read(path, dtype)
    except MemoryError as error:
        raise ModelFormatError(
            f"{path.name}: the memory of this computer does not suffice for it; the file is damaged or the "
            "model too large"
        ) from error


def stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time of change (ns) and size of a model's file and of those around it that a reader may take.

    Args:
        path: File or folder that exists.
    """
    folder, patterns = (path, _INSIDE) if path.is_dir() else (path.parent, _BESIDE)
    files = {path} | {file for pattern in patterns for file in folder.glob(pattern)}
    found = []
    for file in sorted(files):
        try:
            state = file.stat()
        except OSError:  # gone in the meantime, or a link to nothing
            continue
        found.append((str(file), state.st_mtime_ns, state.st_size))
    return tuple(found)


def _of_folder(path: Path) -> str:
    if (path / ict.NEUTRAL).is_file() or (path / "FaceXModel" / ict.NEUTRAL).is_file():
        return "ict"
    if next(path.glob(bilinear.SHAPE_FILE), None) is not None:
        return "bilinear"
    raise _unknown(path, f"a folder without FaceXModel/{ict.NEUTRAL} and without {bilinear.SHAPE_FILE}")


def _of_file(path: Path, start: bytes) -> str:
    if path.name == ict.NEUTRAL:
        return "ict"
    if start.startswith(_HDF_MAGIC):
        return "bfm_h5"
    if start.startswith(b"MATLAB"):
        return _of_mat(path)
    if start.startswith(ZIP_MAGIC):
        names = npz_names(path)
        if "shape_bm_core" in names:
            return "bilinear"
        what = (
            "FLAME's texture space, which belongs beside the model" if "tex_dir" in names else "a .npz file"
        )
        raise _unknown(path, f"{what} with {', '.join(names[:8]) or 'nothing'}")
    if start.startswith(NPY_MAGIC):
        content = read_npy(path)
        if getattr(content, "ndim", 0) == 3:
            return "bilinear"
        raise _unknown(path, "a .npy file without a core tensor (landmarks belong beside the model)")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < _LARGEST_HEAD:
        return "hiface"
    if start.startswith(_PICKLE_STARTS):
        return "flame"
    raise _unknown(
        path, f"an empty file of {path.stat().st_size} bytes" if not start else f"bytes {start[:8]!r}"
    )


def _of_mat(path: Path) -> str:
    names = mat_names(path)
    if "shapeMU" in names:
        return "bfm2009"
    if "mu_shape" in names:
        return "hifi3dpp"
    raise _unknown(path, f"a MATLAB file with {', '.join(names[:8]) or 'nothing'}")


def _unknown(path: Path, found: str) -> ModelFormatError:
    return ModelFormatError(
        f"{path.name or path}: expected a face model ('hiface models list' names them), found {found}"
    )
