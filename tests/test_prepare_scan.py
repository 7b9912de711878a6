"""Faulty audio files."""

import numpy as np
import pytest
import soundfile
from trees import RATE, add, ids, prepare, refused, tone, write_garbage

from speechbrain_ssl.prepare import scan

# --------------------------------------------------------------- faulty files


def write_nothing(path):
    path.write_bytes(b"")


def write_no_samples(path):
    soundfile.write(path, np.zeros(0), RATE)


def write_stereo(path):
    soundfile.write(path, np.stack([tone(4800)] * 2, axis=1), RATE)


def write_8_khz(path):
    soundfile.write(path, tone(4800), 8000)


def write_short(path):
    soundfile.write(path, tone(1600), RATE)


def write_silence(path):
    soundfile.write(path, np.zeros(4800), RATE)


def write_nan(path):
    wave = tone(4800)
    wave[7] = np.nan
    soundfile.write(path, wave, RATE, subtype="FLOAT")


def write_link_to_nothing(path):
    path.unlink()
    path.symlink_to(path.with_name("missing"))


FAULTS = [
    (write_nothing, "1 empty", "has no bytes"),
    (write_garbage, "1 unreadable", "cannot be read"),
    (write_no_samples, "1 empty", "has no samples"),
    (write_stereo, "1 several channels", "has 2 channels; 1 is expected"),
    (write_8_khz, "1 another sample rate", "has 8000 Hz; 16000 Hz is expected"),
    (write_short, "1 too short", "lasts 0.1 s; at least 0.2 s is expected"),
    (write_silence, "1 silent", "is silent"),
    (write_nan, "1 not finite", "holds NaN or infinite samples"),
    (write_link_to_nothing, "1 unreadable", "cannot be read"),
]
CHECKED = {"shortest_seconds": 0.2, "check_samples": True}


@pytest.mark.parametrize(("write", "kind", "problem"), FAULTS)
def test_faulty_training_files_stop_the_preparation(tree, write, kind, problem):
    write(tree / "wav" / "id1" / "s" / "b.wav")
    message = refused(tree, **CHECKED)
    assert f"1 of 12 training files cannot be used ({kind})" in message
    assert "b.wav' " + problem in message


@pytest.mark.parametrize(("write", "kind", "problem"), FAULTS)
def test_faulty_training_files_are_skipped_when_asked(
    tree, caplog, write, kind, problem
):
    write(tree / "wav" / "id1" / "s" / "b.wav")
    out = prepare(tree, bad_files="skip", **CHECKED)
    names = ids(out, "train", "dev")
    assert len(names) == 11 and "id1--s--b" not in names
    assert kind in caplog.text and problem in caplog.text


@pytest.mark.parametrize(
    ("write", "kind", "problem"),
    [fault for fault in FAULTS if fault[0] is not write_short],
)
def test_faulty_trial_files_always_stop(tree, write, kind, problem):
    write(tree / "wav" / "id9" / "s" / "b.wav")
    message = refused(tree, bad_files="skip", most_bad=1.0, **CHECKED)
    assert f"1 of 3 files of trials cannot be used ({kind})" in message
    assert problem in message


def test_faulty_files_of_trial_speakers_outside_the_trials_do_not_matter(tree):
    write_garbage(tree / "wav" / "id9" / "s" / "c.wav")
    assert len(ids(prepare(tree), "train", "dev")) == 12


def test_faults_are_counted_by_kind_and_three_are_named(tree):
    session = tree / "wav" / "id1" / "s"
    for name in "abc":
        write_stereo(session / f"{name}.wav")
    write_garbage(tree / "wav" / "id2" / "s" / "a.wav")
    message = refused(tree)
    assert "(3 several channels, 1 unreadable)" in message
    assert message.count("\n  - '") == 3 and "and 1 more" in message


def test_a_small_share_of_faulty_files_is_skipped(tree):
    write_garbage(tree / "wav" / "id1" / "s" / "b.wav")
    assert len(ids(prepare(tree, most_bad=1 / 12), "train", "dev")) == 11


def test_skipping_every_file_is_refused(tree):
    message = refused(
        tree, bad_files="skip", shortest_seconds=9.0, splits=["train"]
    )
    assert "12 of 12 training files cannot be used (12 too short)" in message


def test_silence_and_nan_pass_when_samples_are_not_read(tree):
    write_silence(tree / "wav" / "id1" / "s" / "a.wav")
    write_nan(tree / "wav" / "id1" / "s" / "b.wav")
    assert len(ids(prepare(tree), "train", "dev")) == 12


def test_nan_is_found_when_pieces_are_measured(tree):
    write_nan(tree / "wav" / "id1" / "s" / "b.wav")
    assert "not finite" in refused(tree, random_segment=False, seg_dur=0.1)


def test_samples_are_not_read_for_whole_files(tree, monkeypatch):
    def read(*args, **options):
        raise AssertionError("samples were read")

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    prepare(tree)
    prepare(tree, name="pieces", random_segment=False, seg_dur=0.1, amp_th=0)


def test_a_cut_flac_is_found_when_samples_are_checked(tree):
    path = add(
        tree, "id1/s/d.flac", np.random.default_rng(0).normal(0, 0.1, 9000)
    )
    path.write_bytes(path.read_bytes()[:9000])
    assert "d.flac' cannot be read" in refused(tree, check_samples=True)


def test_a_flac_that_does_not_tell_its_length_is_unreadable(tree):
    path = add(tree, "id1/s/d.flac")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # STREAMINFO: 36 bits of total samples
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert "d.flac' does not give its length" in refused(tree)


def test_several_processes_find_the_same(tree, monkeypatch):
    write_stereo(tree / "wav" / "id1" / "s" / "b.wav")
    options = {"bad_files": "skip", "random_segment": False, "seg_dur": 0.1}
    serial = prepare(tree, name="serial", **options)
    monkeypatch.setattr(scan, "SERIAL_FILES", 3)
    parallel = prepare(tree, name="parallel", workers=2, **options)
    for name in ("train.csv", "dev.csv", "test.csv"):
        assert (serial / name).read_bytes() == (parallel / name).read_bytes()


def test_trials_may_be_shorter_than_a_training_crop(tree):
    """0.3 s each: none is left to train on, all are there to test."""
    assert "12 too short" in refused(tree, shortest_seconds=0.4)
    whole = prepare(tree, name="whole", splits=["test"], shortest_seconds=0.4)
    assert ids(whole, "test")
    for name in ("id8/s/a.wav", "id9/s/a.wav"):  # one is in the trials
        add(tree, name, tone(800))
    told = refused(tree, splits=["test"], shortest_seconds=0.4)
    assert "2 too short" in told and "at least 0.1 s" in told
