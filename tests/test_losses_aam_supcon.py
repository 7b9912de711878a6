"""Supervised contrastive loss against slow twins."""

import math

import pytest
import torch
from torch.nn import functional as F

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.losses import aam_supcon
from speechbrain_ssl.losses.aam_supcon import AAMLoss, SupConLoss


def slow_supcon(embeddings, labels, temperature, margin=0.0):
    """Loops over anchors, positives and contrast."""
    batch, views, dim = embeddings.shape
    rows = F.normalize(embeddings, dim=-1).reshape(-1, dim)
    names = labels.repeat_interleave(views).tolist()
    total, anchors = 0.0, 0
    for i in range(len(rows)):
        others = [a for a in range(len(rows)) if a != i]
        positives = [p for p in others if names[p] == names[i]]
        if not positives:
            continue
        powers = {
            a: torch.exp(
                (rows[i] @ rows[a] - margin * (a in positives)) / temperature
            )
            for a in others
        }
        for p in positives:
            ratio = powers[p] / sum(powers.values())
            total = total - ratio.log() / len(positives)
        anchors += 1
    return total / anchors


@pytest.mark.parametrize("views", [1, 2, 5])
@pytest.mark.parametrize("margin", [0.0, 0.3])
@pytest.mark.parametrize("rows", [4, 1024])  # anchors at a time
def test_loss_and_gradient_equal_the_loops(views, margin, rows, monkeypatch):
    monkeypatch.setattr(aam_supcon, "ROWS", rows)
    torch.manual_seed(views)
    embeddings = torch.randn(6, views, 8, requires_grad=True)
    labels = torch.tensor([4, 1, 4, 0, 1, 7])  # 0 and 7 come once
    ours = SupConLoss(0.2, margin)(embeddings, labels)
    slow = slow_supcon(embeddings, labels, 0.2, margin)
    torch.testing.assert_close(ours, slow, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        *torch.autograd.grad(ours, embeddings),
        *torch.autograd.grad(slow, embeddings),
        rtol=1e-4,
        atol=1e-6,
    )


def test_a_projection_is_what_is_contrasted():
    torch.manual_seed(0)
    loss = SupConLoss(0.2, projection_dim=3, embedding_dim=8)
    first, _, last = loss.projection
    embeddings = torch.randn(4, 2, 8, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 2])
    hidden = (embeddings @ first.weight.T + first.bias).clamp(min=0)
    projected = hidden @ last.weight.T + last.bias
    assert projected.shape == (4, 2, 3)
    ours = loss(embeddings, labels)
    slow = slow_supcon(projected, labels, 0.2)
    torch.testing.assert_close(ours, slow, rtol=1e-5, atol=1e-6)
    wanted = [embeddings, *loss.parameters()]
    for mine, its in zip(
        torch.autograd.grad(ours, wanted), torch.autograd.grad(slow, wanted)
    ):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-6)


def test_two_views_of_each_utterance_give_nt_xent():
    torch.manual_seed(0)
    embeddings = torch.randn(5, 2, 8)
    rows = F.normalize(embeddings, dim=-1).transpose(0, 1).reshape(10, 8)
    logits = rows @ rows.T / 0.1
    logits.fill_diagonal_(-torch.inf)
    targets = torch.tensor([*range(5, 10), *range(5)])
    torch.testing.assert_close(
        SupConLoss(temperature=0.1)(embeddings, torch.arange(5)),
        F.cross_entropy(logits, targets),
    )


def test_perfect_clusters_give_the_log_of_the_positives():
    embeddings = torch.eye(4).unsqueeze(1).expand(4, 5, 4)
    loss = SupConLoss(temperature=0.01)(embeddings, torch.arange(4))
    assert loss.item() == pytest.approx(math.log(4), abs=1e-4)


def test_the_floor_is_the_mean_log_of_the_positives():
    loss = SupConLoss()
    loss(torch.randn(4, 3, 8), torch.tensor([0, 0, 1, 2]))
    counts = torch.tensor([5.0, 5.0, 2.0, 2.0])
    torch.testing.assert_close(loss.positives, counts.mean())
    torch.testing.assert_close(loss.floor, counts.log().mean())


def test_permuting_the_batch_changes_nothing():
    torch.manual_seed(0)
    embeddings, labels = torch.randn(6, 3, 8), torch.tensor([0, 0, 1, 2, 1, 3])
    order = torch.randperm(6)
    torch.testing.assert_close(
        SupConLoss()(embeddings, labels),
        SupConLoss()(embeddings[order], labels[order]),
    )


@pytest.mark.parametrize("batch", [1, 4])
def test_rows_without_positives_give_a_finite_value_and_gradient(batch):
    embeddings = torch.randn(batch, 1, 8, requires_grad=True)
    loss = SupConLoss()(embeddings, torch.arange(batch))
    loss.backward()
    assert loss.item() == 0 and not embeddings.grad.isnan().any()


def test_bad_values_are_refused():
    with pytest.raises(BadInputError, match="temperature is 0"):
        SupConLoss(temperature=0)
    with pytest.raises(BadInputError, match="embedding_dim is None"):
        SupConLoss(projection_dim=3)
    with pytest.raises(BadInputError, match=r"labels is \(3,\)"):
        SupConLoss()(torch.randn(4, 2, 8), torch.arange(3))


def slow_aam(embeddings, labels, weight, margin, scale, nearest=0):
    """Loops over rows and classes, angles by arc cosine."""
    total, rows = 0.0, 0
    for utterance, label in zip(embeddings, labels.tolist()):
        for view in utterance:
            cosines = [
                max(F.cosine_similarity(view, c, dim=0) for c in centres)
                for centres in weight
            ]
            wrong = [n for n in range(len(weight)) if n != label]
            wrong = sorted(wrong, key=lambda n: -cosines[n].item())[:nearest]
            logits = []
            for number, cosine in enumerate(cosines):
                if number in wrong:
                    cosine = torch.cos(torch.arccos(cosine) - 0.06)
                if number == label:
                    angle = torch.arccos(cosine)
                    if angle + margin < math.pi:
                        cosine = torch.cos(angle + margin)
                    else:
                        cosine = cosine - margin * math.sin(margin)
                logits.append(scale * cosine)
            logits = torch.stack(logits)
            total = total - (logits[label] - logits.logsumexp(0))
            rows += 1
    return total / rows


@pytest.mark.parametrize("margin", [0.0, 0.2, 1.2])
@pytest.mark.parametrize("subcentres", [1, 3])
@pytest.mark.parametrize("nearest", [0, 2])
def test_aam_and_its_gradients_equal_the_loops(margin, subcentres, nearest):
    torch.manual_seed(0)
    loss = AAMLoss(6, 4, margin, 8.0, subcentres, inter_top_k=nearest)
    embeddings = torch.randn(5, 2, 6)
    labels = torch.tensor([0, 3, 1, 1, 2])
    with torch.no_grad():  # one row beyond the last angle
        embeddings[0, 0] = -3 * loss.weight[0, 0] + 0.01
    embeddings.requires_grad_()
    ours = loss(embeddings, labels)
    slow = slow_aam(embeddings, labels, loss.weight, margin, 8.0, nearest)
    torch.testing.assert_close(ours, slow, rtol=1e-5, atol=1e-5)
    inputs = embeddings, loss.weight
    for mine, its in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(slow, inputs)
    ):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-5)


def test_aam_without_margin_is_the_scaled_cosine_softmax():
    torch.manual_seed(0)
    loss = AAMLoss(6, 4, margin=0.0, scale=32.0)
    embeddings, labels = torch.randn(5, 1, 6), torch.tensor([0, 3, 1, 1, 2])
    cosines = (
        F.normalize(embeddings[:, 0], dim=-1)
        @ F.normalize(loss.weight[:, 0], dim=-1).T
    )
    torch.testing.assert_close(
        loss(embeddings, labels), F.cross_entropy(32 * cosines, labels)
    )


def test_one_view_may_be_classified_alone():
    loss, embeddings = AAMLoss(6, 4, view=2), torch.randn(5, 3, 6)
    every = AAMLoss(6, 4)
    every.load_state_dict(loss.state_dict())
    labels = torch.tensor([0, 3, 1, 1, 2])
    torch.testing.assert_close(
        loss(embeddings, labels), every(embeddings[:, 2:], labels)
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_aam_gradients_are_finite_where_the_cosine_is_one(sign):
    loss = AAMLoss(6, 4)
    embeddings = (sign * loss.weight.detach().clone()).requires_grad_()
    value = loss(embeddings, torch.arange(4))
    value.backward()
    assert value.isfinite() and embeddings.grad.isfinite().all()
    assert loss.weight.grad.isfinite().all()


def test_first_aam_loss_is_that_of_random_vectors():
    torch.manual_seed(0)
    embeddings, labels = torch.randn(256, 1, 192), torch.arange(256)
    for margin, expected in ((0.0, 10.6), (0.2, 17.0), (0.3, 20.1)):
        value = AAMLoss(192, 2793, margin=margin)(embeddings, labels)
        assert value.item() == pytest.approx(expected, abs=0.4)


def test_bad_aam_values_are_refused():
    for change, named in (
        ({"classes": 1}, "classes is 1"),
        ({"margin": 2.0}, "margin is 2"),
        ({"scale": 0.0}, "scale is 0"),
        ({"subcentres": 0}, "subcentres is 0"),
        ({"inter_top_k": -1}, "inter_top_k is -1"),
        ({"inter_top_k": 3}, "classes is 3; it must be 4 or more"),
    ):
        with pytest.raises(BadInputError, match=named):
            AAMLoss(**{"embedding_dim": 4, "classes": 3, **change})
