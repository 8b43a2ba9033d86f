# SPDX-License-Identifier: Apache-2.0
"""Every error that `hiface` raises for bad input; each message names the fix."""

from __future__ import annotations


class HifaceError(Exception):
    """Base of all errors raised by hiface for a reason the caller can act on.

    Attributes:
        status: Short machine-readable word used in batch summaries and JSON.
    """

    status = "error"


class ImageError(HifaceError):
    """A picture cannot be used."""

    status = "bad_image"


class UnreadableImageError(ImageError):
    """The file is missing, a folder, truncated, corrupted or not a picture."""

    status = "unreadable"


class ImageTooLargeError(ImageError):
    """The picture has more pixels than hiface is willing to decode."""

    status = "too_large"


class ImageTooSmallError(ImageError):
    """The picture is too small to hold a face."""

    status = "too_small"


class VideoError(HifaceError):
    """A video, a folder of pictures or a camera cannot be read, or a video cannot be written."""

    status = "bad_video"


class NoFaceError(HifaceError):
    """No face was found where one is required."""

    status = "no_face"


class MissingPredictionError(HifaceError):
    """Another program has written nothing for a photo; the message has the names that were looked for."""

    status = "missing"


class AssetError(HifaceError):
    """A packaged file (model, weights, landmark set) is missing, damaged or of the wrong kind."""

    status = "asset"


class ModelFormatError(AssetError):
    """A face-model file does not have the expected content."""

    status = "model_format"


class ShapeError(HifaceError, ValueError):
    """A tensor does not have the expected shape."""

    status = "shape"


class MissingExtraError(HifaceError, ImportError):
    """An optional dependency is needed for this call; the message has the line to type."""

    status = "missing_extra"


class DifferentPeopleError(HifaceError):
    """Photos that are said to show one person do not; the message names those that stand out."""

    status = "different_people"


class OutputError(HifaceError):
    """The output folder or file cannot be written."""

    status = "output"


class OptionError(HifaceError, ValueError):
    """An option has a value that does not exist; the message lists those that do."""

    status = "option"


class FitError(HifaceError):
    """Fitting could not produce a usable face (for example non-finite parameters)."""

    status = "fit_failed"


class FaceFileError(HifaceError):
    """A `face.json` cannot be read or written: missing, damaged, of another kind or of an unknown version."""

    status = "face_file"


class MeshFileError(HifaceError):
    """A mesh or its landmarks cannot be read: missing, damaged, empty or not finite."""

    status = "mesh_file"


class TopologyError(MeshFileError):
    """A mesh has other vertices or triangles than its template; the message says what was expected."""

    status = "topology"


class EvaluationDataError(HifaceError):
    """Data of a benchmark does not have the expected layout; the message says what was looked for."""

    status = "evaluation_data"


class LiveLinkError(HifaceError):
    """A Live Link packet is malformed, or its port or host cannot be used."""

    status = "live_link"
