"""What the Brains hand to their losses, against what the data say."""

from types import SimpleNamespace

import pytest
import torch
from test_distributed import Views
from test_losses_dino import slow_dino

from speechbrain_ssl.brains.csc import CSCBrain
from speechbrain_ssl.brains.dino import DINOBrain
from speechbrain_ssl.brains.embedding import EmbeddingBrain
from speechbrain_ssl.evaluation.collapse import TeacherWatch
from speechbrain_ssl.lobes.csc import Slots
from speechbrain_ssl.lobes.dino import DINOHead
from speechbrain_ssl.lobes.teacher import Teacher
from speechbrain_ssl.losses.csc import SISNRLoss
from speechbrain_ssl.losses.dino import DINOLoss, VarianceLoss
from speechbrain_ssl.schedules import Linear


class Modules(dict):
    __getattr__ = dict.__getitem__


def brain_of(kind, step, monkeypatch, **hparams):
    """A Brain at a step that logs nothing."""
    brain = object.__new__(kind)
    brain.optimizer_step, brain.grad_accumulation_factor = step, 1
    brain.hparams = SimpleNamespace(**hparams)
    monkeypatch.setattr(kind, "add", lambda *_: None)
    return brain


def test_slots_carry_the_identity_that_they_hold(monkeypatch):
    seen = {}
    brain = brain_of(
        CSCBrain,
        0,
        monkeypatch,
        separation=SISNRLoss(),
        identities_per_batch=3,
        conditions=1,
        sources=2,
        contrastive=SimpleNamespace(log_set=torch.zeros(())),
    )

    def aggregator(slots, identities, _):
        seen["asked"] = identities

    def contrastive(slots, vectors, identities, **more):
        seen.update(slots=slots, identities=identities, **more)
        return torch.zeros(())

    def aam(slots, labels):
        seen.update(classified=slots[:, 0], labels=labels)
        return torch.tensor(3.0)

    brain.modules = Modules(
        aggregator=aggregator, contrastive=contrastive, aam=aam
    )
    torch.manual_seed(0)
    estimates, sources = torch.randn(2, 2, 2, 400)
    estimates[0] = sources[0].flip(0)
    sources[1, 1] = 0  # a single talker, in the second slot
    estimates[1, 0], estimates[1, 1] = 0, sources[1, 0]
    embeddings = torch.randn(2, 2, 8)
    batch = {
        "sources": sources,
        "identities": torch.tensor([[0, 1], [2, -1]]),
        "entries": torch.tensor([[40, 41], [42, -1]]),
    }
    terms = brain.terms(Slots(embeddings, estimates), batch)
    assert terms["aam"] == 3
    expected = embeddings.flatten(0, 1)[[0, 1, 3]]
    assert torch.equal(seen["slots"], expected)
    assert torch.equal(seen["classified"], expected)
    assert seen["identities"].tolist() == seen["asked"].tolist() == [1, 0, 2]
    assert seen["entries"].tolist() == seen["labels"].tolist() == [41, 40, 42]
    assert seen["mixtures"].tolist() == [0, 0, 1]


def test_the_teacher_hears_long_views_and_the_student_all(monkeypatch):
    torch.manual_seed(0)
    teacher = Teacher(Views(), DINOHead(6, 16, 10, 5))
    encoder, head = Views(), DINOHead(6, 16, 10, 5)
    dino = DINOLoss(16, watched=True)
    brain = brain_of(
        DINOBrain,
        3,
        monkeypatch,
        teacher=teacher,
        encoder=encoder,
        head=head,
        dino=dino,
        variance=VarianceLoss(),
        loss_weights={"dino": 1.0, "variance": 1.0},
        teacher_temperature=Linear(0.04, 0.07, 6),
        teacher_momentum=Linear(0.5, 1.0, 6),
    )
    brain.modules = Modules(encoder=encoder, head=head, dino=dino)
    brain.watch = TeacherWatch(16, torch.device("cpu"))
    long, short = torch.randn(5, 2, 12), torch.randn(5, 4, 12)
    terms = brain.terms(brain.embed({"views_0": long, "views_1": short}), {})
    student = encoder(long, short).transpose(0, 1)
    seen = teacher.head(teacher.encoder(long).transpose(0, 1))
    expected = slow_dino(head(student), seen, 0.0, 0.1, 0.055)
    torch.testing.assert_close(terms["dino"], expected)
    gradients = [
        torch.autograd.grad(value, encoder.layer.weight, retain_graph=True)
        for value in (terms["variance"], VarianceLoss()(student[:2]))
    ]
    torch.testing.assert_close(*gradients)

    weights = [n.layer.weight.clone() for n in (teacher.encoder, encoder)]
    brain.on_fit_batch_end({}, None, None, should_step=True)
    torch.testing.assert_close(
        teacher.encoder.layer.weight, 0.75 * weights[0] + 0.25 * weights[1]
    )


def test_weights_of_terms_follow_their_schedules(monkeypatch):
    weights = {"a": Linear(0.0, 1.0, 4), "b": 2.0}
    brain = brain_of(EmbeddingBrain, 2, monkeypatch, loss_weights=weights)
    brain.terms = lambda *_: {"a": torch.tensor(3.0), "b": torch.tensor(5.0)}
    total = brain.compute_objectives(None, None, None)
    assert total.item() == pytest.approx(0.5 * 3 + 2 * 5)
