"""Embedding, interference, scoring and checkpoints."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from speechbrain_ssl.checkpoints import (
    RandomState,
    SafeCheckpointer,
    Stopwatch,
)
from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.evaluation.baseline import LogMelStatistics
from speechbrain_ssl.evaluation.embed import (
    Embeddings,
    EvenPieces,
    Utterances,
    embed,
)
from speechbrain_ssl.evaluation.scoring import cosine_scores
from speechbrain_ssl.evaluation.verification import TrialList, verify
from speechbrain_ssl.lobes.csc import Slots


@pytest.fixture
def rows(tmp_path):
    """Six utterances of three speakers, three lengths."""
    draw = np.random.default_rng(1)
    table = []
    for number in range(6):
        path = tmp_path / f"{number}.wav"
        samples = 1600 * (1 + number % 3)
        soundfile.write(path, draw.normal(0, 0.1, samples), 16000)
        speaker = f"s{number // 2}"
        table.append((f"u{number}", 0.1, str(path), 0, samples, speaker))
    names = ["ID", "duration", "wav", "start", "stop", "spk_id"]
    return pd.DataFrame(table, columns=names)


class Halves(torch.nn.Module):
    """Two slots: the first and the second half of the wave."""

    def forward(self, waves):
        estimates = torch.stack([waves, waves], dim=1)
        middle = waves.shape[1] // 2
        estimates[:, 0, middle:] = 0
        estimates[:, 1, :middle] = 0
        vectors = estimates[:, :, ::100][:, :, :16]
        return Slots(torch.nn.functional.normalize(vectors, dim=-1), estimates)


def test_each_utterance_gets_its_own_row_whatever_the_batches(rows):
    table = embed(LogMelStatistics(), rows, "cpu")
    assert table.vectors.shape == (6, 1, 80)
    for number in range(6):
        alone = embed(LogMelStatistics(), rows.iloc[[number]], "cpu")
        assert np.allclose(table.vectors[number], alone.vectors[0], atol=1e-4)


def test_embedding_leaves_the_mode_of_the_encoder(rows):
    encoder = LogMelStatistics().train()
    embed(encoder, rows, "cpu")
    assert encoder.training


def test_interferer_is_from_outside_the_trials_at_the_ratio(rows):
    trials = pd.DataFrame(
        [(1, "u0", "u1"), (0, "u0", "u2"), (0, "u3", "u1")],
        columns=["target", "enrol", "test"],
    )
    for sir in (10, 0):
        trial_list = TrialList(trials, rows, rows, [sir], seed=3)
        mixer = trial_list.conditions[f"sir_{sir}"]
        met = {"u1": {"s0", "s1"}, "u2": {"s0", "s1"}}
        for place, name in enumerate(trial_list.test["ID"]):
            other = rows["spk_id"].iat[mixer.plans[place][0]]
            assert other not in met[name]
        wave = torch.randn(1, 800)
        talker = torch.randn(1, 800)
        added = mixer.mix(wave, talker) - wave
        ratio = 20 * torch.log10(wave.norm() / added.norm())
        assert ratio.item() == pytest.approx(sir, abs=1e-3)


def test_interferer_is_the_same_for_every_level_and_order_of_the_list(rows):
    trials = pd.DataFrame(
        [(1, "u0", "u1"), (0, "u0", "u2")], columns=["target", "enrol", "test"]
    )
    first = TrialList(trials, rows, rows, [10, 0], seed=3)
    turned = TrialList(trials[::-1], rows, rows, [0], seed=3)
    plans = first.conditions["sir_10"].plans
    assert plans == first.conditions["sir_0"].plans
    assert plans == turned.conditions["sir_0"].plans


def test_pool_without_a_free_speaker_is_refused(rows):
    trials = pd.DataFrame(
        [(1, "u0", "u1"), (0, "u2", "u1")], columns=["target", "enrol", "test"]
    )
    pool = rows[rows["spk_id"] != "s2"]
    with pytest.raises(
        BadInputError, match="all speakers of the pool meet 'u1'"
    ):
        TrialList(trials, rows, pool, [0])


def slow_score(enrol, test, rule):
    model = enrol[0][enrol[1].argmax()]
    slots = range(len(test[0]))
    if rule == "loudest":
        slots = [test[1].argmax()]
    cosines = [
        model @ test[0][c] / np.linalg.norm(model) / np.linalg.norm(test[0][c])
        for c in slots
    ]
    return max(cosines)


@pytest.mark.parametrize("rule", ["loudest", "best"])
def test_scores_equal_the_slow_loop(rule):
    draw = np.random.default_rng(2)
    table = Embeddings(draw.normal(size=(5, 3, 4)), draw.random((5, 3)))
    enrol, test = draw.integers(0, 5, (2, 20))
    scores = cosine_scores(table, table, enrol, test, rule)
    for n in range(20):
        sides = [
            (table.vectors[i], table.energies[i]) for i in (enrol[n], test[n])
        ]
        assert scores[n] == pytest.approx(slow_score(*sides, rule), abs=1e-6)


def test_report_uses_the_rule_of_the_condition_and_its_improvement(
    rows, tmp_path
):
    trials = pd.DataFrame(
        [(1, "u0", "u1"), (0, "u0", "u2")], columns=["target", "enrol", "test"]
    )
    trial_list = TrialList(trials, rows, rows, [5], seed=1)
    report = verify(Halves(), trial_list, "cpu", tmp_path)
    assert report["clean"]["rule"] == "loudest"
    assert "si_snr_improvement" not in report["clean"]
    assert report["sir_5"]["rule"] == "best"
    assert report["sir_5"]["si_snr_improvement"] < 0  # halves separate nothing
    line = (tmp_path / "sir_5.txt").read_text().splitlines()[0].split()
    assert line[:3] == ["1", "u0", "u1"]
    assert float(line[3]) == pytest.approx(
        report["sir_5"]["scores"][0], abs=1e-6
    )


def test_checkpoint_killed_while_saving_is_not_found(tmp_path, monkeypatch):
    layer = torch.nn.Linear(2, 2)
    checkpointer = SafeCheckpointer(tmp_path, {"layer": layer})
    good = checkpointer.save_checkpoint({"eer": 0.2})

    def fail(*_):
        raise KeyboardInterrupt

    checkpointer.custom_save_hooks["layer"] = fail
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save_checkpoint({"eer": 0.1})
    found = SafeCheckpointer(tmp_path, {"layer": layer}).find_checkpoint()
    assert found.path == good.path
    del checkpointer.custom_save_hooks["layer"]
    checkpointer.save_checkpoint({"eer": 0.1})
    assert not list(tmp_path.glob("partial-*"))


def test_random_state_is_restored_only_when_asked(tmp_path):
    state = RandomState()
    state.save(tmp_path / "state.ckpt")
    expected = torch.rand(3), np.random.rand(3)
    state.load(tmp_path / "state.ckpt", end_of_epoch=False)
    state.restore(end_of_epoch=True)  # saved within an epoch: not yet
    assert not torch.equal(torch.rand(3), expected[0])
    state.restore(end_of_epoch=False)
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
    state.restore(end_of_epoch=False)  # once only
    assert not torch.equal(torch.rand(3), expected[0])


def test_the_minutes_of_a_killed_run_count(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    first = Stopwatch()
    now += 120
    first.save(tmp_path / "early")
    now += 180
    first.save(tmp_path / "late")
    now += 3600  # killed, and run again an hour later
    second = Stopwatch()
    now += 30
    second.load(tmp_path / "late", end_of_epoch=True)
    assert second.minutes == pytest.approx(5.5)
    now += 30
    second.load(tmp_path / "early", end_of_epoch=True)  # the best one
    assert second.minutes == pytest.approx(6)
    first.load(tmp_path / "early", end_of_epoch=True)  # it has saved
    assert first.minutes == pytest.approx((now - 1000) / 60)


@pytest.mark.parametrize("samples", [700, 1600, 2500])
def test_pieces_are_evenly_spaced_from_start_to_end(rows, samples):
    waves = Utterances(rows)
    pieces = EvenPieces(waves, 5, samples)
    assert len(pieces.samples) == 30
    for row in range(6):
        wave = waves.read(row).numpy()
        while len(wave) < samples:
            wave = np.concatenate([wave, wave])[:samples]
        starts = np.linspace(0, len(wave) - samples, 5).astype(int)
        for piece, start in enumerate(starts):
            given = pieces.read(5 * row + piece).numpy()
            np.testing.assert_array_equal(given, wave[start:][:samples])
