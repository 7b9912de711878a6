"""VoxCeleb preparation: the same rows as SpeechBrain's script, and refusals."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.manifest import COLUMNS, read_manifest
from speechbrain_ssl.prepare import scan, voxceleb
from speechbrain_ssl.prepare.voxceleb import (
    prepare_voxceleb,
    voxceleb_preparation,
)

EXPECTED = Path(__file__).parents[2] / "shared" / "data" / "voxceleb_prepare"
RATE = 16000
TRIALS = "1 id9/s/a.wav id9/s/b.wav\n0 id9/s/a.wav id8/s/a.wav\n"


def tone(samples, amplitude=0.2):
    return amplitude * np.sin(2 * np.pi * 200 * np.arange(samples) / RATE)


def add(root, name, wave=None, rate=RATE, **options):
    path = Path(root, "wav", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = tone(4800) if wave is None else wave
    soundfile.write(path, wave, rate, **options)
    return path


@pytest.fixture
def tree(tmp_path):
    """Four training speakers of three files, two test speakers, 0.3 s each."""
    root = tmp_path / "data"
    for speaker in ("id1", "id2", "id3", "id4", "id9"):
        for name in "abc":
            add(root, f"{speaker}/s/{name}.wav")
    add(root, "id8/s/a.wav")
    (tmp_path / "veri.txt").write_text(TRIALS)
    return root


def prepare(root, name="out", **changes):
    """Prepare `root` by files beside it; returns the folder of manifests."""
    out = Path(root).parent / name
    options = {
        "data_folder": str(root),
        "save_folder": str(out),
        "verification_pairs_file": Path(root).parent / "veri.txt",
        "random_segment": True,
    }
    prepare_voxceleb(**{**options, **changes})
    return out


def ids(out, *names):
    return [
        i for name in names for i in read_manifest(out / f"{name}.csv")["ID"]
    ]


def refused(root, **changes):
    """Message of a refusal that leaves nothing behind."""
    with pytest.raises(BadInputError) as error:
        prepare(root, **changes)
    out = root.parent / "out"
    assert not out.is_dir() or not list(out.iterdir())
    return str(error.value)


# ------------------------------------------------------- SpeechBrain's rows


@pytest.fixture(scope="module")
def reference_tree(tmp_path_factory):
    if not EXPECTED.is_dir():
        pytest.skip(f"the reference rows are not at {EXPECTED}")
    root = tmp_path_factory.mktemp("reference")
    files = pd.read_csv(EXPECTED / "tree.csv")
    assert len(files) == 72
    for path, samples, amplitude, loud in files.itertuples(index=False):
        wave = tone(samples, amplitude)
        wave[loud:] = 0
        add(root, path, wave, subtype="PCM_16")
    return root


def rows_below_wav(out, root, *names):
    """Rows of manifests as text, `wav` relative to wav/, sorted by ID."""
    rows = [pd.read_csv(out / f"{name}.csv", dtype=str) for name in names]
    rows = pd.concat(rows)
    rows["wav"] = [
        Path(path).relative_to(root / "wav").as_posix() for path in rows["wav"]
    ]
    return rows.sort_values("ID").values.tolist()


@pytest.mark.parametrize("mode", ["pieces", "files"])
@pytest.mark.parametrize("split_speaker", [False, True])
def test_rows_are_those_of_speechbrain(
    reference_tree, tmp_path, mode, split_speaker
):
    prepare_voxceleb(
        str(reference_tree),
        str(tmp_path),
        str(EXPECTED / "veri_test.txt"),
        split_speaker=split_speaker,
        random_segment=mode == "files",
    )
    sets = {"enrol": ["enrol"], "test": ["test"], mode: ["train", "dev"]}
    for name, parts in sets.items():
        expected = pd.read_csv(EXPECTED / f"expected_{name}.csv", dtype=str)
        assert list(expected.columns) == list(COLUMNS)
        rows = rows_below_wav(tmp_path, reference_tree, *parts)
        assert rows == expected.sort_values("ID").values.tolist()


def test_pieces_below_the_amplitude_are_dropped(tree):
    wave = np.concatenate([tone(2000), tone(2000, 1e-4), tone(2000)])
    add(tree, "id1/s/a.wav", wave)
    out = prepare(tree, random_segment=False, seg_dur=0.125)
    rows = pd.concat(read_manifest(out / f"{n}.csv") for n in ("train", "dev"))
    rows = rows[rows["wav"].str.endswith(os.path.join("id1", "s", "a.wav"))]
    rows = rows.sort_values("start")
    assert rows["ID"].tolist() == [
        "id1--s--a_0.0_0.125",
        "id1--s--a_0.25_0.375",
    ]
    assert rows["start"].tolist() == [0, 4000]
    assert rows["stop"].tolist() == [2000, 6000]


def test_all_pieces_are_kept_without_a_threshold(tree):
    add(tree, "id1/s/a.wav", np.zeros(4800))
    out = prepare(tree, random_segment=False, seg_dur=0.1, amp_th=0)
    assert len(ids(out, "train", "dev")) == 12 * 2  # int(0.3 / 0.1) is 2


def test_files_shorter_than_a_piece_have_no_row(tree):
    add(tree, "id1/s/long.wav", tone(16000))
    add(tree, "id2/s/long.wav", tone(16000))
    out = prepare(tree, random_segment=False, seg_dur=0.5)
    assert len(ids(out, "train", "dev")) == 4


# ------------------------------------------------------ division and speakers


def test_trial_speakers_of_both_columns_are_not_in_training(tree):
    out = prepare(tree)
    names = ids(out, "train", "dev")
    assert len(names) == 12
    assert {name.split("--")[0] for name in names} == {
        "id1",
        "id2",
        "id3",
        "id4",
    }
    assert ids(out, "enrol") == ["id9/s/a"]
    assert ids(out, "test") == ["id8/s/a", "id9/s/b"]


def test_trial_speakers_are_excluded_when_test_is_not_asked_for(tree):
    out = prepare(tree, splits=["train", "dev"])
    assert len(ids(out, "train", "dev")) == 12
    assert sorted(os.listdir(out)) == ["dev.csv", "prepare.json", "train.csv"]


def test_unknown_trial_names_matter_only_when_test_is_asked_for(tree):
    (tree.parent / "veri.txt").write_text(
        TRIALS + "1 id9/s/x.wav id9/s/a.wav\n"
    )
    prepare(tree, name="train_only", splits=["train", "dev"])
    assert "'id9/s/x.wav'" in refused(tree)


@pytest.mark.parametrize("split_speaker", [False, True])
def test_train_and_dev_share_no_file_or_no_speaker(tree, split_speaker):
    out = prepare(tree, split_ratio=[75, 25], split_speaker=split_speaker)
    train, dev = (read_manifest(out / f"{n}.csv") for n in ("train", "dev"))
    assert len(train) == 9 and len(dev) == 3
    assert not set(train["wav"]) & set(dev["wav"])
    assert dev["spk_id"].nunique() == 1 or not split_speaker
    assert bool(set(train["spk_id"]) & set(dev["spk_id"])) is not split_speaker


def test_dev_has_a_row_however_small_its_share(tree):
    out = prepare(tree, split_ratio=[999, 1])
    assert len(ids(out, "dev")) == 1


def test_train_does_not_depend_on_the_other_splits(tree):
    both = prepare(tree, name="both", splits=["train", "dev"])
    alone = prepare(tree, name="alone", splits=["train"])
    assert ids(alone, "train") == ids(both, "train")


def test_division_depends_on_the_seed_and_not_on_the_order_of_creation(
    tmp_path,
):
    names = [f"id{speaker}/s/{i}.wav" for speaker in (1, 2) for i in range(9)]
    rows = []
    for folder, order in (("one", names), ("two", names[::-1])):
        for name in order:
            add(tmp_path / folder / "data", name)
        out = prepare(
            tmp_path / folder / "data",
            verification_pairs_file=None,
            splits=["train", "dev"],
        )
        rows.append((ids(out, "train"), ids(out, "dev")))
    assert rows[0] == rows[1]
    np.random.seed(0)
    again = prepare(
        tmp_path / "one" / "data",
        name="seeded",
        verification_pairs_file=None,
        splits=["train", "dev"],
        seed=7,
    )
    assert ids(again, "dev") != rows[0][1]


def test_listing_order_of_the_file_system_does_not_matter(tree, monkeypatch):
    first = prepare(tree, name="first")
    scandir = os.scandir

    class Reversed:
        def __init__(self, folder):
            with scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
            self.entries = ordered[::-1]

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    second = prepare(tree, name="second")
    for name in ("train.csv", "dev.csv", "enrol.csv", "test.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_one_speaker_cannot_be_divided_by_speaker(tmp_path):
    add(tmp_path / "data", "id1/s/a.wav")
    add(tmp_path / "data", "id1/s/b.wav")
    message = refused(
        tmp_path / "data",
        verification_pairs_file=None,
        splits=["train", "dev"],
        split_speaker=True,
    )
    assert "1 speaker is left for train and dev" in message


def test_training_without_a_speaker_left_is_refused(tree):
    lines = [f"1 id{i}/s/a.wav id{i}/s/b.wav\n" for i in (1, 2, 3, 4)]
    (tree.parent / "veri.txt").write_text("".join(lines) + TRIALS)
    assert "belong to speakers of the trial list" in refused(tree)


def test_training_without_a_piece_left_is_refused(tree):
    message = refused(tree, random_segment=False, seg_dur=3.0)
    assert "none of 12 files has a piece of 3.0 s" in message


# -------------------------------------------------------------- layout, names


def test_flac_files_match_trials_that_say_wav(tmp_path):
    for name in ("id9/s/a", "id9/s/b", "id8/s/a", "id1/s/a", "id1/s/b"):
        add(tmp_path / "data", f"{name}.FLAC", format="FLAC")
    (tmp_path / "veri.txt").write_text(TRIALS)
    out = prepare(tmp_path / "data")
    assert ids(out, "test") == ["id8/s/a", "id9/s/b"]
    rows = read_manifest(out / "test.csv")
    assert rows["wav"].str.endswith(".FLAC").all()
    assert rows["stop"].tolist() == [4800, 4800]


def test_trial_names_are_matched_exactly_before_without_suffix(tree):
    add(tree, "id9/s/a.wav.wav", tone(3200))
    rows = read_manifest(prepare(tree) / "enrol.csv")
    assert rows["ID"].tolist() == ["id9/s/a"]
    assert rows["stop"].tolist() == [4800]


def test_trial_names_may_have_backslashes_or_no_suffix(tree):
    lines = "1 id9\\s\\a.wav id9\\s\\b.wav\n0 id9/s/a id8/s/a\n"
    (tree.parent / "veri.txt").write_text(lines)
    assert ids(prepare(tree), "enrol") == ["id9/s/a"]


@pytest.mark.parametrize("form", ["list", "commas"])
def test_several_roots_are_one_corpus(tree, tmp_path, form):
    add(tmp_path / "more", "id5/s/a.wav")
    roots = [tree, tmp_path / "more"]
    out = prepare(
        tree,
        data_folder=roots if form == "list" else ", ".join(map(str, roots)),
    )
    assert len(ids(out, "train", "dev")) == 13
    assert len(ids(out, "test")) == 2


def test_folders_named_wav_above_the_root_do_not_matter(tmp_path):
    root = tmp_path / "wav" / "data"
    add(root, "id1/s/a.wav")
    add(root, "id1/s/b.wav")
    out = prepare(root, verification_pairs_file=None, splits=["train", "dev"])
    assert sorted(ids(out, "train", "dev")) == ["id1--s--a", "id1--s--b"]


def test_hidden_files_are_passed_over(tree):
    (tree / "wav" / "id1" / "s" / "._a.wav").write_bytes(b"AppleDouble")
    (tree / "wav" / ".DS_Store").write_bytes(b"")
    assert len(ids(prepare(tree), "train", "dev")) == 12


def test_audio_at_another_depth_is_warned_about(tree, caplog):
    add(tree, "id1/stray.wav")
    assert len(ids(prepare(tree), "train", "dev")) == 12
    assert "stray.wav" in caplog.text


def test_links_to_folders_are_followed(tree, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    try:
        (linked / "wav").symlink_to(tree / "wav")
    except OSError as error:
        pytest.skip(f"no links here ({error})")
    (tree / "wav" / "id1" / "circle").symlink_to(tree / "wav")
    out = prepare(tree, data_folder=linked)
    assert len(ids(out, "train", "dev")) == 12


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([], "is not a folder that exists"),
        (["data/audio/x.wav"], "has no folder 'wav'; it holds: audio"),
        (["data/wav/id1/a.wav"], "1 files, 1 of them .wav or .flac, e.g."),
        (["data/wav/id1/s/a.m4a"], "1 files, 0 of them .wav or .flac, e.g."),
        (["data/wav/a/b/c/d.wav"], "has no audio at wav/SPEAKER/SESSION/"),
    ],
)
def test_other_layouts_are_refused_with_what_was_found(
    tmp_path, made, expected
):
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "veri.txt").write_text(TRIALS)
    message = refused(tmp_path / "data")
    assert expected in message
    assert "DATA_FOLDER/wav/SPEAKER/SESSION/UTTERANCE.wav" in message


def test_the_wav_folder_itself_is_refused(tree):
    message = refused(tree, data_folder=tree / "wav")
    assert "give the one above it" in message


def test_an_utterance_in_two_files_is_refused(tree):
    add(tree, "id1/s/a.flac")
    assert "a.flac' and '" in refused(tree)


def test_a_folder_that_may_not_be_read_is_refused(tree):
    locked = tree / "wav" / "id1"
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user may read every folder")
    try:
        assert "may not be read" in refused(tree)
    finally:
        locked.chmod(0o755)


def test_unknown_trial_names_are_counted_in_one_error(tree):
    lines = [f"1 id9/s/a.wav id7/s/{i}.wav\n" for i in range(5)]
    (tree.parent / "veri.txt").write_text("".join(lines) + TRIALS)
    message = refused(tree)
    assert "5 problems" in message and "and 2 more" in message
    assert "there is no 'id7/s/0.wav' below wav" in message


def test_malformed_trials_are_refused_with_file_and_line(tree):
    (tree.parent / "veri.txt").write_text(TRIALS + "id9/s/a.wav id9/s/b.wav\n")
    message = refused(tree)
    assert "veri.txt" in message and "line 3" in message


# --------------------------------------------------------------- faulty files


def write_nothing(path):
    path.write_bytes(b"")


def write_garbage(path):
    path.write_bytes(b"RIFF and no more" * 9)


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


@pytest.mark.parametrize(("write", "kind", "problem"), FAULTS)
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
