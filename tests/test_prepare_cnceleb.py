"""CN-Celeb: layout, lists, counts, joining, models and reruns."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from cnceleb_tree import EVALUATION, prepare, refused, rows_of, write_cnceleb
from trees import RATE, tone

from speechbrain_ssl.dataio.manifest import COLUMNS
from speechbrain_ssl.dataio.trials import read_trials, resolve_trials
from speechbrain_ssl.prepare import cnceleb
from speechbrain_ssl.prepare.joining import groups_to_join

FILES = ["dev.csv", "enrol.csv", "models.csv", "prepare.json", "test.csv"]
FILES += ["train.csv", "trials.txt"]


def times(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in paths}


# ------------------------------------------------------------------- manifests


@pytest.mark.parametrize("suffix", [".flac", ".wav", ".FLAC"])
def test_flac_and_wav_give_the_same_rows(suffix, cnceleb_corpus, tmp_path):
    out = prepare(cnceleb_corpus)
    shutil.rmtree(tmp_path / "CN-Celeb_flac")
    shutil.rmtree(tmp_path / "CN-Celeb2_flac")
    again = prepare(write_cnceleb(tmp_path, suffix), name="again")
    assert sorted(os.listdir(again)) == FILES
    for name in ("train", "dev", "enrol", "test"):
        ours, theirs = (rows_of(folder, name) for folder in (out, again))
        assert theirs["wav"].str.endswith(suffix).all()
        columns = [name for name in ours if name != "wav"]
        pd.testing.assert_frame_equal(ours[columns], theirs[columns])
    for name in ("models.csv", "trials.txt"):
        assert (out / name).read_bytes() == (again / name).read_bytes()


def test_training_speakers_are_those_of_both_lists(cnceleb_corpus):
    out = prepare(cnceleb_corpus)
    train, dev = rows_of(out, "train"), rows_of(out, "dev")
    assert list(train.columns) == [*COLUMNS, "genre", "session"]
    ids = [f"id{n:05d}" for n in (*range(4), *range(10000, 10004))]
    assert sorted({*train["spk_id"], *dev["spk_id"]}) == ids
    assert train["spk_id"].nunique() == 6 and dev["spk_id"].nunique() == 2
    assert not set(train["spk_id"]) & set(dev["spk_id"])
    rows = pd.concat([train, dev]).set_index("ID")
    row = rows.loc["id10003/live_broadcast-02-001"]
    assert row["genre"] == "live_broadcast" and row["spk_id"] == "id10003"
    assert row["session"] == "id10003/live_broadcast-02"
    assert (row["start"], row["stop"], row["duration"]) == (0, 6400, 0.4)
    assert len(rows) == 8 * 2 * 4


def test_all_speakers_stay_in_train_when_dev_has_other_files(cnceleb_corpus):
    out = prepare(cnceleb_corpus, split_speaker=False, split_ratio=(90, 10))
    train, dev = rows_of(out, "train"), rows_of(out, "dev")
    assert train["spk_id"].nunique() == 8
    assert len(dev) == 6 and not set(train["wav"]) & set(dev["wav"])


def test_rows_name_files_that_hold_them(cnceleb_corpus):
    rows = rows_of(prepare(cnceleb_corpus), "train", "dev", "enrol", "test")
    for row in rows.itertuples():
        assert soundfile.info(row.wav).frames == row.stop


def test_cnceleb1_alone_is_enough(cnceleb_corpus, cnceleb1, caplog):
    rows = rows_of(prepare(str(cnceleb1)), "train", "dev")
    assert rows["spk_id"].nunique() == 4
    assert "give the folder of CN-Celeb2 as well for all 8" in caplog.text


# ------------------------------------------------------------------ evaluation


def test_a_model_is_its_official_file_by_default(cnceleb_corpus, cnceleb1):
    out = prepare(cnceleb_corpus)
    enrol = rows_of(out, "enrol").set_index("ID")
    assert list(enrol.index) == ["id00800-enroll", "id00801-enroll"]
    row = enrol.loc["id00801-enroll"]
    assert row["wav"] == str(cnceleb1 / "eval/enroll/id00801-enroll.flac")
    assert row["spk_id"] == "id00801" and row["stop"] == 12800
    assert row["genre"] == "enrolment"
    models = pd.read_csv(out / "models.csv")
    assert list(models) == ["model", "ID"]
    assert models["ID"].tolist() == models["model"].tolist()


def test_trials_find_their_rows(cnceleb_corpus, cnceleb1):
    out = prepare(cnceleb_corpus)
    trials = read_trials(out / "trials.txt")
    lines = (cnceleb1 / "eval/lists/trials.lst").read_text().split()
    assert trials["target"].tolist() == [int(word) for word in lines[2::3]]
    assert trials["enrol"].tolist() == lines[::3]
    rows = rows_of(out, "enrol", "test").reset_index(drop=True)
    enrol, test = resolve_trials(trials, rows["ID"], "rows")
    same = rows["spk_id"].to_numpy()[enrol] == rows["spk_id"].to_numpy()[test]
    assert same.astype(int).tolist() == trials["target"].tolist()
    genres = rows["genre"].to_numpy()[test]
    assert [name.split("-")[1] for name in trials["test"]] == genres.tolist()


def test_a_model_can_have_several_cuts(cnceleb_corpus, cnceleb1):
    out = prepare(cnceleb_corpus, enrolment="cuts")
    models = pd.read_csv(out / "models.csv")
    expected = [
        (f"{speaker}-enroll", f"{speaker}/{genre}-01-001")
        for speaker in ("id00800", "id00801")
        for genre in ("live_broadcast", "singing")
    ]
    assert list(models.itertuples(index=False, name=None)) == expected
    enrol = rows_of(out, "enrol")
    assert enrol["ID"].tolist() == [name for _, name in expected]
    assert enrol["genre"].tolist() == ["live_broadcast", "singing"] * 2
    assert enrol["wav"][0] == str(
        cnceleb1 / "data/id00800/live_broadcast-01-001.flac"
    )


def test_a_map_may_name_speakers_rather_than_models(cnceleb_corpus, cnceleb1):
    path = cnceleb1 / "eval/lists/enroll.map"
    path.write_text(path.read_text().replace("-enroll", ""))
    assert len(rows_of(prepare(cnceleb_corpus, enrolment="cuts"), "enrol")) == 4


# ---------------------------------------------------------------------- counts


def test_published_counts_agree_with_each_other():
    counts = cnceleb.EVALUATION
    pairs = counts["models"] * counts["test utterances"]
    assert pairs == counts["trials"] == 3484292
    assert sum(cnceleb.SPEAKERS.values()) == 2793


def test_other_counts_are_refused_with_both_numbers(tmp_path):
    message = refused(write_cnceleb(tmp_path))
    assert "6 problems" in message
    assert "there are 4 speakers of dev/dev.lst; 797 are published" in message
    assert "there are 4 speakers of spk.lst; 1996 are published" in message
    assert "full_corpus=False" in message


@pytest.mark.parametrize(
    ("name", "published", "expected"),
    [
        ("models", 196, "there are 2 models of eval/lists/trials.lst; 196"),
        ("test utterances", 17777, "there are 4 test utterances of"),
        ("trials", 3484292, "there are 7 trials of"),
        ("target trials", 17755, "there are 4 target trials of"),
    ],
)
def test_each_number_of_the_trial_list_is_checked(
    name, published, expected, cnceleb_corpus, monkeypatch
):
    counts = {**EVALUATION, name: published}
    monkeypatch.setattr(cnceleb, "EVALUATION", counts)
    message = refused(cnceleb_corpus)
    assert expected in message and f"{published} are published" in message
    assert "1 problem:" in message


def test_another_list_is_gone_on_with_when_asked_for(tmp_path, caplog):
    out = prepare(write_cnceleb(tmp_path), full_corpus=False)
    assert len(read_trials(out / "trials.txt")) == 7
    assert "This is not all of CN-Celeb: 6 problems" in caplog.text


# --------------------------------------------------------------------- joining


def test_groups_are_long_enough_and_keep_the_order():
    draw = np.random.default_rng(0)
    for _ in range(200):
        lengths = draw.integers(1, 12, size=draw.integers(1, 9)).tolist()
        groups = groups_to_join(lengths, 8)
        assert sorted(sum(groups, [])) == list(range(len(lengths)))
        totals = [sum(lengths[i] for i in group) for group in groups]
        assert min(totals) >= min(8, sum(lengths))
        for group in groups[:-1]:
            assert len(group) == 1 or group == sorted(group)
            assert len(group) == 1 or max(lengths[i] for i in group) < 8
    assert groups_to_join([3, 4], 0) == [[0], [1]]


def test_short_recordings_of_a_speaker_and_genre_are_joined(
    cnceleb_corpus, cnceleb1
):
    loud = cnceleb1 / "data/id00002/singing-01-002.flac"
    soundfile.write(loud, tone(6400, 0.99), RATE)
    rows = rows_of(prepare(cnceleb_corpus, join_seconds=0.7), "train", "dev")
    assert len(rows) == 8 * 2 * 2 and (rows["duration"] == 0.8).all()
    rows = rows.set_index("ID")
    row = rows.loc["id00002/singing-01-001+1"]
    assert row["genre"] == "singing" and row["session"] == "id00002/singing-01"
    parts = [
        soundfile.read(cnceleb1 / f"data/id00002/singing-{video}.flac")[0]
        for video in ("01-001", "01-002")
    ]
    wave, rate = soundfile.read(row["wav"])
    assert rate == RATE
    np.testing.assert_array_equal(wave, np.concatenate(parts))


def test_what_is_left_joins_the_last_file_of_the_genre(cnceleb_corpus):
    rows = rows_of(prepare(cnceleb_corpus, join_seconds=1.0), "train", "dev")
    assert len(rows) == 16
    assert rows["ID"].str.endswith("-01-001+3").all()
    assert (rows["stop"] == 4 * 6400).all()


def test_rows_too_short_even_joined_are_left_out(
    cnceleb_corpus, cnceleb1, caplog
):
    for path in (cnceleb1 / "data/id00001").glob("singing*"):
        soundfile.write(path, tone(1600), RATE)
    options = {"join_seconds": 0.8, "shortest_seconds": 0.8}
    rows = rows_of(prepare(cnceleb_corpus, **options), "train", "dev")
    assert rows["duration"].min() == 0.8
    assert set(rows[rows["spk_id"] == "id00001"]["genre"]) == {"live_broadcast"}
    for path in (cnceleb1 / "data/id00001").glob("live*"):
        soundfile.write(path, tone(1600), RATE)
    rows = rows_of(prepare(cnceleb_corpus, **options), "train", "dev")
    assert rows["spk_id"].nunique() == 7
    assert "1 of 8 speakers have no training row left" in caplog.text


def test_joined_files_are_written_once_and_shared(cnceleb_corpus, tmp_path):
    options = {"join_seconds": 0.7, "joined_folder": tmp_path / "joined"}
    prepare(cnceleb_corpus, **options)
    before = times(tmp_path / "joined")
    assert len(before) == 32
    gone = next(iter(before))
    gone.unlink()
    rows = rows_of(
        prepare(cnceleb_corpus, name="again", **options), "train", "dev"
    )
    after = times(tmp_path / "joined")
    assert set(after) == set(before) == set(map(Path, rows["wav"]))
    assert {path for path in after if after[path] != before[path]} == {gone}


def test_an_interrupted_join_goes_on_where_it_stopped(
    cnceleb_corpus, tmp_path, monkeypatch
):
    write, count = soundfile.write, []

    def fail(path, *arguments, **options):
        count.append(path)
        write(path, *arguments, **options)
        if len(count) == 5:
            raise OSError("no space left on device")

    monkeypatch.setattr(soundfile, "write", fail)
    with pytest.raises(OSError, match="no space"):
        prepare(cnceleb_corpus, join_seconds=0.7)
    assert len(times(tmp_path / "out")) == 4  # complete ones only
    prepare(cnceleb_corpus, join_seconds=0.7)
    assert len(count) == 5 + 28


def test_changed_recordings_are_joined_again(cnceleb_corpus, cnceleb1):
    rows = rows_of(prepare(cnceleb_corpus, join_seconds=0.7), "train", "dev")
    path = cnceleb1 / "data/id00002/singing-01-002.flac"
    soundfile.write(path, tone(6400, 0.1), RATE)
    again = rows_of(prepare(cnceleb_corpus, join_seconds=0.7), "train", "dev")
    changed = again[~again["wav"].isin(rows["wav"])]
    assert changed["ID"].tolist() == ["id00002/singing-01-001+1"]
    wave, _ = soundfile.read(changed["wav"].iloc[0])
    np.testing.assert_allclose(wave[6400:], tone(6400, 0.1), atol=1e-4)


# ---------------------------------------------------------------------- reruns


def test_an_unchanged_preparation_is_not_repeated(
    cnceleb_corpus, cnceleb1, monkeypatch
):
    out = prepare(cnceleb_corpus, join_seconds=0.7)
    before = times(out)
    monkeypatch.setattr(cnceleb, "training_rows", None)
    prepare(cnceleb_corpus, join_seconds=0.7, workers=1)
    assert times(out) == before and len(before) == 32 + len(FILES)


def add_recording(cnceleb1):
    soundfile.write(
        cnceleb1 / "data/id00001/vlog-01-001.flac", tone(6400), RATE
    )


def touch_test(cnceleb1):
    os.utime(cnceleb1 / "eval/test/id00800-singing-02-001.flac", (1, 1))


def change_list(cnceleb1):
    with open(cnceleb1 / "eval/lists/enroll.lst", "a") as file:
        file.write("\n")


def remove_manifest(cnceleb1):
    (cnceleb1.parent / "out" / "models.csv").unlink()


def remove_joined(cnceleb1):
    next((cnceleb1.parent / "out" / "joined").rglob("*.flac")).unlink()


@pytest.mark.parametrize(
    "change",
    [add_recording, touch_test, change_list, remove_manifest, remove_joined],
)
def test_changed_inputs_are_prepared_again(change, cnceleb_corpus, cnceleb1):
    out = prepare(cnceleb_corpus, join_seconds=0.7)
    before = times(out)
    change(cnceleb1)
    prepare(cnceleb_corpus, join_seconds=0.7)
    after = times(out)
    assert after[out / "prepare.json"] != before[out / "prepare.json"]
    assert set(before) <= set(after)
