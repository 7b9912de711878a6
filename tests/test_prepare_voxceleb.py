"""Rows, division and layout of the VoxCeleb preparation."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trees import EXPECTED, TRIALS, add, ids, prepare, refused, tone

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.manifest import COLUMNS, read_manifest
from speechbrain_ssl.prepare.voxceleb import (
    prepare_voxceleb,
)

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


def test_audio_at_another_depth_or_of_another_format_is_warned_about(
    tree, caplog
):
    add(tree, "id1/stray.wav")
    (tree / "wav" / "id1" / "s" / "x.M4A").parent.mkdir(exist_ok=True)
    (tree / "wav" / "id1" / "s" / "x.M4A").write_bytes(b"")
    assert len(ids(prepare(tree), "train", "dev")) == 12
    assert "stray.wav" in caplog.text and "x.M4A" in caplog.text


def test_trial_names_with_folders_above_the_speaker_are_refused(tree):
    names = [line.split() for line in TRIALS.splitlines()]
    lines = [f"{label} wav/{one} wav/{two}" for label, one, two in names]
    (tree.parent / "veri.txt").write_text("\n".join(lines))
    with pytest.raises(BadInputError, match="does not begin with the speaker"):
        prepare(tree, splits=["train", "dev"])


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
