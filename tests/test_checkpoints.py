"""Which checkpoint of a run is evaluated and published."""

from inspect import signature

import pandas as pd
import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_ssl.checkpoints import SafeCheckpointer
from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.manifest import write_manifest


def saved(folder, epochs):
    """A checkpointer after epochs with these meta data."""
    checkpointer = SafeCheckpointer(folder, {"layer": torch.nn.Linear(1, 1)})
    for number, meta in enumerate(epochs, start=1):
        checkpointer.save_checkpoint(meta={"epoch": number, **meta})
    return checkpointer


def named(*names):
    """Rows of one speaker."""
    rows = pd.DataFrame({"ID": names, "wav": names, "spk_id": "s"})
    return rows.assign(duration=1.0, start=0, stop=16000)


@pytest.mark.parametrize(
    ("rates", "targets", "expected"),
    [
        # 3 of 50 missed: (4 / 52 * 48 / 52 / 52) ** 0.5 = 0.037 more will do
        ([0.10, 0.06, 0.096], 50, 3),
        ([0.10, 0.06, 0.098], 50, 2),
        ([0.10, 0.096, 0.098], 50, 3),
        ([0.06, 0.10, 0.09, 0.098], 50, 3),
        # the same rates of many trials: 0.0024
        ([0.10, 0.06, 0.062], 10000, 3),
        ([0.10, 0.06, 0.063], 10000, 2),
        # no error among 20 trials is not certain: 0.045
        ([0.0, 0.04], 20, 2),
        ([0.0, 0.05], 20, 1),
    ],
)
def test_the_latest_epoch_within_a_standard_error_of_the_lowest_counts(
    tmp_path, rates, targets, expected
):
    epochs = [{"valid_eer": r, "valid_targets": targets} for r in rates]
    chosen = saved(tmp_path, epochs).chosen()
    assert chosen.meta["epoch"] == expected


def test_keys_of_one_save_do_not_weigh_on_the_next(tmp_path):
    """SpeechBrain's own default list grows by one key at each call."""
    stock = signature(Checkpointer.save_and_keep_only).parameters
    before = len(stock["importance_keys"].default)
    checkpointer = saved(tmp_path, [])
    for _ in range(3):
        checkpointer.save_and_keep_only(meta={}, num_to_keep=1)
    assert len(stock["importance_keys"].default) == before
    assert len(checkpointer.list_checkpoints()) == 1


def test_checkpoints_of_another_corpus_are_refused(tmp_path):
    first = saved(tmp_path, [])
    first.train_on(named("a", "b", "c"))
    first.save_checkpoint(meta={"epoch": 1})
    saved(tmp_path, []).train_on(named("c", "a", "b"))
    for others in ("ab", "abd", "abcd"):
        with pytest.raises(BadInputError, match="began with 3 utterances"):
            saved(tmp_path, []).train_on(named(*others))


def test_a_corpus_that_lost_a_few_utterances_is_the_same(tmp_path, caplog):
    rows = named(*(f"u{number}" for number in range(200)))
    before = tmp_path / "train.csv"
    write_manifest(rows, before)
    first = saved(tmp_path, [])
    first.train_on(rows)
    first.save_checkpoint(meta={"epoch": 1})
    saved(tmp_path, []).train_on(rows[2:], before)
    assert "198 utterances" in caplog.text
    renamed = rows[2:].assign(ID=[*rows["ID"][3:], "new"])
    one_speaker_less = rows.assign(spk_id=["s0", *["s"] * 199])[1:]
    write_manifest(rows.assign(spk_id=["s0", *["s"] * 199]), tmp_path / "b.csv")
    for others, csv in (
        (rows[3:], before),
        (renamed, before),
        (one_speaker_less, tmp_path / "b.csv"),
        (rows[2:], tmp_path / "absent.csv"),
        (rows[2:], None),
    ):
        with pytest.raises(BadInputError, match="they are 19[789] utterances"):
            saved(tmp_path, []).train_on(others, csv)


def test_without_a_number_of_trials_the_lowest_counts(tmp_path):
    epochs = [{"valid_eer": 0.1}, {"valid_eer": 0.2}]
    assert saved(tmp_path, epochs).chosen().meta["epoch"] == 1


def test_without_validation_the_lowest_loss_counts(tmp_path):
    checkpointer = saved(tmp_path, [{"loss": 3.0}, {"loss": 2.0}])
    checkpointer.save_checkpoint(meta={}, end_of_epoch=False)
    assert checkpointer.chosen().meta["epoch"] == 2


def test_a_run_in_its_first_epoch_has_none(tmp_path):
    checkpointer = saved(tmp_path, [])
    checkpointer.save_checkpoint(meta={}, end_of_epoch=False)
    assert checkpointer.chosen() is None
