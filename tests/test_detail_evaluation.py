"""The re-expression test and the consistency of codes."""

import numpy as np
import pytest
import torch

import hiface
from hiface.detail.basis import STATES, load_detail_basis
from hiface.errors import ShapeError
from hiface.evaluation.consistency import variance_ratio
from hiface.evaluation.reexpression import detail_scores, reexpressed, wrinkled_texels
from hiface.networks.sd_detail import SdDetail
from hiface.synthetic.people import sample_person
from hiface.synthetic.wrinkles import person_detail, picture_displacement


def test_scores_of_known_maps():
    truth = torch.tensor([[1e-4, -1e-4, 0.0, 5.0]])
    texels = torch.tensor([True, True, True, False])
    perfect = detail_scores(truth, truth, texels)
    assert perfect.rms_um == 0 and perfect.ratio == 0 and perfect.correlation == pytest.approx(1)
    none = detail_scores(torch.zeros_like(truth), truth, texels)
    assert none.ratio == pytest.approx(1) and none.correlation == 0
    assert none.rms_um == pytest.approx(100 * (2 / 3) ** 0.5, rel=1e-6)
    assert detail_scores(-truth, truth, texels).correlation == pytest.approx(-1)
    with pytest.raises(ShapeError, match="two maps"):
        detail_scores(truth[:, :2], truth, texels)


class TrueCodes(torch.nn.Module):
    """Dynamic codes of known people, found by their static ones."""

    def __init__(self, static, dynamic):
        super().__init__()
        self.known, self.answers = static, dynamic

    def forward(self, static, expression):
        return self.answers[torch.cdist(static, self.known).argmin(1)]


def test_static_and_dynamic_beat_every_other_way_when_the_codes_are_true():
    """The order that the test is made to show, with the truth in place of a network's answers."""
    model, basis = hiface.load_model("open"), load_detail_basis()
    people = [sample_person(model, np.random.default_rng([i, 31])) for i in range(10)]
    details = [person_detail(model, p.identity, p.wrinkles) for p in people]
    codes = {
        s: torch.stack([getattr(basis, s).encode(basis.gather(getattr(d, s))) for d in details])
        for s in STATES
    }
    identity = torch.stack([p.identity for p in people])
    seen = model.expression_vector({"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0}).expand(10, -1)
    target = model.expression_vector({"browInnerUp": 1.0, "noseSneerLeft": 0.8}).expand(10, -1)
    truth = torch.stack(
        [
            basis.gather(picture_displacement(model, d, model.shape(p.identity, target[0])))
            for p, d in zip(people, details, strict=True)
        ]
    )
    dynamic = torch.cat([codes["compressed"], codes["stretched"]], dim=1)
    detail = SdDetail(basis, TrueCodes(codes["static"], dynamic))  # pyright: ignore[reportArgumentType]
    maps = reexpressed(model, detail, identity, codes["static"], seen, target)
    texels = wrinkled_texels(basis)
    assert 0.05 < float(texels.float().mean()) < 0.9
    scores = {name: detail_scores(values, truth, texels) for name, values in maps.items()}
    assert scores["none"].ratio == pytest.approx(1)
    for other in ("none", "static", "dynamic", "frozen"):
        assert scores["both"].ratio < 0.8 * scores[other].ratio, (other, scores)
        assert scores["both"].correlation > scores[other].correlation
    assert scores["both"].correlation > 0.75


def test_a_code_of_the_person_alone_has_no_variance_within():
    gen = torch.Generator().manual_seed(0)
    person = torch.randn(200, 1, 6, generator=gen)
    noise = torch.randn(200, 4, 6, generator=gen)
    form = torch.rand(6, generator=gen) + 0.1
    assert variance_ratio(person.expand(-1, 4, -1), form) == 0
    assert variance_ratio(person + 0.5 * noise, form) == pytest.approx(0.25, rel=0.2)
    assert variance_ratio(person + 0.5 * noise, torch.diag(form)) == pytest.approx(
        variance_ratio(person + 0.5 * noise, form), rel=1e-4
    )
    assert variance_ratio(noise, form) > 5  # no person in it at all
    with pytest.raises(ShapeError, match="2 x 2"):
        variance_ratio(noise[:, :1], form)
