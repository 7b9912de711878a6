"""Batches that do not fit in memory at once, and padded ones."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import small_ecapa
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.lobes.models.ResNet import ResNet
from torch import nn

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.evaluation.embed import embed
from speechbrain_ssl.lobes.csc import SeparativeECAPA
from speechbrain_ssl.lobes.encoder import ViewEncoder
from speechbrain_ssl.lobes.teacher import Teacher
from speechbrain_ssl.losses.aam_supcon import SupConLoss
from speechbrain_ssl.pretrained import StockEncoder


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


class Waves:
    """Noise of given lengths; its level differs from part to part."""

    def __init__(self, *lengths):
        torch.manual_seed(1)
        self.samples = np.array(lengths)
        self.waves = [
            torch.randn(n) * torch.rand(n // 100 + 1).repeat_interleave(100)[:n]
            for n in lengths
        ]

    def read(self, number):
        return self.waves[number]


@pytest.fixture(scope="module")
def ecapa():
    torch.manual_seed(0)
    model = ECAPA_TDNN(
        20, channels=[16, 16, 16, 16, 48], lin_neurons=24, attention_channels=8
    )
    return ViewEncoder(model, n_mels=20).eval()


@pytest.fixture(params=["ours", "stock"])
def padded_encoder(request, ecapa):
    if request.param == "ours":
        return ecapa
    return stock_of(ecapa).eval()


def test_padded_batches_agree_with_waves_alone(padded_encoder, monkeypatch):
    waves = Waves(29000, 32000, 30200, 16000, 32000, 14600)
    alone = embed(padded_encoder, waves, "cpu").vectors[:, 0]
    sizes, forward = [], type(padded_encoder).forward

    def counted(self, batch, lengths=None):
        sizes.append(tuple(batch.shape))
        return forward(self, batch, lengths=lengths)

    monkeypatch.setattr(type(padded_encoder), "forward", counted)
    padded = embed(padded_encoder, waves, "cpu", padding=0.1).vectors[:, 0]
    assert sizes == [(4, 32000), (2, 16000)]
    one, other = (torch.from_numpy(vectors) for vectors in (alone, padded))
    assert torch.cosine_similarity(one, other).min() > 0.999
    torch.testing.assert_close(one[1::3], other[1::3])  # the longest
    wrong = padded_encoder(torch.stack([fitted(w) for w in waves.waves[:3]]))
    assert torch.cosine_similarity(one[:3], wrong).min() < 0.99


def fitted(wave):
    """A wave with zeros up to two seconds, as if they were speech."""
    return torch.nn.functional.pad(wave, (0, 32000 - len(wave)))


@pytest.mark.parametrize("padding", [1.0, -0.1])
def test_padding_out_of_range_is_refused(ecapa, padding):
    with pytest.raises(BadInputError, match="padding"):
        embed(ecapa, Waves(8000), "cpu", padding=padding)


@pytest.mark.parametrize("rate", [8000, 24000, 48000])
def test_features_are_made_at_any_rate(rate):
    encoder = ViewEncoder(small_ecapa(), 20, rate).eval()
    assert encoder(torch.randn(2, rate)).shape == (2, 6)


def test_no_chunk_is_left_with_one_view():
    encoder = ViewEncoder(small_ecapa(), 20, chunk_size=3)
    assert encoder(torch.randn(7, 1, 4000)).shape == (7, 1, 6)


def stock_of(encoder):
    """A SpeechBrain classifier with the parts of an encoder."""
    names = "compute_features", "mean_var_norm", "embedding_model"
    mods = SimpleNamespace(**{name: getattr(encoder, name) for name in names})
    return StockEncoder(SimpleNamespace(mods=mods, encode_batch=encoder))


def test_encoders_without_lengths_take_no_padding(ecapa):
    resnet = ViewEncoder(ResNet(20, channels=[4] * 4), n_mels=20)
    for encoder in (
        Mean(),
        resnet,  # SpeechBrain's takes lengths and does nothing with them
        stock_of(resnet),
        Teacher(resnet, nn.Identity()),
    ):
        with pytest.raises(BadInputError, match="an encoder that takes pad"):
            embed(encoder, Waves(8000), "cpu", padding=0.1)
    waves = Waves(16000, 15000)
    expected = embed(ecapa, waves, "cpu", padding=0.1).vectors
    found = embed(Teacher(ecapa, nn.Identity()), waves, "cpu", padding=0.1)
    np.testing.assert_array_equal(found.vectors, expected)


@pytest.mark.parametrize("kind", ["views", "slots"])
def test_features_go_where_the_encoder_goes(kind):
    """What stays on the CPU is copied, and waited for, in every step."""
    encoder = ViewEncoder(small_ecapa(), n_mels=20)
    if kind == "slots":
        encoder = SeparativeECAPA(
            small_ecapa(), n_mels=20, channels=8, blocks=1, hidden=4, heads=2
        )
    encoder.to("meta").float()
    plain = [
        value
        for part in encoder.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Tensor)
    ]
    assert len(plain) >= 4
    assert {value.device.type for value in plain} == {"meta"}
    if kind == "views":  # and what it is made of meets nothing on the CPU
        spectra = torch.zeros(2, 9, 201, device="meta")
        filterbank = encoder.compute_features.compute_fbanks
        assert filterbank(spectra).shape == (2, 9, 20)
