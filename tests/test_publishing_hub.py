"""Publishing with the real client library, against a Hub on loopback."""

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from hub import TOKEN, Hub
from huggingface_hub import constants

from speechbrain_ssl import cli
from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.publishing.hub import _ask

CARD = """---
library_name: speechbrain
license: mit
tags: [speechbrain]
---
from_hparams(source="me/tones")
"""


@pytest.fixture
def hub(monkeypatch):
    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "hyperparams.yaml").write_text("sample_rate: 16000\n")
    (folder / "embedding_model.ckpt").write_bytes(b"w" * 5000)
    (folder / "classifier.ckpt").write_bytes(b"c" * 100)
    (folder / "README.md").write_text(CARD)
    return folder


def publish(folder, *more, name="me/tones"):
    return cli.main(["publish", str(folder), name, *more])


def test_uploads_exactly_the_folder_large_files_first(hub, folder, capsys):
    assert publish(folder) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "4 files, 0.0 MB, to me/tones:"
    assert [line.split()[-1] for line in printed[1:5]] == [
        "embedding_model.ckpt",
        "classifier.ckpt",
        "hyperparams.yaml",
        "README.md",
    ]
    assert printed[-1] == f"{hub.address}/me/tones"
    files = hub.repositories["me/tones"]["branches"]["main"]
    assert files == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert list(files)[-1] == "README.md"
    assert not hub.repositories["me/tones"]["private"]
    last = hub.log.index("POST /api/models/me/tones/commit/main")
    assert last == len(hub.log) - 1
    assert sum(line.startswith("PUT /lfs/") for line in hub.log) == 2


def test_private_and_a_branch_of_a_repository_that_exists(hub, folder, capsys):
    assert publish(folder, "--private") == 0
    assert hub.repositories["me/tones"]["private"]
    assert publish(folder, "--revision=v2") == 0
    assert capsys.readouterr().out.endswith("/me/tones/tree/v2\n")
    branches = hub.repositories["me/tones"]["branches"]
    assert branches["v2"] == branches["main"]
    assert publish(folder, "--revision=v2") == 2
    assert "name or branch is taken" in capsys.readouterr().err
    assert publish(folder, "--revision=v3", "--private") == 2
    assert set(branches) == {"main", "v2"}


def test_taken_name_changes_nothing(hub, folder, capsys):
    hub.add("me/tones")
    assert publish(folder) == 2
    assert "the name is taken" in capsys.readouterr().err
    assert hub.log == []
    assert hub.repositories["me/tones"]["branches"] == {"main": {}}


@pytest.mark.parametrize("step", ["/lfs/", "commit", "batch", "preupload"])
def test_failed_upload_leaves_nothing(step, hub, folder, capsys, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.failing = step
    assert publish(folder) == 2
    assert "the Hub" in capsys.readouterr().err
    assert hub.repositories == {}
    hub.failing = None
    assert publish(folder) == 0
    hub.failing = step
    assert publish(folder, "--revision=v2") == 2
    assert set(hub.repositories["me/tones"]["branches"]) == {"main"}


def test_failed_branch_leaves_no_repository(hub, folder):
    hub.failing = "/branch/"
    assert publish(folder, "--revision=v2") == 2
    assert hub.repositories == {}


def test_missing_and_wrong_tokens(hub, folder, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert publish(folder) == 2
    assert "the token is not valid" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "none"))
    assert publish(folder) == 2
    assert "none is stored and HF_TOKEN is not set" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    card = folder / "README.md"
    card.write_text(CARD.replace("me/", "you/"))
    assert publish(folder, name="you/tones") == 2
    assert "may not write for this owner" in capsys.readouterr().err
    assert hub.repositories == {}


def test_no_network(hub, folder, capsys, monkeypatch):
    hub.shutdown()
    hub.server_close()
    assert publish(folder) == 2
    message = capsys.readouterr().err
    assert "the Hub was not reached" in message
    assert "Check the network" in message
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert publish(folder) == 2

    def silent():
        raise TimeoutError

    with pytest.raises(BadInputError, match="not reached: TimeoutError"):
        _ask("me/tones", silent)


def test_folders_that_are_not_fit_are_refused(hub, folder, capsys, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    (folder / "notes.txt").symlink_to(secret)
    (folder / ".env").write_text("x")
    (folder / "embedding_model.ckpt").unlink()
    assert publish(folder) == 2
    message = capsys.readouterr().err
    assert "3 problems" in message and "has no embedding_model" in message
    assert "notes.txt is a link" in message and ".env is hidden" in message
    assert publish(folder, name="tones") == 2
    assert "not of the form user/name" in capsys.readouterr().err
    (folder / "embedding_model.ckpt").write_bytes(b"w")
    (folder / "notes.txt").unlink()
    (folder / ".env").unlink()
    (folder / "README.md").write_text("me/tones without front matter.")
    assert publish(folder) == 2
    assert "has no library_name" in capsys.readouterr().err
    assert hub.log == []


def test_card_of_another_name_is_refused(hub, folder, capsys):
    assert publish(folder, name="me/other") == 2
    assert "--name me/other --force" in capsys.readouterr().err


def test_published_model_is_loaded_from_the_hub(exported, hub, tmp_path):
    """With HF_ENDPOINT, as a user would set it, and a fresh cache."""
    from shutil import copytree

    model = copytree(exported / "dino", tmp_path / "dino")
    card = model / "README.md"
    card.write_text(card.read_text().replace("user/dino", "me/dino"))
    wave = next((exported.parents[1] / "corpus0").rglob("*.wav"))
    code = (
        "from speechbrain_ssl import cli\n"
        f"print(cli.main(['publish', {str(model)!r}, 'me/dino']))\n"
        "from speechbrain.inference.speaker import SpeakerRecognition\n"
        "stock = SpeakerRecognition.from_hparams('me/dino')\n"
        f"score = ['score', {str(wave)!r}, {str(wave)!r}]\n"
        "print(cli.main([*score, '--source', 'me/dino']))\n"
        "print(cli.main([*score, '--source', 'me/dino', '--trust']))\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "HF_ENDPOINT": hub.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line for line in printed if line in "012"] == ["0", "2", "0"]
    assert "YAML of a Hub model is code" in done.stderr
    assert "score        1.0000 (cosine)" in printed


def test_a_card_of_a_longer_name_is_refused(hub, folder, capsys):
    card = folder / "README.md"
    card.write_text(CARD.replace("me/tones", "me/tones-v2"))
    assert publish(folder) == 2
    assert "load another name" in capsys.readouterr().err
