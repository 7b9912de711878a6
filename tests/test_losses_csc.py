"""The CSC losses against oracles written the slow way."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.lobes.aggregator import CrossConditionAggregator
from speechbrain_ssl.losses.csc import CSCLoss, SISNRLoss


def slow_si_snr(estimate, source):
    estimate = estimate - estimate.mean()
    source = source - source.mean()
    projection = (estimate @ source) / (source @ source) * source
    noise = estimate - projection
    return 10 * torch.log10((projection @ projection) / (noise @ noise))


def slow_separation(estimates, sources):
    total, orders = 0.0, []
    count = sources.shape[1]
    for mixture in range(len(sources)):
        best = None
        for order in itertools.permutations(range(count)):
            values = [
                slow_si_snr(estimates[mixture, c], sources[mixture, order[c]])
                for c in range(count)
            ]
            value = sum(values) / count
            if best is None or value > best[0]:
                best = value, order
        total = total - best[0] / len(sources)
        orders.append(list(best[1]))
    return total, torch.tensor(orders)


@pytest.mark.parametrize("count", [2, 3])
def test_separation_loss_equals_the_slow_search_with_gradient(count):
    torch.manual_seed(1)
    sources = torch.randn(4, count, 400)
    shuffled = sources[:, torch.randperm(count)]
    estimates = (shuffled + torch.randn_like(sources)).requires_grad_()
    loss, permutation = SISNRLoss()(estimates, sources)
    (gradient,) = torch.autograd.grad(loss, estimates)
    oracle, orders = slow_separation(estimates, sources)
    (expected,) = torch.autograd.grad(oracle, estimates)
    assert torch.allclose(loss, oracle, atol=1e-4)  # dB, float32 energies
    assert torch.equal(permutation, orders)
    assert torch.allclose(gradient, expected, atol=1e-5)


def test_separation_loss_equals_speechbrains_pit_wrapper():
    from speechbrain.nnet.losses import get_si_snr_with_pitwrapper

    torch.manual_seed(2)
    sources = torch.randn(3, 2, 500)
    estimates = sources.flip(1) + 0.5 * torch.randn_like(sources)
    stock = get_si_snr_with_pitwrapper(
        sources.transpose(1, 2), estimates.transpose(1, 2).clone()
    ).mean()
    loss, _ = SISNRLoss()(estimates, sources)
    assert torch.allclose(loss, stock, atol=1e-3)  # dB; other epsilons


def test_separation_loss_ignores_scale_and_slot_order():
    torch.manual_seed(3)
    sources = torch.randn(2, 2, 300)
    estimates = sources + 0.3 * torch.randn_like(sources)
    loss, permutation = SISNRLoss()(estimates, sources)
    scaled, _ = SISNRLoss()(0.01 * estimates, sources)
    swapped, other = SISNRLoss()(estimates.flip(1), sources)
    assert torch.allclose(loss, scaled, atol=1e-3)
    assert torch.allclose(loss, swapped, atol=1e-5)
    assert torch.equal(permutation, other.flip(1))


def test_silent_source_asks_its_slot_to_be_quiet():
    torch.manual_seed(4)
    sources = torch.stack([torch.randn(1, 300), torch.zeros(1, 300)], dim=1)
    talker = sources[:, :1] + 0.1 * torch.randn(1, 1, 300)
    other = torch.randn(1, 1, 300, requires_grad=True)
    loud, order = SISNRLoss()(torch.cat([talker, other], 1), sources)
    quiet, _ = SISNRLoss()(torch.cat([talker, 0.1 * other], 1), sources)
    assert order.tolist() == [[0, 1]]
    # A tenth of the amplitude is 20 dB, half of the mean over two slots.
    assert (loud - quiet).item() == pytest.approx(10, abs=0.3)
    (gradient,) = torch.autograd.grad(loud, other)
    assert torch.isfinite(gradient).all() and (gradient * other).sum() > 0


def test_a_quiet_slot_is_measured_against_the_mixture():
    torch.manual_seed(0)
    talker = torch.randn(1, 1, 4000)
    for level in (1.0, 0.1):
        other = level * torch.randn(1, 1, 4000)
        estimates = torch.cat([talker, other], 1)
        loss, _ = SISNRLoss(10.0)(estimates, torch.cat([talker, 0 * talker], 1))
        share = (other.square().sum() / talker.square().sum()).item()
        quiet = min(10.0, -10 * math.log10(share + 0.1))
        assert loss.item() == pytest.approx(-(10 + quiet) / 2, abs=1e-3)


def test_separation_loss_is_finite_for_perfect_and_for_silent_estimates():
    sources = torch.randn(2, 2, 300)
    for estimates in (sources.clone(), torch.zeros_like(sources)):
        estimates.requires_grad_()
        loss, _ = SISNRLoss()(estimates, sources)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(estimates.grad).all()


def test_slots_better_than_the_limit_give_no_gradient():
    """Of a talker at 20 dB it would be seven times that of one at 0 dB."""
    torch.manual_seed(5)
    sources = torch.randn(2, 1, 4000)
    noise = torch.randn_like(sources) * torch.tensor([0.1, 1.0])[:, None, None]
    estimates = (sources + noise).requires_grad_()
    quality = [slow_si_snr(e[0], s[0]) for e, s in zip(estimates, sources)]
    for most_db, limited in ((30.0, quality[0]), (10.0, torch.tensor(10.0))):
        loss, _ = SISNRLoss(most_db)(estimates, sources)
        assert torch.allclose(loss, -(limited + quality[1]) / 2, atol=1e-3)
        (gradient,) = torch.autograd.grad(loss, estimates, retain_graph=True)
        close, far = gradient.flatten(1).norm(dim=1)
        expected = 0 if most_db == 10 else (101 / 2) ** 0.5  # of sqrt(SNR + 1)
        assert (close / far).item() == pytest.approx(expected, abs=0.2)
    with pytest.raises(BadInputError, match="most_db is 0"):
        SISNRLoss(0)


def test_a_silent_estimate_is_the_worst_there_is():
    """Silence in one slot gains nothing over the mixture in both."""
    sources = torch.randn(1, 2, 4000)
    mixture = sources.sum(1, keepdim=True)
    both, _ = SISNRLoss()(mixture.expand(-1, 2, -1), sources)
    one, _ = SISNRLoss()(torch.cat([mixture, 0 * mixture], 1), sources)
    assert one > both + 30


def slow_contrastive(embeddings, vectors, identities, alpha, allowed=None):
    total = 0.0
    for i in range(len(embeddings)):
        scores = {}
        for n in range(vectors.shape[1]):
            if allowed is None or n in allowed[i]:
                distance = ((embeddings[i] - vectors[i, n]) ** 2).sum()
                scores[n] = torch.exp(-alpha * distance)
        own = scores[int(identities[i])]
        total = total - torch.log(own / sum(scores.values()))
    return total / len(embeddings)


def batch(slots=8, identities=4, dim=6, seed=5):
    torch.manual_seed(seed)
    embeddings = F.normalize(torch.randn(slots, dim), dim=-1)
    vectors = F.normalize(torch.randn(slots, identities, dim), dim=-1)
    labels = torch.arange(slots) % identities
    return embeddings.requires_grad_(), vectors.requires_grad_(), labels


def test_contrastive_loss_equals_the_slow_sum_with_gradients():
    embeddings, vectors, labels = batch()
    loss = CSCLoss(scale=5.0)(embeddings, vectors, labels)
    oracle = slow_contrastive(embeddings, vectors, labels, 5.0)
    gradients = torch.autograd.grad(loss, [embeddings, vectors])
    expected = torch.autograd.grad(oracle, [embeddings, vectors])
    assert torch.allclose(loss, oracle, atol=1e-5)
    for gradient, other in zip(gradients, expected):
        assert torch.allclose(gradient, other, atol=1e-5)


def test_mixture_contrast_set_holds_only_talkers_of_the_same_mixture():
    embeddings, vectors, labels = batch()
    mixtures = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    loss = CSCLoss("mixture", scale=3.0)(
        embeddings, vectors, labels, mixtures=mixtures
    )
    allowed = [
        {int(labels[j]) for j in range(8) if mixtures[j] == mixtures[i]}
        for i in range(8)
    ]
    oracle = slow_contrastive(embeddings, vectors, labels, 3.0, allowed)
    assert torch.allclose(loss, oracle, atol=1e-5)


def test_inventory_replaces_all_vectors_but_the_own_and_follows_them():
    embeddings, vectors, labels = batch()
    entries = labels + 3
    loss_fn = CSCLoss("inventory", 4.0, inventory_size=9, embedding_dim=6)
    loss = loss_fn(embeddings, vectors, labels, entries=entries)
    table = F.normalize(loss_fn.inventory, dim=-1)
    scale = F.softplus(loss_fn.raw_scale)
    total = 0.0
    for i in range(8):
        own = -scale * ((embeddings[i] - vectors[i, labels[i]]) ** 2).sum()
        others = [
            -scale * ((embeddings[i] - table[s]) ** 2).sum()
            for s in range(9)
            if s != entries[i]
        ]
        total = total + torch.stack([own, *others]).logsumexp(0) - own
        rows = torch.stack(
            [
                -scale * ((vectors[i, labels[i]] - row) ** 2).sum()
                for row in table
            ]
        )
        total = total + rows.logsumexp(0) - rows[entries[i]]
    torch.testing.assert_close(loss, total / 8)
    wanted = [embeddings, vectors, loss_fn.inventory, loss_fn.raw_scale]
    gradients = torch.autograd.grad(loss, wanted)
    for gradient, other in zip(
        gradients, torch.autograd.grad(total / 8, wanted)
    ):
        torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-4)


def test_one_identity_gives_zero_for_any_embedding():
    embeddings, vectors, _ = batch(identities=1)
    loss = CSCLoss()(embeddings, vectors, torch.zeros(8, dtype=torch.long))
    assert loss.item() == pytest.approx(0, abs=1e-7)


def test_constant_embeddings_carry_no_information():
    """Of single talkers too, whose mixture is a contrast set of one."""
    constant = torch.zeros(8, 6)
    constant[:, 0] = 1.0
    vectors = constant[:, None].expand(-1, 4, -1)
    labels = torch.arange(8) % 4
    mixtures = torch.tensor([0, 0, 1, 1, 2, 3, 4, 5])
    sizes = {"batch": 8 * [4], "mixture": 4 * [2] + 4 * [1]}
    for name, contrast in sizes.items():
        loss_fn = CSCLoss(name)
        loss = loss_fn(constant, vectors, labels, mixtures=mixtures)
        expected = sum(math.log(size) for size in contrast) / 8
        assert loss_fn.log_set.item() == pytest.approx(expected)
        assert loss.item() == pytest.approx(expected)


def test_no_table_makes_a_constant_embedding_informative():
    loss_fn = CSCLoss("inventory", inventory_size=50, embedding_dim=4)
    constant = torch.zeros(50, 4)
    constant[:, 0] = 1.0
    with torch.no_grad():  # as far away as can be, or as near
        for side in (-1.0, 1.0):
            loss_fn.inventory.copy_(side * constant)
            loss = loss_fn(
                constant,
                constant[:, None],
                torch.zeros(50, dtype=torch.long),
                entries=torch.arange(50),
            )
            assert loss_fn.log_set.item() == pytest.approx(math.log(50))
            assert loss.item() > math.log(50) - 1e-4


def test_mean_aggregation_gives_the_leave_one_out_centroid_softmax():
    torch.manual_seed(6)
    embeddings = F.normalize(torch.randn(12, 8), dim=-1)
    identities = torch.randperm(12) % 4
    vectors = CrossConditionAggregator(8, aggregation="mean")(
        embeddings, identities, conditions=3
    )
    loss = CSCLoss(scale=2.0)(embeddings, vectors, identities)
    total = 0.0
    for i in range(12):
        logits = []
        for n in range(4):
            own = [j for j in range(12) if identities[j] == identities[i]]
            keys = [j for j in range(12) if identities[j] == n]
            del keys[own.index(i)]  # the query's condition
            centroid = F.normalize(embeddings[keys].mean(0), dim=-1)
            logits.append(-2.0 * ((embeddings[i] - centroid) ** 2).sum())
        logits = torch.stack(logits)
        total = total + logits.logsumexp(0) - logits[identities[i]]
    assert torch.allclose(loss, total / 12, atol=1e-5)


def test_bfloat16_embeddings_give_a_float32_loss():
    embeddings, vectors, labels = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = CSCLoss()(embeddings.bfloat16(), vectors.bfloat16(), labels)
        exact = CSCLoss()(embeddings, vectors, labels)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, exact, atol=0.05)  # bfloat16 input rounding


def test_unknown_contrast_set_names_the_choices():
    with pytest.raises(BadInputError, match="batch, inventory, mixture"):
        CSCLoss("batches")
    with pytest.raises(BadInputError, match="inventory_size"):
        CSCLoss("inventory")
