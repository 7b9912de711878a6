"""CN-Celeb: folders, lists, files and arguments that do not fit."""

import shutil

import pytest
import soundfile
from cnceleb_tree import prepare, refused, rows_of
from trees import RATE, tone, write_garbage

from speechbrain_ssl.checks import BadInputError


def test_folders_that_are_not_cnceleb_are_refused(cnceleb_corpus, cnceleb1):
    parent = cnceleb1.parent
    message = refused(str(parent))
    assert "has neither dev/dev.lst nor spk.lst" in message
    assert "it holds: CN-Celeb2_flac, CN-Celeb_flac" in message
    assert "not a folder that exists" in refused(f"{parent}/nowhere")
    two = cnceleb_corpus.split(",")[1]
    assert "0 folders of CN-Celeb1 and 1 of CN-Celeb2" in refused(two)
    assert "2 folders of CN-Celeb1" in refused(f"{cnceleb1},{cnceleb1}")


@pytest.mark.parametrize(
    ("enrolment", "name"),
    [
        ("joined", "trials.lst"),
        ("joined", "enroll.lst"),
        ("cuts", "enroll.map"),
    ],
)
def test_a_missing_list_is_named(enrolment, name, cnceleb_corpus, cnceleb1):
    (cnceleb1 / "eval/lists" / name).unlink()
    message = refused(cnceleb_corpus, enrolment=enrolment)
    assert f"has no eval/lists/{name}" in message


def test_lists_of_the_other_enrolment_are_not_needed(cnceleb_corpus, cnceleb1):
    (cnceleb1 / "eval/lists/enroll.map").unlink()
    assert len(rows_of(prepare(cnceleb_corpus), "enrol")) == 2


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("dev/dev.lst", "id00003", "id00009", "no audio at"),
        ("dev/dev.lst", "id00003", "id10003\nid00003", "no audio at"),
        ("eval/lists/trials.lst", ".wav 1", ".wav", "trial 1 is 'id00800"),
        ("eval/lists/trials.lst", ".wav 1", ".wav 2", "-001.wav 2'"),
        ("eval/lists/trials.lst", ".wav 1", ".wav 1 x", "-001.wav 1 x'"),
        ("eval/lists/trials.lst", "800-sing", "800-vlog", "no such audio file"),
        ("eval/lists/enroll.lst", "id00801-e", "id00809-e", "it is not in"),
        ("eval/lists/enroll.lst", "ll/id00801", "ll/id00809", "no such audio"),
        ("eval/lists/enroll.lst", "id00801-", "id00800-", "line 2 is 'id00800"),
        ("eval/lists/enroll.lst", ".wav", ".wav b.wav", "2 files; one is"),
    ],
)
def test_lists_that_do_not_fit_are_refused(
    name, old, new, expected, cnceleb_corpus, cnceleb1
):
    replace(cnceleb1 / name, old, new)
    message = refused(cnceleb_corpus, full_corpus=False)
    assert expected in message and "1 problem:" in message


@pytest.mark.parametrize(
    ("enrolment", "name"), [("joined", "enroll.lst"), ("cuts", "enroll.map")]
)
def test_a_model_without_files_is_refused(
    enrolment, name, cnceleb_corpus, cnceleb1
):
    replace(cnceleb1 / "eval/lists/trials.lst", "id00800-e", "id00803-e")
    message = refused(cnceleb_corpus, full_corpus=False, enrolment=enrolment)
    expected = "names the model 'id00803-enroll'; it is not in eval/lists/"
    assert expected + name in message


def test_a_cut_without_audio_is_refused(cnceleb_corpus, cnceleb1):
    replace(
        cnceleb1 / "eval/lists/enroll.map", "id00801/singing", "id00801/vlog"
    )
    assert len(rows_of(prepare(cnceleb_corpus, name="joined"), "enrol")) == 2
    message = refused(cnceleb_corpus, enrolment="cuts")
    assert "'id00801/vlog-01-001'; there is no such audio file" in message


def test_a_speaker_of_both_corpora_is_refused(cnceleb_corpus, cnceleb1):
    shutil.copytree(
        cnceleb1 / "data/id00000", f"{cnceleb1}/../CN-Celeb2_flac/data/id0"
    )
    (cnceleb1 / "data/id00000").rename(cnceleb1 / "data/id0")
    replace(cnceleb1 / "dev/dev.lst", "id00000", "id0")
    replace(cnceleb1.parent / "CN-Celeb2_flac/spk.lst", "id10000", "id0")
    assert "'id0' is a training speaker of both" in refused(cnceleb_corpus)


def test_a_recording_in_two_formats_is_refused(cnceleb_corpus, cnceleb1):
    soundfile.write(cnceleb1 / "data/id00000/singing-01-001.wav", tone(9), RATE)
    assert "are the same recording" in refused(cnceleb_corpus)


def test_audio_of_another_name_is_left_out_with_a_warning(
    cnceleb_corpus, cnceleb1, caplog
):
    soundfile.write(cnceleb1 / "data/id00000/stray.wav", tone(6400), RATE)
    assert len(rows_of(prepare(cnceleb_corpus), "train", "dev")) == 64
    assert "stray.wav" in caplog.text


def test_faulty_training_files_stop_or_are_skipped(cnceleb_corpus, cnceleb1):
    write_garbage(cnceleb1 / "data/id00001/singing-01-001.flac")
    assert "1 of 64 training files cannot be used" in refused(cnceleb_corpus)
    rows = rows_of(prepare(cnceleb_corpus, bad_files="skip"), "train", "dev")
    assert len(rows) == 63


def test_a_faulty_file_of_a_trial_always_stops(cnceleb_corpus, cnceleb1):
    write_garbage(cnceleb1 / "eval/test/id00801-singing-02-001.flac")
    message = refused(cnceleb_corpus, bad_files="skip")
    assert "1 of 6 files of trials cannot be used" in message


def test_a_cut_file_is_found_by_joining_or_checking_it(
    cnceleb_corpus, cnceleb1
):
    path = cnceleb1 / "data/id00001/singing-01-001.flac"
    path.write_bytes(path.read_bytes()[:-2000])
    assert "singing-01-001.flac" in refused(cnceleb_corpus, check_samples=True)
    with pytest.raises(BadInputError, match="singing-01-001.flac"):
        prepare(cnceleb_corpus, join_seconds=0.7)
    assert not (cnceleb1.parent / "out" / "train.csv").exists()
    out = prepare(cnceleb_corpus, join_seconds=0.7, bad_files="skip")
    assert (out / "train.csv").is_file()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"split_ratio": [100, 0]}, "train and dev each need a share"),
        ({"split_ratio": [90]}, "split_ratio is [90]"),
        ({"join_seconds": -1}, "join_seconds is -1"),
        ({"enrolment": "mean"}, "enrolment is 'mean'"),
        ({"bad_files": "ignore"}, "bad_files is 'ignore'"),
        ({"shortest_seconds": 9}, "all 64 are shorter than 9 s"),
    ],
)
def test_wrong_arguments_are_refused(change, expected, cnceleb_corpus):
    assert expected in refused(cnceleb_corpus, **change)


def test_nothing_is_written_among_the_audio(cnceleb_corpus, cnceleb1):
    for changes in (
        {"name": "CN-Celeb_flac/data/out"},
        {"joined_folder": cnceleb1 / "eval" / "joined"},
    ):
        with pytest.raises(BadInputError, match="among the audio"):
            prepare(cnceleb_corpus, **changes)
