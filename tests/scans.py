"""People of the open model, and their heads as ground truth of REALY and NoW."""

import torch

import hiface
from hiface.evaluation.metrics import open_scans
from hiface.evaluation.metrics.realy import PredictedMesh

UNIT_M = open_scans.UNIT_M


def shape(seed, spread=1.0):
    """[V, 3] metres, a person of the open model."""
    model = hiface.load_model()
    gen = torch.Generator().manual_seed(seed)
    identity = spread * torch.randn(model.data.n_identity, generator=gen)
    return model.shape(identity, torch.zeros(len(model.data.expression_names)))


def keypoints(vertices):
    """[85, 3] REALY's keypoints on a head of the open model."""
    return hiface.load_model().landmarks("realy85", vertices)


def predicted(vertices):
    """A head of the open model as a prediction."""
    return PredictedMesh(vertices, hiface.load_model().triangles, keypoints(vertices))


def region_masks():
    """Region to [V] bool."""
    return open_scans.region_masks(hiface.load_model())


def subject(vertices, steps=0, name="1"):
    """A head as a subject of REALY."""
    return open_scans.subject_of(hiface.load_model(), vertices, steps, name)
