# SPDX-License-Identifier: Apache-2.0
"""Readers of the face models that the field has: one file per format, all giving the same model."""

from hiface.morphable.readers.bfm2009 import read_bfm2009
from hiface.morphable.readers.bfm_h5 import read_bfm_h5
from hiface.morphable.readers.bilinear import read_bilinear
from hiface.morphable.readers.detect import FORMATS, ModelFormat, detect_format, read_model
from hiface.morphable.readers.flame import read_flame
from hiface.morphable.readers.hiface_file import read_model_file, write_model
from hiface.morphable.readers.hifi3dpp import read_hifi3dpp
from hiface.morphable.readers.ict import read_ict

__all__ = [
    "FORMATS",
    "ModelFormat",
    "detect_format",
    "read_bfm2009",
    "read_bfm_h5",
    "read_bilinear",
    "read_flame",
    "read_hifi3dpp",
    "read_ict",
    "read_model",
    "read_model_file",
    "write_model",
]
