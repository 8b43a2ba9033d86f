# SPDX-License-Identifier: Apache-2.0
"""Reads any ordinary picture as upright 8-bit sRGB; everything else is a typed error."""

from __future__ import annotations

import io
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from hiface.errors import ImageError, ImageTooLargeError, ImageTooSmallError, UnreadableImageError

MAX_PIXELS = 120_000_000
MIN_SIDE_PX = 2
STORED_PHOTOS = 3
"""Number of photos of a person that are in memory at a time."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jfif", ".avif")
_FULL_FRAME_DIAGONAL_MM = 43.267


@dataclass(frozen=True)
class Photo:
    """An upright picture.

    Attributes:
        image_srgb: [H, W, 3] uint8, EXIF rotation applied, alpha composited on white.
        focal_px: Focal length from EXIF in pixels of this picture, or None.
        path: File it came from, or None.
    """

    image_srgb: np.ndarray
    focal_px: float | None = None
    path: Path | None = None

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.image_srgb.shape[1]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.image_srgb.shape[0]


class PhotoStore:
    """Reads photos and remembers the last few; a file that has changed meanwhile is read anew."""

    def __init__(self, capacity: int = STORED_PHOTOS) -> None:
        self._capacity = capacity
        self._photos: OrderedDict[tuple[str, int, int], Photo] = OrderedDict()

    def read(self, path: Path) -> Photo:
        """What `read_photo` returns or raises."""
        try:
            about = path.stat()
        except OSError:
            return read_photo(path)
        key = str(path.absolute()), about.st_mtime_ns, about.st_size
        if key not in self._photos:
            self._photos[key] = read_photo(path)
        self._photos.move_to_end(key)
        while len(self._photos) > self._capacity:
            self._photos.popitem(last=False)
        return self._photos[key]


class StoredPhoto(Photo):
    """A picture that is read from its file again when its pixels are asked for.

    Photos that share a store take no more memory than the few that it remembers. Pixels of a file that has
    gone meanwhile raise UnreadableImageError.
    """

    def __init__(self, path: str | Path, store: PhotoStore) -> None:
        """Reads the file once; raises what `read_photo` raises."""
        path = Path(path).absolute()
        object.__setattr__(self, "focal_px", store.read(path).focal_px)
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "_store", store)

    @property
    def image_srgb(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleVariableOverride]
        """[H, W, 3] uint8."""
        return self._store.read(self.path).image_srgb  # pyright: ignore[reportAttributeAccessIssue]


def read_photo(source: str | Path | np.ndarray) -> Photo:
    """Reads a picture from a file or an array.

    Args:
        source: Path of a picture, or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], uint8, uint16 or
            float in 0..1, sRGB.

    Returns:
        The upright picture.

    Raises:
        UnreadableImageError: Missing, a folder, truncated, corrupted or of an unknown format.
        ImageTooLargeError: More than `MAX_PIXELS` pixels.
        ImageTooSmallError: A side is under `MIN_SIDE_PX` pixels.
        ImageError: An array of the wrong shape or type.
    """
    if isinstance(source, np.ndarray):
        return Photo(_check_size(_array_to_rgb8(source)))
    path = Path(source)
    if path.is_dir():
        raise UnreadableImageError(f"{path} is a folder; name a picture in it, or use {path}/*")
    if not path.exists():
        raise UnreadableImageError(f"{path} does not exist; check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.verify()  # checksums, where the format has them; a second open is needed to decode
            with Image.open(path) as picture:
                _refuse_bomb(picture.width, picture.height, path.name)
                focal_px = _focal_from_exif(picture)
                picture.load()
                upright = ImageOps.exif_transpose(picture)
                rgb = _to_rgb8(upright)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"{path.name} has too many pixels ({error}); resize it first") from error
    except UnidentifiedImageError as error:
        kinds = "JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF"
        raise UnreadableImageError(
            f"{path.name} is not a picture that can be read; convert it to {kinds}"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise UnreadableImageError(
            f"{path.name} is damaged or incomplete ({error}); export it again"
        ) from error
    return Photo(_check_size(rgb), focal_px, path)


def _refuse_bomb(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ImageTooLargeError(
            f"{name} has {width} x {height} = {width * height / 1e6:.0f} megapixels, the limit is "
            f"{MAX_PIXELS / 1e6:.0f}; resize it, 4000 pixels a side are plenty"
        )


def _check_size(rgb: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        raise ImageTooSmallError(f"the picture is {width} x {height} pixels; a face needs at least 20")
    return rgb


def _array_to_rgb8(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(
            f"an image array must be [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], got {array.shape}"
        )
    _refuse_bomb(array.shape[1], array.shape[0], "the array")
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        array = (np.nan_to_num(array).clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise ImageError(f"an image array must be uint8, uint16, bool or float in 0..1, got {array.dtype}")
    if array.shape[2] == 4:
        return _on_white(Image.fromarray(array, "RGBA"))
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)))


def _to_rgb8(picture: Image.Image) -> np.ndarray:
    """Any PIL mode to [H, W, 3] uint8 sRGB."""
    if picture.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _deep_grey_to_rgb8(np.asarray(picture))
    if picture.mode in ("P", "LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        return _on_white(picture.convert("RGBA"))
    return np.array(_profile_to_srgb(picture))


def _deep_grey_to_rgb8(values: np.ndarray) -> np.ndarray:
    """16-bit, 32-bit or float grey to 8 bits; the scale follows the largest value."""
    grey = np.nan_to_num(values.astype(np.float32))
    top = 1.0 if grey.max() <= 1.0 else 255.0 if grey.max() <= 255.0 else 65535.0
    grey8 = (grey.clip(0.0, top) * (255.0 / top) + 0.5).astype(np.uint8)
    return np.repeat(grey8[..., None], 3, axis=2)


def _on_white(picture: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    white.alpha_composite(picture)
    return np.array(white.convert("RGB"))


def _profile_to_srgb(picture: Image.Image) -> Image.Image:
    """Converts from the embedded colour profile (Display P3, Adobe RGB, CMYK ...) where one is usable."""
    profile = picture.info.get("icc_profile")
    if profile and picture.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            return picture.convert("RGB")
    return picture.convert("RGB")


def _focal_from_exif(picture: Image.Image) -> float | None:
    """Focal length in pixels from the 35 mm equivalent: f_px = f_35 / 43.27 mm * diagonal."""
    try:
        exif = picture.getexif().get_ifd(ExifTags.IFD.Exif)
        focal_35mm = float(exif.get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
    except (OSError, ValueError, TypeError, SyntaxError, ZeroDivisionError):
        return None
    if not 8.0 <= focal_35mm <= 800.0:
        return None
    return focal_35mm / _FULL_FRAME_DIAGONAL_MM * float(np.hypot(picture.width, picture.height))
