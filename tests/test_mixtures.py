"""Planning and making mixtures."""

import os
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_ssl.augment import Augment, audio_files
from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.mixtures import (
    MixtureDataset,
    MixturePlan,
    MixtureSampler,
)
from speechbrain_ssl.dataio.recordings import find_recordings
from speechbrain_ssl.schedules import Linear


@pytest.fixture(scope="module")
def rows(small_corpus):
    import pandas as pd

    paths = sorted((small_corpus / "wav").rglob("*.wav"))
    return pd.DataFrame(
        {
            "ID": [str(path) for path in paths],
            "duration": 1.0,
            "wav": [str(path) for path in paths],
            "start": 0,
            "stop": 16000,
            "spk_id": [path.parts[-3] for path in paths],
        }
    )


def sampler(rows, **changes):
    settings = {
        "identity": "utterance",
        "identities": 8,
        "conditions": 3,
        "sources": 2,
        "single_talker_share": 0.1,
        "level_range_db": 5.0,
        "steps_per_epoch": 4,
        "crop_samples": 4000,
        "seed": 7,
    }
    return MixtureSampler(rows, **{**settings, **changes})


@pytest.mark.parametrize("conditions", [2, 3, 4])
@pytest.mark.parametrize("sources", [2, 3])
def test_every_identity_meets_others_in_every_condition(
    rows, conditions, sources
):
    plans = sampler(rows, conditions=conditions, sources=sources).plan(1, 0)
    counts = Counter(member for plan in plans for member in plan.identities)
    assert counts == dict.fromkeys(range(8), conditions)
    for plan in plans:
        assert len(set(plan.identities)) == len(plan.identities)
        assert len(plan.rows) in (1, sources)
    if sources == 2:
        pairs = [
            frozenset(plan.identities) for plan in plans if len(plan.rows) == 2
        ]
        assert len(set(pairs)) == len(pairs)


def test_single_talkers_have_their_share_and_batches_one_size(rows):
    plans = sampler(rows, identities=16, conditions=4)
    sizes = {len(plans.plan(1, batch)) for batch in range(3)}
    singles = [
        sum(len(plan.rows) == 1 for plan in plans.plan(1, batch))
        for batch in range(3)
    ]
    assert len(sizes) == 1
    assert len(set(singles)) == 1
    assert singles[0] == 4  # of 34 mixtures


def test_single_talkers_follow_a_schedule_over_epochs(rows):
    share = Linear(1.0, 0.0, 2)
    counts = [
        sampler(rows, single_talker_share=share).singles(e) for e in (1, 2, 3)
    ]
    assert counts == [[8, 8, 8], [4, 2, 2], [0, 0, 0]]  # 8 of 16 is half


def test_crops_of_one_long_recording_do_not_overlap(rows):
    plans = [p for b in range(4) for p in sampler(rows).plan(1, b)]
    by_batch = {}
    for plan in plans:
        for row, start in zip(plan.rows, plan.starts):
            by_batch.setdefault((plan.seed[2], row), []).append(start)
    assert len(by_batch) == 32
    for starts in by_batch.values():
        gaps = np.diff(sorted(starts))
        assert len(starts) == 3 and (gaps >= 4000).all()
        assert min(starts) >= 0 and max(starts) + 4000 <= 16000


def test_epoch_uses_every_identity_before_one_comes_twice(rows):
    plans = sampler(rows, steps_per_epoch=4)
    assert len(plans.names) == 32
    seen = {row for batch in plans for plan in batch for row in plan.rows}
    assert len(seen) == 32


def test_plans_depend_on_seed_epoch_and_batch_alone(rows):
    first, again = sampler(rows), sampler(rows)
    again.plan(3, 1)
    assert first.plan(2, 3) == again.plan(2, 3)
    assert first.plan(2, 3) != first.plan(1, 3)
    assert first.plan(2, 3) != sampler(rows, seed=8).plan(2, 3)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_batch_is_one_condition_after_the_other(rows, share):
    plans = sampler(rows, single_talker_share=share).plan(1, 0)
    members = [member for plan in plans for member in plan.identities]
    for first in (0, 8, 16):  # what the aggregator counts on
        assert sorted(members[first : first + 8]) == list(range(8))


def test_other_identities_meet_in_another_epoch_and_round(rows):
    plans = sampler(rows)
    met = {
        frozenset(row for plan in plans.plan(*place) for row in plan.rows)
        for place in ((1, 0), (2, 0), (1, 4))  # 4 batches use all 32
    }
    assert len(met) == 3
    assert plans.plan(1, 0)[0].seed != plans.plan(2, 0)[0].seed


def test_levels_differ_in_both_directions(rows):
    plans = [plan for b in range(4) for plan in sampler(rows).plan(1, b)]
    gains = [plan.gains_db[1] for plan in plans if len(plan.rows) == 2]
    assert -5 <= min(gains) < -3 and 3 < max(gains) <= 5


def test_resuming_skips_the_batches_that_are_done(rows):
    whole, rest = sampler(rows), sampler(rows)
    rest.start_at(epoch=1, step=3)
    assert list(whole)[3:] == list(rest) and len(rest) == 1


def test_processes_take_different_batches_of_one_epoch(rows):
    ranks = [
        sampler(rows, rank=r, processes=2, steps_per_epoch=2) for r in (0, 1)
    ]
    both = [batch for rank in ranks for batch in rank]
    single = list(sampler(rows, steps_per_epoch=4))
    assert sorted(both) == sorted(single)


def test_identity_follows_the_yaml_value(rows):
    names = {
        identity: len(sampler(rows, identity=identity).names)
        for identity in ("speaker", "session", "utterance")
    }
    assert names == {"speaker": 16, "session": 16, "utterance": 32}
    with pytest.raises(BadInputError, match="speaker, session, utterance"):
        sampler(rows, identity="talker")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"identities": 40}, "needs 40 identities, the corpus has 32"),
        ({"conditions": 1}, "2 or more"),
        ({"identities": 2}, "4 or more"),
        ({"single_talker_share": 1.5}, "0 to 1"),
    ],
)
def test_impossible_batches_are_refused(rows, changes, message):
    with pytest.raises(BadInputError, match=message):
        sampler(rows, **changes)


def test_mixture_is_the_sum_of_its_sources_at_the_drawn_levels(rows):
    dataset = MixtureDataset(rows, sources=2, crop_samples=4000)
    for plan in sampler(rows).plan(1, 0):
        item = dataset[plan]
        assert torch.allclose(
            item["mixture"], item["sources"].sum(0), atol=1e-6
        )
        assert item["mixture"].abs().max() <= 0.9 + 1e-6
        active = item["identities"] >= 0
        levels = item["sources"].square().mean(-1).sqrt()
        assert active.sum() == len(plan.rows)
        assert (levels[~active] == 0).all()
        if len(plan.rows) == 2:
            difference = 20 * torch.log10(levels[1] / levels[0])
            assert difference.item() == pytest.approx(
                plan.gains_db[1], abs=1e-3
            )
            assert abs(plan.gains_db[1]) <= 5


def test_augmentation_changes_the_mixture_and_leaves_targets_clean(
    rows, tmp_path
):
    draw = np.random.default_rng(1)
    (tmp_path / "noise" / "music").mkdir(parents=True)
    (tmp_path / "rir").mkdir()
    noise = draw.normal(0, 0.1, 20000)
    soundfile.write(tmp_path / "noise" / "music" / "a.wav", noise, 16000)
    soundfile.write(tmp_path / "rir" / "a.wav", [0.0, 1.0, 0.5, 0.25], 16000)
    augment = Augment(
        str(tmp_path / "noise"),
        str(tmp_path / "rir"),
        noise_probability=1.0,
        reverb_probability=1.0,
    )
    plan = sampler(rows).plan(1, 0)[-1]
    clean = MixtureDataset(rows, 2, 4000)[plan]
    noisy = MixtureDataset(rows, 2, 4000, augment)[plan]
    again = MixtureDataset(rows, 2, 4000, augment)[plan]
    assert torch.equal(noisy["mixture"], again["mixture"])
    scale = noisy["sources"].norm() / clean["sources"].norm()
    assert torch.allclose(noisy["sources"], clean["sources"] * scale, atol=1e-5)
    assert not torch.allclose(
        noisy["mixture"], noisy["sources"].sum(0), atol=1e-2
    )


def test_talkers_are_reverberated_before_they_are_summed(rows, tmp_path):
    response = np.array([0.0, 1.0, 0.5, 0.25])
    soundfile.write(tmp_path / "a.wav", response, 16000, subtype="FLOAT")
    augment = Augment(rir_folder=str(tmp_path), reverb_probability=1.0)
    plan = sampler(rows).plan(1, 0)[-1]
    item = MixtureDataset(rows, 2, 4000, augment)[plan]
    expected = 0
    for source in item["sources"]:
        wet = np.convolve(source.numpy(), response)[1:4001]
        expected = expected + wet * source.norm().item() / np.linalg.norm(wet)
    np.testing.assert_allclose(item["mixture"], expected, atol=1e-5)


def test_reverberation_equals_direct_convolution(tmp_path):
    response = np.array([0.0, 1.0, 0.5, 0.25])
    soundfile.write(tmp_path / "a.wav", response, 16000, subtype="FLOAT")
    augment = Augment(rir_folder=str(tmp_path), reverb_probability=1.0)
    wave = torch.randn(50)
    wet = augment.reverberate(wave, np.random.default_rng(0))
    direct = torch.from_numpy(np.convolve(wave.numpy(), response)[1:51]).float()
    direct = direct * wave.norm() / direct.norm()
    assert torch.allclose(wet, direct, atol=1e-5)


def test_noise_has_the_drawn_ratio(tmp_path):
    (tmp_path / "music").mkdir()
    noise = np.random.default_rng(1).normal(0, 0.1, 9000)
    soundfile.write(tmp_path / "music" / "a.wav", noise, 16000)
    augment = Augment(str(tmp_path), noise_probability=1.0)
    wave = torch.randn(4000)
    ratios = []
    for seed in range(20):
        added = augment.add_noise(wave, np.random.default_rng(seed)) - wave
        ratios.append(20 * torch.log10(wave.norm() / added.norm()).item())
    assert 3 <= min(ratios) < 8 and 13 < max(ratios) <= 18


def test_augmentation_folder_without_audio_or_of_another_rate_is_refused(
    tmp_path,
):
    with pytest.raises(BadInputError, match="no .wav or .flac"):
        Augment(noise_folder=str(tmp_path))
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "a.wav", np.ones(80), 8000)
    with pytest.raises(BadInputError, match="8000 Hz"):
        Augment(noise_folder=str(tmp_path))
    with pytest.raises(BadInputError, match="noise_probability is 2"):
        Augment(noise_probability=2)
    soundfile.write(tmp_path / "music" / "a.wav", np.ones(0), 16000)
    with pytest.raises(BadInputError, match="a.wav has no samples"):
        Augment(noise_folder=str(tmp_path))


def test_linked_folders_are_searched_and_circles_end(tmp_path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "far" / "deep" / "a.FLAC", np.ones(80), 16000)
    (tmp_path / "noise" / "music").mkdir(parents=True)
    soundfile.write(tmp_path / "noise" / "music" / "b.wav", np.ones(80), 16000)
    (tmp_path / "noise" / "babble").symlink_to(tmp_path / "far")
    (tmp_path / "noise" / "music" / "up").symlink_to(tmp_path / "noise")
    names = [
        path.relative_to(tmp_path / "noise").as_posix()
        for path, _ in audio_files(str(tmp_path / "noise"), 16000)
    ]
    assert names == ["babble/deep/a.FLAC", "music/b.wav"]
    latin = os.fsencode(tmp_path) + b"/noise/music/caf\xe9.wav"
    try:
        open(latin, "wb").close()
    except OSError:
        pytest.skip("names of this file system are UTF-8")
    with pytest.raises(BadInputError, match=r"caf\\udce9.wav' in it is not"):
        audio_files(str(tmp_path / "noise"), 16000)
    os.remove(latin)
    assert len(find_recordings([tmp_path / "noise"])) == 2


def test_a_recording_that_hardly_speaks_gives_its_loudest_part(rows, tmp_path):
    wave = np.zeros(16000 * 60)
    wave[704_000:712_000] = 0.1 * np.sin(np.arange(8000))
    soundfile.write(tmp_path / "sparse.wav", wave, 16000)
    sparse = rows.assign(wav=str(tmp_path / "sparse.wav"), stop=len(wave))
    item = MixtureDataset(sparse, 2, 16000)
    for start in (0, 300_000):
        plan = MixturePlan((0,), (start,), (0.0,), (0,), (start, 0, 0, 0))
        energy = item[plan]["mixture"].square()
        assert 0 < (energy > 1e-3).float().mean() < 0.6


def test_file_that_turned_silent_or_damaged_is_named(rows, tmp_path):
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(16000), 16000)
    bad = rows.assign(wav=str(silent))
    plan = sampler(rows).plan(1, 0)[-1]
    with pytest.raises(BadInputError, match=r"silent\.wav.*\n.*all silent"):
        MixtureDataset(bad, 2, 4000)[plan]
    soundfile.write(silent, np.full(16000, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(BadInputError, match="NaN"):
        MixtureDataset(bad, 2, 4000)[plan]
    silent.write_bytes(b"RIFF")
    with pytest.raises(BadInputError, match="cannot be read"):
        MixtureDataset(bad, 2, 4000)[plan]
