# SPDX-License-Identifier: Apache-2.0
"""Samples as arrays, and as the small files that one sample is in a shard.

| file | content |
| --- | --- |
| image.png | sRGB |
| alpha.png | coverage of the person, 0..255 |
| mask.png | segmentation |
| labels.npz | points, visibility, coefficients, camera |
| depth.png, sensor_depth.png | 16 bit, tenths of a millimetre, 0 for nothing |
| normals.png | (n + 1) / 2 of 255, camera axes; 0 for nothing |
| albedo.png | sRGB |
| uv.npy, shading.npy, flow.npy | float16 [C, S, S] |
| flow_valid.png | 0 or 255 |
| vertices.npy | float32 [V, 3] |
| displacement.png, displacement_STATE.png | 16 bit, tenths of a micrometre + 32768 |
| detail_codes.npy | float16 [n], standard deviations |
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

import numpy as np
import torch

from hiface.colour import srgb_to_linear
from hiface.errors import AssetError
from hiface.synthetic.generator import SyntheticSample
from hiface.synthetic.pixels import normal_pixels, png_bytes, png_pixels, srgb_pixels, step_pixels
from hiface.types import Camera, FaceParams

PICTURES = ("image.png", "alpha.png", "mask.png")
LABELS_FILE = "labels.npz"
_POINTS = ("landmarks68_px", "dense_px", "iris_px", "visible68", "visible_dense", "visible_iris")
_FIELDS = (*_POINTS, "depth68_cam", "box", "T_cam_head")
_PARAMS = ("identity", "expression", "pose", "albedo", "light")
_CAMERA = ("K", "T_cam_object")
_DEPTH_STEP_M = 1e-4
_DISPLACEMENT_STEP_M, _DISPLACEMENT_ZERO = 1e-7, 32768
_ZIP_LOCAL, _ZIP_CENTRAL, _ZIP_END = "<4s5H3L2H", "<4s6H3L5H2L", "<4s4H2LH"
_ZIP_VERSION, _ZIP_DATE = 20, 0x21  # the first of January 1980, so that the same arrays give the same bytes


def _interleaved(planes: np.ndarray) -> np.ndarray:
    """[3, S, S] as [S, S, 3], in a third of the time of a general copy."""
    out = np.empty((*planes.shape[1:], len(planes)), dtype=planes.dtype)
    for channel, plane in enumerate(planes):
        out[..., channel] = plane
    return out


def sample_arrays(sample: SyntheticSample) -> dict[str, np.ndarray]:
    """A sample as arrays.

    Args:
        sample: The sample.

    Returns:
        "image" [S, S, 3], "alpha" and "mask" [S, S] uint8, the labels by name, and maps as "map.NAME".
    """
    out = {
        "image": _interleaved(sample.image_srgb.numpy()),
        "alpha": sample.alpha.numpy(),
        "mask": sample.segmentation.numpy(),
    }
    out |= {name: getattr(sample, name).numpy() for name in _FIELDS}
    out |= {name: getattr(sample.params, name).numpy() for name in _PARAMS}
    out |= {name: getattr(sample.params.camera, name).numpy() for name in _CAMERA}
    out["seed"] = np.asarray(sample.seed, dtype=np.int64)
    out["person"] = np.asarray(sample.person, dtype=np.int64)
    red, green, blue = sample.image_srgb.numpy()
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    out["grey"] = np.asarray(int((high - low).max()) < 12)
    return out | {f"map.{name}": values.numpy() for name, values in sample.maps.items()}


def sample_from_arrays(arrays: Mapping[str, np.ndarray]) -> SyntheticSample:
    """The inverse of `sample_arrays`.

    Raises:
        AssetError: A label is missing.
    """
    try:
        tensors = {name: torch.from_numpy(np.array(arrays[name])) for name in (*_FIELDS, *_PARAMS, *_CAMERA)}
        image = torch.from_numpy(np.array(arrays["image"])).permute(2, 0, 1).contiguous()
        alpha, mask = (torch.from_numpy(np.array(arrays[name])) for name in ("alpha", "mask"))
        seed, person = int(arrays["seed"]), int(arrays["person"])
    except KeyError as error:
        raise AssetError(f"a sample has no {error}; make the data again with this version") from error
    size = image.shape[-1]
    camera = Camera(tensors["K"], tensors["T_cam_object"], size, size)
    maps = {name[4:]: torch.from_numpy(np.array(v)) for name, v in arrays.items() if name.startswith("map.")}
    return SyntheticSample(
        image_srgb=image,
        alpha=alpha,
        segmentation=mask,
        params=FaceParams(*(tensors[name] for name in _PARAMS), camera=camera),
        seed=seed,
        person=person,
        maps=maps,
        **{name: tensors[name] for name in _FIELDS},
    )


@lru_cache(maxsize=256)
def _npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """What a .npy file begins with."""
    buffer = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def npy_bytes(values: np.ndarray) -> bytes:
    """An array as the bytes of a .npy file."""
    return _npy_header(values.dtype, values.shape) + values.tobytes()


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as the bytes of a .npz file; the same arrays give the same bytes.

    A zip archive of stored .npy files, written in one go: `np.savez` takes ten times as long for small
    arrays.
    """
    files, index, offset = [], [], 0
    for name, values in arrays.items():
        file_name = f"{name}.npy".encode()
        content = npy_bytes(values)
        sizes = (zlib.crc32(content), len(content), len(content), len(file_name), 0)
        about = (_ZIP_VERSION, 0, 0, 0, _ZIP_DATE, *sizes)
        files += [struct.pack(_ZIP_LOCAL, b"PK\3\4", *about), file_name, content]
        entry = struct.pack(_ZIP_CENTRAL, b"PK\1\2", _ZIP_VERSION, *about, 0, 0, 0, 0, offset)
        index += [entry, file_name]
        offset += struct.calcsize(_ZIP_LOCAL) + len(file_name) + len(content)
    directory = b"".join(index)
    counts = (0, 0, len(arrays), len(arrays), len(directory), offset, 0)
    return b"".join([*files, directory, struct.pack(_ZIP_END, b"PK\5\6", *counts)])


def npz_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The inverse of `npz_bytes`."""
    with np.load(io.BytesIO(content)) as stored:
        return {name: stored[name] for name in stored.files}


def _depth_png(depth: np.ndarray) -> bytes:
    return png_bytes(step_pixels(depth, _DEPTH_STEP_M))


def _depth_from(content: bytes) -> np.ndarray:
    return png_pixels(content).astype(np.float32) * np.float32(_DEPTH_STEP_M)


def _displacement_png(displacement: np.ndarray) -> bytes:
    return png_bytes(step_pixels(displacement, _DISPLACEMENT_STEP_M, _DISPLACEMENT_ZERO))


def _displacement_from(content: bytes) -> np.ndarray:
    steps = png_pixels(content).astype(np.float32) - _DISPLACEMENT_ZERO
    return steps * np.float32(_DISPLACEMENT_STEP_M)


def _normals_png(normals: np.ndarray) -> bytes:
    return png_bytes(normal_pixels(normals))


def _normals_from(content: bytes) -> np.ndarray:
    pixels = png_pixels(content).transpose(2, 0, 1).astype(np.float32)
    normals = pixels / 127.5 - 1.0
    normals /= np.maximum(np.linalg.norm(normals, axis=0, keepdims=True), 1e-6)
    return np.where(pixels.sum(axis=0, keepdims=True) > 0, normals, 0).astype(np.float32)


def _albedo_png(albedo: np.ndarray) -> bytes:
    return png_bytes(srgb_pixels(albedo))


def _albedo_from(content: bytes) -> np.ndarray:
    pixels = torch.from_numpy(png_pixels(content).astype(np.float32) / 255.0)
    return srgb_to_linear(pixels).permute(2, 0, 1).contiguous().numpy()


def _half(values: np.ndarray) -> bytes:
    return npy_bytes(torch.from_numpy(values).to(torch.float16).numpy())  # many times faster than numpy


def _plain_npy(content: bytes) -> np.ndarray:
    return np.load(io.BytesIO(content)).astype(np.float32)


def _flag_png(flags: np.ndarray) -> bytes:
    return png_bytes(flags.astype(np.uint8) * np.uint8(255))


# How each map is stored: ending, encoder, decoder. A new kind of map needs a line here and nothing else.
_MAPS: dict[str, tuple[str, Callable[[np.ndarray], bytes], Callable[[bytes], np.ndarray]]] = {
    "depth": ("png", _depth_png, _depth_from),
    "sensor_depth": ("png", _depth_png, _depth_from),
    "normals": ("png", _normals_png, _normals_from),
    "albedo": ("png", _albedo_png, _albedo_from),
    "uv": ("npy", _half, _plain_npy),
    "shading": ("npy", _half, _plain_npy),
    "flow": ("npy", _half, _plain_npy),
    "flow_valid": ("png", _flag_png, lambda content: png_pixels(content) > 0),
    "vertices": ("npy", npy_bytes, _plain_npy),
    "displacement": ("png", _displacement_png, _displacement_from),
    "displacement_static": ("png", _displacement_png, _displacement_from),
    "displacement_compressed": ("png", _displacement_png, _displacement_from),
    "displacement_stretched": ("png", _displacement_png, _displacement_from),
    "detail_codes": ("npy", _half, _plain_npy),
}
_FILES = {f"{name}.{ending}": name for name, (ending, _, _) in _MAPS.items()}


def map_file(name: str) -> str:
    """Name of the file of a map of a sample."""
    return f"{name}.{_MAPS[name][0]}"


def encode_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Arrays of a sample as files.

    Args:
        arrays: From `sample_arrays`.

    Returns:
        Content by name, in the order of the table above.
    """
    out = {name: png_bytes(arrays[name.removesuffix(".png")]) for name in PICTURES}
    taken = {name.removesuffix(".png") for name in PICTURES}
    labels = {k: v for k, v in arrays.items() if k not in taken and not k.startswith("map.")}
    out[LABELS_FILE] = npz_bytes(labels)
    for name, (ending, encode, _) in _MAPS.items():
        if f"map.{name}" in arrays:
            out[f"{name}.{ending}"] = encode(arrays[f"map.{name}"])
    return out


def decode_arrays(files: Mapping[str, bytes], maps: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The inverse of `encode_arrays`, up to the rounding of the maps.

    Args:
        files: Content by name.
        maps: Names of the maps to decode if they are there; all if None.

    Returns:
        As `sample_arrays`.

    Raises:
        AssetError: A file is missing or damaged.
    """
    try:
        out = {name.removesuffix(".png"): png_pixels(files[name]) for name in PICTURES}
        out |= npz_arrays(files[LABELS_FILE])
        chosen = [name for name in files if name in _FILES and (maps is None or _FILES[name] in maps)]
        out |= {f"map.{_FILES[name]}": _MAPS[_FILES[name]][2](files[name]) for name in chosen}
    except KeyError as error:
        raise AssetError(f"a sample has no {error}; make the data again with this version") from error
    except (OSError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile) as error:
        raise AssetError(f"a sample is damaged ({error}); make the data again") from error
    return out
