"""Tables of embeddings on disk: the same after a kill and by two processes."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.evaluation import table as module
from speechbrain_ssl.evaluation.embed import embed
from speechbrain_ssl.evaluation.table import embed_to_table, read_table


class Mean(torch.nn.Linear):
    """Mean level of four bands of time; counts the utterances it saw."""

    def __init__(self):
        super().__init__(4, 4, bias=False)
        torch.nn.init.eye_(self.weight)
        self._seen = 0

    def forward(self, waves):
        self._seen += len(waves)
        return super().forward(
            torch.nn.functional.adaptive_avg_pool1d(waves.abs(), 4)
        )


@pytest.fixture
def rows(tmp_path):
    draw = np.random.default_rng(1)
    names = [f"u/{number}é" for number in range(9)]
    lengths = [800 + 100 * (number % 4) for number in range(9)]
    for number, length in enumerate(lengths):
        wave = draw.normal(0, 0.1, length)
        soundfile.write(tmp_path / f"{number}.wav", wave, 16000)
    files = [str(tmp_path / f"{number}.wav") for number in range(9)]
    return pd.DataFrame(
        {"ID": names, "wav": files, "start": 0, "stop": lengths}
    )


def same(one, two):
    np.testing.assert_allclose(one.vectors, two.vectors, atol=1e-6)
    np.testing.assert_array_equal(one.energies, two.energies)


def test_a_table_is_the_embeddings_and_is_not_made_twice(rows, tmp_path):
    encoder, path = Mean(), tmp_path / "out" / "table.npz"
    made = embed_to_table(encoder, rows, path, "cpu")
    same(made, embed(Mean(), rows, "cpu"))
    assert encoder._seen == 9
    same(embed_to_table(encoder, rows, path, "cpu"), made)
    assert encoder._seen == 9
    assert read_table(path)[0] == rows["ID"].tolist()
    assert [p.name for p in path.parent.iterdir()] == ["table.npz"]


def test_a_table_of_other_features_or_a_damaged_one_is_not_used(rows, tmp_path):
    path, encoder = tmp_path / "table.npz", Mean().bfloat16().float()
    embed_to_table(encoder, rows, path, "cpu")
    for name, value in (("f_max", 4000), ("window", torch.ones(2))):
        setattr(encoder, name, value)
        embed_to_table(encoder, rows, path, "cpu")
    assert encoder._seen == 27
    for size in (0, 200):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(BadInputError, match="Remove it; it is then made"):
            embed_to_table(encoder, rows, path, "cpu")
    assert module.fingerprint(Mean().bfloat16(), rows)


def test_a_killed_run_goes_on_where_it_was(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART", 2)
    encoder, path = Mean(), tmp_path / "table.npz"
    save, calls = module._save, []

    def kill(*arguments, **arrays):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(save(*arguments, **arrays))

    monkeypatch.setattr(module, "_save", kill)
    with pytest.raises(KeyboardInterrupt):
        embed_to_table(encoder, rows, path, "cpu")
    monkeypatch.setattr(module, "_save", save)
    assert not path.exists()
    [parts] = tmp_path.glob("*.parts")
    (parts / ".000000001.npz").write_bytes(b"half")  # as of a kill in a save
    seen, encoder._seen = encoder._seen, 0
    made = embed_to_table(encoder, rows, path, "cpu")
    assert (seen, encoder._seen) == (8, 3)  # the fourth part was not saved
    same(made, embed(Mean(), rows, "cpu"))
    assert not parts.exists()


def test_shares_of_two_processes_make_one_table(rows, tmp_path, monkeypatch):
    path, join = tmp_path / "table.npz", module._join
    encoders = Mean(), Mean()
    monkeypatch.setattr(module, "_join", lambda *_: None)
    monkeypatch.setattr(module, "ddp_barrier", lambda: None)
    for rank, encoder in enumerate(encoders):
        encoder.load_state_dict(encoders[0].state_dict())
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        listed = module.Path.glob
        # Both look before either writes.
        monkeypatch.setattr(module.Path, "glob", lambda *_: [])
        with pytest.raises(BadInputError):  # no table to read as yet
            embed_to_table(encoder, rows, path, "cpu")
        monkeypatch.setattr(module.Path, "glob", listed)
    assert [encoder._seen for encoder in encoders] == [5, 4]
    monkeypatch.setattr(module, "_join", join)
    monkeypatch.setenv("RANK", "0")
    made = embed_to_table(encoders[0], rows, path, "cpu")
    assert encoders[0]._seen == 5
    same(made, embed(encoders[0], rows, "cpu"))


def test_other_weights_or_utterances_make_another_table(rows, tmp_path):
    path = tmp_path / "table.npz"
    embed_to_table(Mean(), rows, path, "cpu")
    other = Mean()
    with torch.no_grad():
        other.weight.mul_(2)
    made = embed_to_table(other, rows, path, "cpu")
    assert other._seen == 9
    fewer = embed_to_table(other, rows[2:], path, "cpu")
    np.testing.assert_allclose(fewer.vectors, made.vectors[2:], atol=1e-6)


def test_a_file_that_changed_under_its_name_is_embedded_anew(rows, tmp_path):
    encoder, path = Mean(), tmp_path / "table.npz"
    made = embed_to_table(encoder, rows, path, "cpu")
    changed = rows["wav"].iloc[3]
    wave, rate = soundfile.read(changed)
    soundfile.write(changed, wave / 2, rate)
    again = embed_to_table(encoder, rows, path, "cpu")
    same(again, embed(encoder, rows, "cpu"))
    assert abs(again.vectors - made.vectors).max() > 0


def test_a_file_that_is_no_table_is_refused(rows, tmp_path):
    path = tmp_path / "table.npz"
    np.savez(path, vectors=np.array([{}], dtype=object))
    with pytest.raises(BadInputError, match="holds no table of embeddings"):
        embed_to_table(Mean(), rows, path, "cpu")
    path.write_text("no archive")
    with pytest.raises(BadInputError, match="holds no table of embeddings"):
        read_table(path)


def test_a_share_that_is_missing_is_no_table(rows, tmp_path, monkeypatch):
    """As when processes have output folders of their own."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(module, "ddp_barrier", lambda: None)
    with pytest.raises(BadInputError, match="5 of 9 utterances"):
        embed_to_table(Mean(), rows, tmp_path / "table.npz", "cpu")
    assert not (tmp_path / "table.npz").exists()
