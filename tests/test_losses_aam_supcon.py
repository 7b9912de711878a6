"""Supervised contrastive loss against slow twins."""

import math

import pytest
import torch
from torch.nn import functional as F

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.losses.aam_supcon import SupConLoss


def slow_supcon(embeddings, labels, temperature):
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
        contrast = sum(
            torch.exp(rows[i] @ rows[a] / temperature) for a in others
        )
        for p in positives:
            ratio = torch.exp(rows[i] @ rows[p] / temperature) / contrast
            total = total - ratio.log() / len(positives)
        anchors += 1
    return total / anchors


@pytest.mark.parametrize("views", [1, 2, 5])
def test_loss_and_gradient_equal_the_loops(views):
    torch.manual_seed(views)
    embeddings = torch.randn(6, views, 8, requires_grad=True)
    labels = torch.tensor([4, 1, 4, 0, 1, 7])  # 0 and 7 come once
    ours = SupConLoss(temperature=0.2)(embeddings, labels)
    slow = slow_supcon(embeddings, labels, 0.2)
    torch.testing.assert_close(ours, slow, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        *torch.autograd.grad(ours, embeddings),
        *torch.autograd.grad(slow, embeddings),
        rtol=1e-4,
        atol=1e-6,
    )


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
    assert loss.item() == pytest.approx(math.log(4), abs=1e-5)


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
    with pytest.raises(BadInputError, match=r"labels is \(3,\)"):
        SupConLoss()(torch.randn(4, 2, 8), torch.arange(3))
