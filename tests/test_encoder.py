"""Batches whose activations do not fit in memory at once."""

import copy

import pytest
import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from torch import nn

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.lobes.encoder import ViewEncoder
from speechbrain_ssl.losses.aam_supcon import SupConLoss


class Mean(nn.Module):
    """Mean over time and a linear layer: no batch norm."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(20, 6)

    def forward(self, features):
        return self.layer(features).tanh().mean(1, keepdim=True)


def encoders(model):
    """The same encoder as it is, and two utterances at a time."""
    direct = ViewEncoder(model, n_mels=20)
    chunked = ViewEncoder(copy.deepcopy(model), n_mels=20, chunk_size=2)
    return direct, chunked


def gradients(encoder, loss):
    return torch.autograd.grad(loss, list(encoder.parameters()))


def test_chunks_equal_one_pass_in_loss_and_gradient():
    torch.manual_seed(0)
    direct, chunked = encoders(Mean())
    waves = torch.randn(5, 2, 4000), torch.randn(5, 1, 2000)
    labels = torch.tensor([0, 1, 0, 2, 1])
    one, other = (
        SupConLoss()(encoder(*waves), labels) for encoder in (direct, chunked)
    )
    torch.testing.assert_close(one, other)
    for mine, its in zip(gradients(direct, one), gradients(chunked, other)):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-6)


def test_batch_norm_sees_each_chunk_once():
    torch.manual_seed(0)
    ecapa = ECAPA_TDNN(20, channels=[8, 8, 8, 8, 24], lin_neurons=6)
    direct, chunked = encoders(ecapa)
    waves, labels = torch.randn(4, 2, 8000), torch.arange(4)
    parts = torch.cat([direct(waves[:2]), direct(waves[2:])])
    one = SupConLoss()(parts, labels)
    other = SupConLoss()(chunked(waves), labels)
    torch.testing.assert_close(one, other)
    for mine, its in zip(gradients(direct, one), gradients(chunked, other)):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-6)
    for (name, mine), its in zip(direct.named_buffers(), chunked.buffers()):
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(mine, its, msg=name)
    momenta = {m.momentum for m in chunked.modules() if hasattr(m, "momentum")}
    assert momenta == {0.1}


def test_chunks_keep_the_activations_of_a_few_utterances():
    ecapa = ECAPA_TDNN(20, channels=[8, 8, 8, 8, 24], lin_neurons=6)
    waves = torch.randn(6, 2, 4000)
    kept = {}
    for name, encoder in zip(("direct", "chunked"), encoders(ecapa)):
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, name=name: kept.setdefault(name, []).append(x) or x,
            lambda x: x,
        ):
            encoder(waves)
    sizes = {name: sum(x.numel() for x in xs) for name, xs in kept.items()}
    assert sizes["direct"] > 2 * waves.numel()
    assert sizes["chunked"] == waves.numel()


def test_a_chunk_of_one_is_refused():
    with pytest.raises(BadInputError, match="chunk_size is 1"):
        ViewEncoder(Mean(), n_mels=20, chunk_size=1)
