"""Separative encoders, GALR segments and the aggregator."""

import pytest
import torch
from conftest import small_ecapa
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import ISTFT, STFT
from torch.nn import functional as F

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.lobes.aggregator import CrossConditionAggregator
from speechbrain_ssl.lobes.csc import SeparativeECAPA, SeparativeEncoder
from speechbrain_ssl.lobes.encoder import ViewEncoder
from speechbrain_ssl.lobes.galr import (
    GALRBlock,
    overlap_add,
    segment,
    sinusoids,
)
from speechbrain_ssl.lobes.spectra import waveforms


def galr(sources=2, window=32):
    return SeparativeEncoder(
        sources=sources,
        window=window,
        channels=8,
        embedding_dim=6,
        trunk_blocks=1,
        separation_blocks=1,
        speaker_blocks=1,
        segment_frames=10,
        hidden=4,
        global_frames=4,
        heads=2,
    )


def masked_ecapa(sources=2, sample_rate=16000):
    return SeparativeECAPA(
        small_ecapa(n_mels=40),
        sources=sources,
        sample_rate=sample_rate,
        n_mels=40,
        channels=8,
        blocks=1,
        hidden=4,
        heads=2,
    )


@pytest.mark.parametrize("length", [1, 9, 10, 11, 57])
def test_overlap_add_undoes_segment_at_any_length(length):
    sequence = torch.randn(2, 3, length)
    segments = segment(sequence, 10)
    assert torch.allclose(overlap_add(segments, length), sequence)


def test_segments_overlap_by_half():
    segments = segment(torch.arange(12.0)[None, None], 4)
    assert segments[0, 0, :, 1].tolist() == [0, 1, 2, 3]
    assert segments[0, 0, :, 2].tolist() == [2, 3, 4, 5]


def test_block_reaches_every_segment():
    torch.manual_seed(1)
    block = GALRBlock(8, 6, hidden=4, global_size=3, heads=2).eval()
    segments = torch.randn(1, 8, 6, 5, requires_grad=True)
    block(segments)[0, :, :, 0].sum().backward()
    assert (segments.grad.abs().sum((0, 1, 2)) > 0).all()


def slow_block(block, segments):
    """Along each segment, then along each compressed place in them."""
    local = torch.empty_like(segments)
    for b in range(len(segments)):
        for s in range(segments.shape[-1]):
            rows = segments[b, :, :, s].T[None]
            rows, _ = block.local(rows, tuple(block.initial))
            local[b, :, :, s] = block.local_out(rows[0]).T
    segments = segments + block.local_norm(local)
    short = block.to_global(segments.transpose(2, 3))  # (B, D, S, Q)
    mixed = torch.empty_like(short)
    for b in range(len(short)):
        for q in range(short.shape[-1]):
            rows = block.norm_in(short[b, :, :, q].T)[None]
            rows = rows + sinusoids(rows)
            heard, _ = block.attention(rows, rows, rows)
            mixed[b, :, :, q] = block.norm_out(rows + heard)[0].T
    mixed = block.from_global(mixed).transpose(2, 3)
    return segments + block.global_norm(mixed)


def test_a_block_equals_its_loops():
    torch.manual_seed(0)
    block = GALRBlock(8, 6, hidden=4, global_size=3, heads=2).eval()
    torch.nn.init.normal_(block.initial)
    segments = torch.randn(2, 8, 6, 5)
    torch.testing.assert_close(
        block(segments), slow_block(block, segments), rtol=1e-4, atol=1e-5
    )


def test_waveforms_and_embeddings_have_one_order_of_slots():
    encoder, waves = galr().eval(), torch.randn(2, 1000)
    with torch.no_grad():
        before = encoder(waves)
        encoder.to_slots.bias[8:] += 1  # channels of the second slot
        after = encoder(waves)
    for one, other in zip(before, after):
        assert torch.equal(one[:, 0], other[:, 0])
        assert not torch.allclose(one[:, 1], other[:, 1], atol=1e-4)


def test_estimates_are_aligned_with_the_mixture():
    encoder, waves = galr().eval(), torch.randn(2, 1000)
    with torch.no_grad():
        for layer in (encoder.encoder, encoder.decoder):  # the sixth sample
            layer.weight.zero_()[:2, 0, 5] = torch.tensor([1.0, -1.0])
        encoder.to_mask.weight.zero_()
        encoder.to_mask.bias.fill_(1.0)
        estimates = encoder(waves).estimates
    for slot in (0, 1):
        torch.testing.assert_close(estimates[:, slot, 5::16], waves[:, 5::16])


def test_the_network_hears_masked_bands_in_decibels():
    encoder, heard = masked_ecapa().eval(), []
    encoder.embedding_model.register_forward_pre_hook(
        lambda _, given: heard.append(given[0])
    )
    waves, masks = torch.randn(1, 4000), torch.rand(1, 2, 26, 40)
    encoder._masks = lambda features: masks
    encoder(waves)
    levels = 20 * masks[0].clamp(min=0.01).log10()
    expected = Fbank(n_mels=40)(waves) + levels
    expected = expected - expected.mean(1, keepdim=True)
    torch.testing.assert_close(heard[0], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("make", [galr, masked_ecapa])
@pytest.mark.parametrize("sources", [2, 3])
@pytest.mark.parametrize("samples", [4000, 5003])
def test_encoder_gives_unit_embeddings_and_waveforms_of_input_length(
    make, sources, samples
):
    encoder = make(sources=sources)
    slots = encoder(torch.randn(2, samples))
    assert slots.embeddings.shape == (2, sources, 6)
    assert slots.estimates.shape == (2, sources, samples)
    norms = slots.embeddings.norm(dim=-1)
    assert torch.allclose(norms, torch.ones(2, sources), atol=1e-5)
    (slots.embeddings[0, 0, 0] + slots.estimates.sum()).backward()
    unused = [n for n, p in encoder.named_parameters() if p.grad is None]
    assert unused == []


def test_encoder_runs_at_8_khz():
    slots = galr(window=16)(torch.randn(2, 2000))
    assert slots.estimates.shape == (2, 2, 2000)
    slots = masked_ecapa(sample_rate=8000)(torch.randn(2, 4000))
    assert slots.estimates.shape == (2, 2, 4000)


def test_waveforms_equal_the_inverse_transform_with_gradient():
    for rate, size, samples in ((16000, 400, 2401), (8000, 400, 1200)):
        stft, istft = (kind(rate, n_fft=size) for kind in (STFT, ISTFT))
        spectra = stft(torch.randn(3, samples)) * torch.rand(3, 1, 201, 1)
        spectra.requires_grad_()
        results = []
        for waves in (
            istft(spectra, sig_length=samples),
            waveforms(spectra, stft, samples),
        ):
            torch.autograd.backward(waves.pow(3).sum())
            results.append((waves, spectra.grad))
            spectra.grad = None
        for theirs, ours in zip(*results):
            assert torch.allclose(theirs, ours, atol=1e-5)


def test_attention_without_gradient_is_that_of_training():
    torch.manual_seed(1)
    block = GALRBlock(8, 10, 6, 4, heads=2, dropout=0.0)
    inputs = torch.randn(2, 8, 10, 5)
    expected = block.train()(inputs)
    with torch.no_grad():
        assert torch.allclose(block.eval()(inputs), expected, atol=1e-6)


@pytest.mark.parametrize("make", [galr, masked_ecapa])
def test_batch_and_single_give_the_same_slots(make):
    encoder = make().eval()
    waves = torch.randn(3, 4800)
    together = encoder(waves)
    alone = encoder(waves[1:2])
    assert torch.allclose(
        together.embeddings[1], alone.embeddings[0], atol=1e-4
    )
    assert torch.allclose(together.estimates[1], alone.estimates[0], atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_open_masks_return_the_mixture_and_stock_features(rate):
    """With one open mask the slot is the mixture for ear and network."""
    from speechbrain.lobes.features import Fbank

    encoder = masked_ecapa(sample_rate=rate).eval()
    last = encoder.to_masks
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([50.0, 0.0, 0.0]).repeat_interleave(40))
    waves = torch.randn(2, 8000)
    slots = encoder(waves)
    assert torch.allclose(slots.estimates[:, 0], waves, atol=1e-3)
    # Stock settings, but that above 16 kHz the window needs a longer transform.
    more = {"n_fft": 600} if rate == 24000 else {}
    features = Fbank(n_mels=40, sample_rate=rate, **more)(waves)
    features = features - features.mean(1, keepdim=True)
    stock = F.normalize(encoder.embedding_model(features)[:, 0], dim=-1)
    assert torch.allclose(slots.embeddings[:, 0], stock, atol=1e-4)
    views = ViewEncoder(encoder.embedding_model, 40, rate).eval()
    assert torch.allclose(F.normalize(views(waves), dim=-1), stock, atol=1e-6)


def test_wrong_sizes_are_refused_together():
    with pytest.raises(BadInputError, match="2 problems"):
        SeparativeEncoder(window=31, channels=10, heads=4)


def slow_vectors(aggregator, embeddings, identities, value_map):
    """Attention of every slot over every identity, one pair at a time."""
    slots, width = embeddings.shape
    heads, size = aggregator.heads, width // aggregator.heads
    count = int(identities.max()) + 1
    rows = []
    for i in range(slots):
        columns = []
        for n in range(count):
            own = [j for j in range(slots) if identities[j] == identities[i]]
            keys = [j for j in range(slots) if identities[j] == n]
            del keys[own.index(i)]  # the query's condition
            query = aggregator.to_query(aggregator.norm_query(embeddings[i]))
            parts = []
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                scores = torch.stack(
                    [
                        query[part]
                        @ aggregator.to_key(aggregator.norm_key(embeddings[j]))[
                            part
                        ]
                        / size**0.5
                        for j in keys
                    ]
                ).softmax(0)
                values = [embeddings[j] @ value_map.T for j in keys]
                values = [value[part] for value in values]
                parts.append(sum(s * v for s, v in zip(scores, values)))
            columns.append(F.normalize(torch.cat(parts), dim=-1))
        rows.append(torch.stack(columns))
    return torch.stack(rows)


@pytest.mark.parametrize("aggregation", ["attention", "value_map"])
def test_attention_equals_the_slow_double_loop_with_gradient(aggregation):
    torch.manual_seed(2)
    aggregator = CrossConditionAggregator(8, heads=2, aggregation=aggregation)
    value_map = torch.eye(8)
    torch.nn.init.normal_(aggregator.to_query.weight)
    if aggregation == "value_map":
        assert torch.equal(aggregator.to_value.weight, value_map)
        value_map = torch.nn.init.normal_(aggregator.to_value.weight)
    embeddings = F.normalize(torch.randn(9, 8), dim=-1).requires_grad_()
    identities = torch.randperm(9) % 3
    weights = torch.randn(9, 3, 8)
    vectors = aggregator(embeddings, identities, conditions=3)
    oracle = slow_vectors(aggregator, embeddings, identities, value_map)
    (gradient,) = torch.autograd.grad((vectors * weights).sum(), embeddings)
    (expected,) = torch.autograd.grad((oracle * weights).sum(), embeddings)
    assert torch.allclose(vectors, oracle, atol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-4)


def test_attention_starts_as_the_mean_and_learns_its_weights():
    torch.manual_seed(5)
    embeddings = F.normalize(torch.randn(6, 8), dim=-1)
    identities = torch.tensor([0, 1, 0, 1, 0, 1])
    attention = CrossConditionAggregator(8, heads=2)
    mean = CrossConditionAggregator(8, heads=2, aggregation="mean")
    vectors = attention(embeddings, identities, conditions=3)
    assert torch.allclose(vectors, mean(embeddings, identities, 3), atol=1e-6)
    single = attention.enrol(embeddings)
    assert torch.allclose(single, mean.enrol(embeddings), atol=1e-6)
    (vectors * torch.randn(6, 2, 8)).sum().backward()
    assert attention.to_query.weight.grad.abs().max() > 1e-4
    names = dict(attention.named_parameters())
    assert not [name for name in names if "value" in name]


@pytest.mark.parametrize("aggregation", ["attention", "value_map", "mean"])
def test_a_slots_own_value_never_reaches_its_vector(aggregation):
    torch.manual_seed(3)
    aggregator = CrossConditionAggregator(8, heads=2, aggregation=aggregation)
    if aggregation == "attention":
        torch.nn.init.normal_(aggregator.to_query.weight)
    identities = torch.tensor([0, 1, 0, 1, 0, 1])
    embeddings = torch.randn(6, 8)
    queries = torch.randn(6, 8)

    def vectors(keys):
        """Vectors of fixed queries over given keys."""
        own = aggregator._scores
        aggregator._scores = lambda _, k: own(queries, k)
        try:
            return aggregator(keys, identities, conditions=3)
        finally:
            aggregator._scores = own

    changed = embeddings.clone()
    changed[2] = torch.randn(8)
    before, after = vectors(embeddings), vectors(changed)
    assert torch.allclose(before[2, 0], after[2, 0], atol=1e-6)
    assert not torch.allclose(before[0, 0], after[0, 0], atol=1e-3)


def test_an_identity_without_another_condition_is_refused():
    aggregator = CrossConditionAggregator(8)
    with pytest.raises(ValueError, match="2 or more"):
        aggregator(torch.randn(4, 8), torch.arange(4), conditions=1)


def test_enrolment_of_equal_utterances_is_that_utterance():
    aggregator = CrossConditionAggregator(8, heads=2)
    vector = F.normalize(torch.randn(8), dim=-1)
    enrolled = aggregator.enrol(vector.expand(3, 8))
    assert torch.allclose(enrolled, vector, atol=1e-5)


def test_enrolment_attends_from_the_mean_over_all_utterances():
    torch.manual_seed(0)
    aggregator = CrossConditionAggregator(8, heads=2, aggregation="value_map")
    torch.nn.init.normal_(aggregator.to_value.weight)
    cuts = F.normalize(torch.randn(3, 8), dim=-1)
    query = aggregator.to_query(aggregator.norm_query(cuts.mean(0)))
    keys = aggregator.to_key(aggregator.norm_key(cuts))
    values, parts = aggregator.to_value(cuts), []
    for part in (slice(0, 4), slice(4, 8)):
        weights = (keys[:, part] @ query[part] / 2).softmax(0)
        parts.append(weights @ values[:, part])
    expected = F.normalize(torch.cat(parts), dim=-1)
    torch.testing.assert_close(aggregator.enrol(cuts), expected)
