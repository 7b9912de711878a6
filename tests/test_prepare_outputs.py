"""Outputs, reruns and SpeechBrain's own script."""

import hashlib
import json
import os

import pytest
from trees import TRIALS, add, prepare, refused, write_garbage

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.prepare import voxceleb
from speechbrain_ssl.prepare.voxceleb import (
    prepare_voxceleb,
    voxceleb_preparation,
)

# ---------------------------------------------------------- outputs and reruns


def hashes(folder):
    return {
        path: (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).digest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_data_folder_is_left_as_it_was(tree):
    before = hashes(tree)
    prepare(tree, random_segment=False, seg_dur=0.1, check_samples=True)
    assert hashes(tree) == before and len(before) == 16


def test_an_unchanged_preparation_is_not_repeated(tree, monkeypatch):
    out = prepare(tree)
    before = hashes(out)
    monkeypatch.setattr(voxceleb, "training_tables", None)
    assert prepare(tree, workers=1) == out  # processes do not change rows
    assert hashes(out) == before
    assert (
        json.loads((out / "prepare.json").read_text())["arguments"]["seed"]
        == 1234
    )


def add_file(tree):
    add(tree, "id1/s/d.wav")


def touch_file(tree):
    os.utime(tree / "wav" / "id1" / "s" / "a.wav", (1, 1))


def change_trials(tree):
    (tree.parent / "veri.txt").write_text(
        TRIALS + "0 id8/s/a.wav id9/s/c.wav\n"
    )


def remove_manifest(tree):
    (tree.parent / "out" / "dev.csv").unlink()


def spoil_record(tree):
    (tree.parent / "out" / "prepare.json").write_text("{")


@pytest.mark.parametrize(
    "change",
    [add_file, touch_file, change_trials, remove_manifest, spoil_record],
)
def test_changed_inputs_are_prepared_again(tree, change):
    out = prepare(tree)
    change(tree)
    before = hashes(out)
    prepare(tree)
    after = hashes(out)
    assert before != after
    assert len(after) == 5


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"amp_th": 0.1}, {"random_segment": False, "seg_dur": 0.1}],
)
def test_changed_arguments_are_prepared_again(tree, change):
    out = prepare(tree)
    record = (out / "prepare.json").read_text()
    prepare(tree, **change)
    assert (out / "prepare.json").read_text() != record


def test_a_refusal_keeps_the_earlier_preparation(tree):
    before = hashes(prepare(tree))
    write_garbage(tree / "wav" / "id1" / "s" / "b.wav")
    with pytest.raises(BadInputError):
        prepare(tree)
    assert hashes(tree.parent / "out") == before


def test_a_failing_write_leaves_no_part_behind(tree, monkeypatch):
    before = hashes(prepare(tree))
    write_manifest = voxceleb.write_manifest

    def fail_on_test(rows, path):
        if "test" in path.name:
            raise OSError("no space left on device")
        write_manifest(rows, path)

    monkeypatch.setattr(voxceleb, "write_manifest", fail_on_test)
    with pytest.raises(OSError, match="no space"):
        prepare(tree, seed=2)
    assert hashes(tree.parent / "out") == before


def test_skip_prep_does_nothing(tmp_path):
    prepare_voxceleb("nowhere", tmp_path / "out", None, skip_prep=True)
    assert not (tmp_path / "out").exists()


def test_a_save_folder_that_cannot_be_made_is_refused(tree):
    (tree.parent / "file").touch()
    message = refused(tree, save_folder=tree.parent / "file" / "out")
    assert "cannot be written" in message


def test_a_save_folder_without_permission_is_refused(tree):
    locked = tree.parent / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "cannot be written" in refused(tree, save_folder=locked)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"data_folder": ""}, "names no root"),
        ({"splits": ["train", "valid"]}, "splits is ['train', 'valid']"),
        ({"splits": []}, "splits is []"),
        ({"split_ratio": [90]}, "split_ratio is [90]"),
        ({"split_ratio": [110, -10]}, "split_ratio is [110, -10]"),
        ({"split_ratio": [100, 0]}, "dev is among the splits"),
        ({"seg_dur": 0.0}, "seg_dur is 0.0 s"),
        ({"bad_files": "ignore"}, "bad_files is 'ignore'"),
        ({"most_bad": 5}, "most_bad is 5"),
        (
            {"verification_pairs_file": None},
            "verification_pairs_file is missing",
        ),
        ({"verification_pairs_file": "no.txt"}, "there is no such file"),
        ({"source": "/archives"}, "source is '/archives'"),
    ],
)
def test_wrong_arguments_are_refused(tree, change, expected):
    assert expected in refused(tree, **change)


def test_manifests_are_not_written_among_the_audio(tree):
    message = refused(tree, save_folder=tree / "wav" / "lists")
    assert "among the audio" in message
    assert not (tree / "wav" / "lists").exists()


def test_wrong_arguments_are_refused_together(tree):
    message = refused(tree, seg_dur=0, bad_files="ignore")
    assert "2 problems" in message


# --------------------------------------------------------- SpeechBrain's script


def write_script(folder, value):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "voxceleb_prepare.py"
    path.write_text(f"def prepare_voxceleb(*args):\n    return '{value}'\n")
    return path


@pytest.fixture
def no_checkout(monkeypatch):
    monkeypatch.delenv("SPEECHBRAIN_CHECKOUT", raising=False)


def test_our_preparation_is_the_last_resort(tmp_path, no_checkout):
    assert voxceleb_preparation(beside=tmp_path) is prepare_voxceleb


def test_scripts_are_taken_in_the_documented_order(
    tmp_path, no_checkout, monkeypatch
):
    write_script(tmp_path / "here", "beside")
    assert voxceleb_preparation(beside=tmp_path / "here")() == "beside"
    monkeypatch.chdir(tmp_path / "here")
    assert voxceleb_preparation()() == "beside"
    checkout = tmp_path / "checkout"
    write_script(checkout / "recipes" / "VoxCeleb", "checkout")
    monkeypatch.setenv("SPEECHBRAIN_CHECKOUT", str(checkout))
    assert voxceleb_preparation()() == "checkout"
    given = write_script(tmp_path / "given", "given")
    assert voxceleb_preparation(given)() == "given"
    monkeypatch.delenv("SPEECHBRAIN_CHECKOUT")
    assert voxceleb_preparation(checkout)() == "checkout"


def test_a_script_that_does_not_exist_is_refused(
    tmp_path, no_checkout, monkeypatch
):
    with pytest.raises(BadInputError, match="there is no file"):
        voxceleb_preparation(tmp_path / "no.py")
    with pytest.raises(BadInputError, match="recipes.VoxCeleb"):
        voxceleb_preparation(tmp_path)
    monkeypatch.setenv("SPEECHBRAIN_CHECKOUT", str(tmp_path))
    with pytest.raises(BadInputError, match="SPEECHBRAIN_CHECKOUT"):
        voxceleb_preparation()


def test_a_script_without_the_function_is_refused(tmp_path):
    path = tmp_path / "other.py"
    path.write_text("")
    with pytest.raises(BadInputError, match="has no prepare_voxceleb"):
        voxceleb_preparation(path)
