# SPDX-License-Identifier: Apache-2.0
"""Methods by name; their packages are imported when they are loaded."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

from hiface.errors import OptionError
from hiface.evaluation.method import Method
from hiface.methods.eos_fit import EosMethod
from hiface.methods.folder import FolderMethod
from hiface.methods.landmark_fit import LandmarkFitMethod
from hiface.methods.mean_face import MeanFaceMethod
from hiface.methods.mediapipe_landmarker import MediapipeMethod
from hiface.methods.options import FOLDER, METHOD_NAMES, MethodOptions
from hiface.methods.ours import HifaceMethod

_USED_BY = {
    "weights": ("hiface", "hiface-refine"),
    "face_model": ("hiface-fit", "landmarks", "mean"),
    "eos_share": ("eos",),
    "mediapipe_model": ("mediapipe",),
    "template": (f"{FOLDER}PATH",),
}


def check_options(text: str, options: MethodOptions) -> None:
    """Raises OptionError if an option is given that this method would not look at."""
    for name, users in _USED_BY.items():
        own = f"{FOLDER}PATH" if text.strip().startswith(FOLDER) else text.strip()
        if getattr(options, name) is not None and own not in users:
            raise OptionError(f"--{name.replace('_', '-')} is for {', '.join(users)}, not for {text}")


def networks_digest() -> str:
    """Hash of the packaged networks: predictions of others are not taken for theirs."""
    digest = hashlib.sha256()
    for path in sorted((files("hiface") / "assets" / "weights").iterdir(), key=lambda path: path.name):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def make_method(text: str, options: MethodOptions | None = None) -> Method:
    """A method by its name; nothing is read before its `load`.

    Args:
        text: One of `METHOD_NAMES`; "folder:PATH" with the folder of meshes.
        options: What it may need.

    Returns:
        The method.

    Raises:
        OptionError: There is no such method.
    """
    options = options or MethodOptions()
    name = text.strip()
    face_model = "open" if options.face_model is None else str(options.face_model)
    if name == "hiface" or name == "hiface-refine":
        return HifaceMethod(name, options.weights, options.device)
    if name == "hiface-fit":
        return HifaceMethod(name, device=options.device, face_model=face_model)
    if name == "mean":
        return MeanFaceMethod(face_model)
    if name == "landmarks":
        return LandmarkFitMethod(face_model)
    if name == "eos":
        return EosMethod(options.eos_share)
    if name == "mediapipe":
        return MediapipeMethod(options.mediapipe_model)
    if name.startswith(FOLDER) and len(name) > len(FOLDER):
        return FolderMethod(Path(name.removeprefix(FOLDER)), options.template)
    raise OptionError(f"unknown method {text!r}; choose one of {', '.join(METHOD_NAMES)}")
