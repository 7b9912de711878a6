"""Head, view encoder and teacher."""

import copy

import pytest
import torch
from conftest import small_ecapa
from torch import nn
from torch.nn import functional as F

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.lobes.dino import DINOHead
from speechbrain_ssl.lobes.encoder import ViewEncoder
from speechbrain_ssl.lobes.teacher import Teacher


def small_encoder(seed=0):
    torch.manual_seed(seed)
    return ViewEncoder(small_ecapa(), n_mels=20)


def small_head():
    return DINOHead(6, prototypes=16, hidden_dim=10, bottleneck_dim=5)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_logits_are_cosines_with_the_prototypes(batch_norm):
    torch.manual_seed(0)
    head = DINOHead(6, 16, 10, 5, batch_norm=batch_norm).eval()
    embeddings = torch.randn(3, 4, 6)
    points = head.layers(embeddings.reshape(12, 6))
    directions = head.prototypes.parametrizations.weight.original1
    expected = F.cosine_similarity(
        points.unsqueeze(1), directions.unsqueeze(0), dim=-1
    )
    torch.testing.assert_close(head(embeddings), expected.reshape(3, 4, 16))


def test_prototypes_keep_length_one_whatever_the_optimiser_does():
    head = small_head()
    optimiser = torch.optim.SGD(head.parameters(), lr=50.0)
    head(torch.randn(8, 6)).square().sum().backward()
    optimiser.step()
    norms = head.prototypes.weight.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(16))


def test_one_call_over_two_lengths_equals_two_calls():
    encoder = small_encoder().eval()
    long, short = torch.randn(3, 2, 8000), torch.randn(3, 4, 4000)
    both = encoder(long, short)
    assert both.shape == (3, 6, 6)
    torch.testing.assert_close(both[:, :2], encoder(long))
    torch.testing.assert_close(both[1, 3], encoder(short[1])[1])


def test_embeddings_do_not_depend_on_the_level():
    encoder = small_encoder().eval()
    wave = 0.1 * torch.randn(2, 8000)
    torch.testing.assert_close(
        encoder(wave), encoder(wave / 4), rtol=1e-3, atol=1e-4
    )


def test_bfloat16_autocast_agrees_with_float32():
    encoder, head = small_encoder().eval(), small_head().eval()
    waves = torch.randn(4, 2, 8000)
    exact = head(encoder(waves))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = head(encoder(waves))
    # bfloat16 has 8 bits of mantissa; cosines lie within -1 and 1
    torch.testing.assert_close(rough.float(), exact, rtol=0, atol=0.03)


def test_cosines_with_the_prototypes_stay_in_float32_under_autocast():
    head, points = small_head().eval(), torch.randn(4, 5)
    head.layers = torch.nn.Identity()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = head(points)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, head(points), rtol=0, atol=1e-6)


def test_teacher_starts_as_a_copy_that_has_no_gradient():
    encoder, head = small_encoder(), small_head()
    teacher = Teacher(encoder, head).eval()
    wave = torch.randn(2, 8000)
    assert torch.equal(teacher(wave), encoder.eval()(wave))
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(
        a.data_ptr() != b.data_ptr()
        for a, b in zip(teacher.encoder.parameters(), encoder.parameters())
    )


def test_teacher_after_one_step_is_the_weighted_mean():
    encoder, head = small_encoder(), small_head()
    teacher = Teacher(encoder, head)
    old = copy.deepcopy(dict(teacher.named_parameters()))
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *head.parameters()):
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    teacher.follow(encoder, head, momentum=0.996)
    new = dict(encoder.named_parameters(prefix="encoder"))
    new.update(head.named_parameters(prefix="head"))
    assert len(new) == len(old) > 50
    for name, now in teacher.named_parameters():
        expected = 0.996 * old[name] + 0.004 * new[name]
        torch.testing.assert_close(now, expected, rtol=1e-5, atol=1e-6)


def test_teacher_keeps_its_weights_when_momentum_is_one():
    encoder, head = small_encoder(), small_head()
    teacher = Teacher(small_encoder(seed=1), head)
    before = copy.deepcopy(teacher.state_dict())
    teacher.follow(encoder, head, momentum=1.0)
    after = teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_batch_norm_policy_decides_whose_statistics_the_teacher_has():
    waves = torch.randn(4, 2, 8000)
    for policy in ("own", "follow"):
        encoder, head = small_encoder(), small_head()
        teacher = Teacher(encoder, head, batch_norm=policy).train()
        before = copy.deepcopy(dict(teacher.named_buffers()))
        teacher.both(waves)
        changed = any(
            not torch.equal(before[n], b) for n, b in teacher.named_buffers()
        )
        assert changed == (policy == "own")
        encoder.train()(waves)
        teacher.follow(encoder, head, momentum=0.25)
        its = dict(encoder.named_buffers(prefix="encoder"))
        name = next(n for n in its if n.endswith("running_mean"))
        mine = dict(teacher.named_buffers())[name]
        expected = 0.25 * before[name] + 0.75 * its[name]
        assert torch.allclose(mine, expected) == (policy == "follow")


def test_bad_sizes_and_policies_are_refused():
    with pytest.raises(BadInputError, match="prototypes is 1"):
        DINOHead(6, prototypes=1)
    with pytest.raises(BadInputError, match="batch_norm is shared"):
        Teacher(small_encoder(), small_head(), batch_norm="shared")


def test_the_default_head_is_that_of_the_paper():
    torch.manual_seed(0)
    layers = DINOHead(256, 16).layers
    kinds = [type(layer) for layer in layers]
    assert kinds == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]
    assert [layer.out_features for layer in layers[::2]] == [2048, 2048, 256]
    for layer in layers[::2]:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert not layer.bias.any()
