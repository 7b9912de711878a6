"""DINO loss and regularisers against slow twins."""

import copy
import math

import pytest
import torch

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.losses.dino import (
    CovarianceLoss,
    DINOLoss,
    VarianceLoss,
    _argmax,
)


def slow_dino(student, teacher, centre, student_temperature, temperature):
    """Double loop over pairs of views, a log-softmax for each."""
    total, pairs = 0.0, 0
    for u, seen in enumerate(teacher):
        target = torch.softmax((seen - centre) / temperature, dim=-1)
        for v, view in enumerate(student):
            if v == u:
                continue
            logp = torch.log_softmax(view / student_temperature, dim=-1)
            total = total - (target * logp).sum(-1).mean()
            pairs += 1
    return total / pairs


@pytest.mark.parametrize(
    ("views", "longs"), [(6, 2), (2, 2), (3, 1), (4, 3), (2, 1)]
)
@pytest.mark.parametrize(
    ("block", "above", "watched"),
    [(2**20, 1, False), (2 * 33, 3, False), (1, 3, True)],
)
def test_loss_and_gradient_equal_the_double_loop(
    views, longs, block, above, watched, monkeypatch
):
    monkeypatch.setattr("speechbrain_ssl.losses.dino.CPU_BLOCK", block)
    torch.manual_seed(views)
    student = torch.randn(views, 5, 33, requires_grad=True)
    teacher, centre = torch.randn(longs, 5, 33), torch.randn(33)
    loss = DINOLoss(33, student_temperature=0.1, watched=watched)
    loss.centre.copy_(centre)
    ours = loss(student, teacher, 0.07)
    (gradient,) = torch.autograd.grad(above * ours, student)
    slow = slow_dino(student, teacher, centre, 0.1, 0.07)
    (expected,) = torch.autograd.grad(above * slow, student)
    torch.testing.assert_close(ours, slow, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    assert (loss.entropy is not None) == watched


def test_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    student = torch.randn(3, 2, 7, requires_grad=True)
    loss = DINOLoss(7, student_temperature=0.5).eval()
    teacher = torch.randn(2, 2, 7)
    (gradient,) = torch.autograd.grad(loss(student, teacher, 0.2), student)
    step = 1e-2
    for place in [(0, 0, 0), (1, 1, 3), (2, 0, 6)]:
        values = []
        for sign in (1, -1):
            moved = student.detach().clone()
            moved[place] += sign * step
            values.append(loss(moved, teacher, 0.2).item())
        slope = (values[0] - values[1]) / (2 * step)
        assert gradient[place].item() == pytest.approx(slope, abs=2e-4)


def test_first_loss_is_near_ln_k():
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(65536, 256), dim=-1)
    points = torch.nn.functional.normalize(torch.randn(6, 2, 256), dim=-1)
    logits = points @ directions.T
    loss = DINOLoss(65536)(logits, logits[:2], 0.04)
    assert 11.0 < loss.item() < 11.4  # ln 65536 is 11.09


def test_swapping_the_long_crops_changes_nothing():
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 3, 9), torch.randn(2, 3, 9)
    swapped = student[[1, 0, 2, 3, 4, 5]]
    one, other = DINOLoss(9), DINOLoss(9)
    torch.testing.assert_close(
        one(student, teacher, 0.1), other(swapped, teacher[[1, 0]], 0.1)
    )


def test_equal_networks_and_views_give_the_entropy():
    torch.manual_seed(0)
    view = torch.randn(1, 4, 9)
    loss = DINOLoss(9, student_temperature=0.5, watched=True)
    value = loss(view.expand(6, 4, 9), view.expand(2, 4, 9), 0.5)
    p = (view / 0.5).softmax(-1)
    entropy = -(p * p.log()).sum(-1).mean()
    torch.testing.assert_close(value, entropy, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.entropy, entropy, rtol=1e-5, atol=1e-6)


def test_centre_follows_the_teacher_after_the_loss():
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 3, 9), torch.randn(2, 3, 9)
    loss = DINOLoss(9, watched=True)
    first = loss(student, teacher, 0.1)
    torch.testing.assert_close(loss.centre, 0.1 * teacher.mean((0, 1)))
    loss.eval()
    before = loss.centre.clone()
    second = loss(student, teacher, 0.1)
    assert torch.equal(loss.centre, before) and second != first
    assert torch.equal(loss.winners, (teacher - before).argmax(-1))


def test_the_centre_survives_a_batch_that_is_not_finite():
    loss = DINOLoss(8).train()
    loss(torch.randn(4, 3, 8), torch.randn(2, 3, 8), 0.04)
    centre = loss.centre.clone()
    assert centre.any()
    loss(torch.randn(4, 3, 8), torch.full((2, 3, 8), torch.inf), 0.04)
    assert torch.equal(loss.centre, centre)


@pytest.mark.parametrize("size", [7, 256, 1024])
def test_winners_are_the_first_of_the_largest(size):
    values = torch.randint(50, (3, 4, size)).float()  # with ties
    assert torch.equal(_argmax(values), values.argmax(-1))


def test_a_confident_and_an_empty_teacher_have_the_extreme_entropies():
    loss = DINOLoss(16, watched=True).eval()
    student = torch.zeros(3, 2, 16)
    value = loss(student, torch.zeros(2, 2, 16), 0.04)
    assert loss.entropy.item() == pytest.approx(math.log(16), abs=1e-5)
    assert value.item() == pytest.approx(math.log(16), abs=1e-5)
    certain = torch.zeros(2, 2, 16)
    certain[..., 3] = 100.0
    loss(student, certain, 0.04)
    assert loss.entropy.item() == pytest.approx(0.0, abs=1e-5)


def test_sinkhorn_gives_every_prototype_the_same_mass():
    torch.manual_seed(0)
    teacher = torch.randn(2, 6, 4)
    mass = (teacher / 0.5).exp().double()
    for _ in range(50):  # rows, then columns of the plain matrix
        mass = mass / mass.sum(-1, keepdim=True)
        mass = mass / mass.sum((0, 1), keepdim=True)
    expected = (mass / mass.sum(-1, keepdim=True)).float()
    loss = DINOLoss(4, sinkhorn_iterations=50, watched=True)
    targets = loss.targets(teacher, 0.5)
    torch.testing.assert_close(targets, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        targets.sum((0, 1)), torch.full((4,), 3.0), rtol=1e-3, atol=0
    )
    entropy = -(expected * expected.log()).sum(-1).mean()
    torch.testing.assert_close(loss.entropy, entropy, rtol=1e-4, atol=1e-5)


def test_each_round_of_sinkhorn_is_samples_then_prototypes():
    torch.manual_seed(0)
    teacher = torch.randn(2, 6, 4)
    mass = (teacher / 0.5).double().exp()
    for _ in range(3):
        mass = mass / mass.sum(-1, keepdim=True)
        mass = mass / mass.sum((0, 1), keepdim=True)
    expected = (mass / mass.sum(-1, keepdim=True)).float()
    targets = DINOLoss(4, sinkhorn_iterations=3).targets(teacher, 0.5)
    torch.testing.assert_close(targets, expected)


def test_bfloat16_logits_are_computed_in_float32():
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 3, 50), torch.randn(2, 3, 50)
    student, teacher = student.bfloat16(), teacher.bfloat16()
    exact = DINOLoss(50)(student.float(), teacher.float(), 0.04)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = DINOLoss(50)
        value = loss(student.requires_grad_(), teacher, 0.04)
    value.backward()
    torch.testing.assert_close(value, exact)
    assert student.grad.dtype == torch.bfloat16
    assert loss.centre.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prototypes": 1}, "prototypes is 1"),
        ({"student_temperature": 0.0}, "student_temperature is 0"),
        ({"student_temperature": 2.0}, "student_temperature is 2"),
        ({"centre_momentum": 1.5}, "centre_momentum is 1.5"),
    ],
)
def test_values_out_of_range_are_refused(change, named):
    with pytest.raises(BadInputError, match=named):
        DINOLoss(**{"prototypes": 8, **change})


def test_shapes_and_temperatures_that_do_not_fit_are_refused():
    loss, student = DINOLoss(8), torch.randn(6, 4, 8)
    for teacher, temperature, named in (
        (torch.randn(2, 3, 8), 0.04, "teacher is"),
        (torch.randn(2, 4, 9), 0.04, "teacher is"),
        (torch.randn(2, 4, 8), 0.0, "teacher_temperature is 0"),
        (torch.randn(2, 4, 8), 1.5, "teacher_temperature is 1.5"),
    ):
        with pytest.raises(BadInputError, match=named):
            loss(student, teacher, temperature)
    with pytest.raises(BadInputError, match="views is 1"):
        loss(student[:1], student[:1], 0.04)


def test_regularisers_equal_the_definitions():
    torch.manual_seed(0)
    embeddings = 0.5 * torch.randn(2, 7, 5)
    embeddings.requires_grad_()
    hinge = covariances = 0.0
    for view in embeddings:
        for d in range(5):
            deviation = (view[:, d].var() + 1e-4) ** 0.5
            hinge = hinge + max(0.6 - deviation, 0 * deviation) / 10
        covariance = torch.cov(view.T)
        for i in range(5):
            for j in range(5):
                if i != j:
                    covariances = covariances + covariance[i, j] ** 2 / 5 / 2
    for ours, slow in (
        (VarianceLoss(target=0.6)(embeddings), hinge),
        (CovarianceLoss()(embeddings), covariances),
    ):
        torch.testing.assert_close(ours, slow)
        torch.testing.assert_close(
            *torch.autograd.grad(ours, embeddings),
            *torch.autograd.grad(slow, embeddings),
        )


def test_the_loss_can_be_copied_and_saved():
    loss = DINOLoss(8)
    loss(torch.randn(3, 2, 8), torch.randn(2, 2, 8), 0.04)
    other = DINOLoss(8)
    other.load_state_dict(loss.state_dict())
    for twin in (other, copy.deepcopy(loss)):
        assert torch.equal(twin.centre, loss.centre) and twin.centre.any()
