"""Training that starts from the weights of an exported model."""

from types import SimpleNamespace

import pytest
import torch
from conftest import (
    TINY_BY_METHOD,
    TINY_HEAD,
    TINY_VIEWS,
    command_line,
    newest_weights,
)

import train
from speechbrain_ssl import experiment


@pytest.mark.parametrize("method", ["aam_supcon", "csc", "dino"])
def test_training_starts_from_the_weights_of_an_exported_model(
    method, small_corpus, exported, tmp_path, capsys
):
    weights = exported / "dino" / "embedding_model.ckpt"

    def trained(folder, given):
        own = TINY_BY_METHOD.get(method, [*TINY_VIEWS, *TINY_HEAD])
        more = [*own, "--number_of_epochs=1"]
        more += ["--learning_rate=1e-6", f"--embedding_weights={given}"]
        yaml = f"{method}.yaml"
        return train.main(command_line(yaml, small_corpus, folder, *more))

    assert trained(tmp_path / "run", weights) == 0
    name = "blocks.0.conv.conv.weight"
    whole = torch.load(weights, weights_only=True)
    start = whole[name]
    end = newest_weights(tmp_path / "run", "encoder")
    change = (end[f"embedding_model.{name}"] - start).abs().max()
    assert 0 < change < 1e-4 < start.abs().max()
    if method == "dino":  # what is scored
        teacher = newest_weights(tmp_path / "run", "teacher")
        teacher = teacher[f"encoder.embedding_model.{name}"]
        assert (teacher - start).abs().max() < 1e-4
    assert trained(tmp_path / "no", exported / "dino") == 2
    assert "there is no such file" in capsys.readouterr().err
    other = tmp_path / "other.ckpt"
    torch.save({**whole, name: start[:1]}, other)
    assert trained(tmp_path / "no", other) == 2
    assert f"{name} has the shape (1, 40, 5); this" in capsys.readouterr().err


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch):
    calls = []
    library = SimpleNamespace(mallopt=lambda *given: calls.append(given))
    monkeypatch.setattr(experiment.ctypes, "CDLL", lambda name: library)
    experiment.keep_freed_memory()
    assert calls == [(-3, 2**25), (-1, 2**31 - 1)]
    monkeypatch.setattr(experiment.ctypes, "CDLL", lambda name: object())
    experiment.keep_freed_memory()
    monkeypatch.undo()
    experiment.keep_freed_memory()
