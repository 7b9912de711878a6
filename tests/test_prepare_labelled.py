"""Emotion corpora and tables: labels, speakers and folds of made-up trees."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import SHARED_DATA

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.manifest import read_manifest
from speechbrain_ssl.prepare.cremad import prepare_cremad
from speechbrain_ssl.prepare.emodb import prepare_emodb
from speechbrain_ssl.prepare.iemocap import prepare_iemocap
from speechbrain_ssl.prepare.labelled import prepare_csv
from speechbrain_ssl.prepare.msp_podcast import prepare_msp_podcast

SECONDS = 0.1


def add(path, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(SECONDS * rate), 0.1), rate)
    return path


def prepared(prepare, folder, **options):
    """The manifest that a preparation writes beside its folder, by ID."""
    prepare(folder, folder / "out" / "manifest.csv", **options)
    rows = read_manifest(folder / "out" / "manifest.csv")
    assert (rows["stop"] == 1600).all() and (rows["start"] == 0).all()
    assert np.allclose(rows["duration"], SECONDS)
    assert rows["ID"].is_monotonic_increasing
    return rows.set_index("ID")


def test_emodb_reads_the_official_names(tmp_path):
    for name in ("03a01Fa", "03a01Wa", "16b10Lb", "12b02Td", "09a05E"):
        add(tmp_path / "wav" / f"{name}.wav")
    rows = prepared(prepare_emodb, tmp_path)
    columns = ["spk_id", "emotion", "fold", "sex", "text"]
    assert rows[columns].values.tolist() == [
        ["03", "happiness", "0", "m", "a01"],
        ["03", "anger", "0", "m", "a01"],
        ["09", "disgust", "1", "f", "a05"],
        ["12", "sadness", "3", "m", "b02"],
        ["16", "boredom", "4", "f", "b10"],
    ]


def test_emodb_refuses_names_of_other_corpora(tmp_path):
    for name in ("03a01Fa", "17a01Fa", "03a01Xa"):
        add(tmp_path / "wav" / f"{name}.wav")
    with pytest.raises(BadInputError, match="2 problems") as error:
        prepared(prepare_emodb, tmp_path)
    assert "17a01Fa.wav' is not named like '03a01Fa.wav'" in str(error.value)
    assert not (tmp_path / "out").exists()


EMODB = SHARED_DATA / "emodb"


@pytest.mark.skipif(not EMODB.is_dir(), reason="no real EmoDB beside us")
def test_real_emodb_has_the_labels_and_folds_of_its_table(tmp_path):
    prepare_emodb(EMODB, tmp_path / "emodb.csv")
    rows = read_manifest(tmp_path / "emodb.csv")
    table = pd.read_csv(EMODB / "labels.csv", dtype=str)
    table["wav"] = [str(EMODB / "wav" / path) for path in table["path"]]
    table["spk_id"] = table["speaker"].str.removeprefix("emo")
    columns = ["wav", "spk_id", "sex", "text", "emotion", "fold"]
    rows = rows.sort_values("wav", ignore_index=True)
    table = table.sort_values("wav", ignore_index=True)
    assert len(rows) == 535
    pd.testing.assert_frame_equal(rows[columns], table[columns])


@pytest.fixture
def cremad(tmp_path):
    """Ten actors, six emotions each."""
    for actor in range(1001, 1011):
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
            add(tmp_path / "AudioWAV" / f"{actor}_DFA_{emotion}_XX.wav")
    return tmp_path


def test_cremad_folds_share_no_actor_and_stay_the_same(cremad):
    rows = prepared(prepare_cremad, cremad)
    one = rows.loc["1003_DFA_FEA_XX"]
    assert (one["spk_id"], one["emotion"]) == ("1003", "fear")
    assert (one["text"], one["intensity"]) == ("DFA", "XX")
    assert rows["emotion"].nunique() == 6 and "sex" not in rows
    assert (rows.groupby("spk_id")["fold"].nunique() == 1).all()
    assert rows.groupby("fold")["spk_id"].nunique().tolist() == [2] * 5
    again = prepared(prepare_cremad, cremad)
    assert again["fold"].equals(rows["fold"])
    other = prepared(prepare_cremad, cremad, seed=5)
    assert not other["fold"].equals(rows["fold"])


def test_cremad_takes_the_sex_from_the_demographics(cremad):
    text = "ActorID,Age,Sex\n1001,51,Male\n1002,21,Female\n"
    (cremad / "VideoDemographics.csv").write_text(text)
    rows = prepared(prepare_cremad, cremad)
    assert rows.at["1001_DFA_ANG_XX", "sex"] == "male"
    assert rows.at["1002_DFA_ANG_XX", "sex"] == "female"
    assert rows.at["1003_DFA_ANG_XX", "sex"] == ""


def test_cremads_file_without_sound_is_left_out(cremad):
    add(cremad / "AudioWAV" / "1076_MTI_SAD_XX.wav")
    rows = prepared(prepare_cremad, cremad)
    assert len(rows) == 60 and "1076_MTI_SAD_XX" not in rows.index


def test_cremad_of_another_layout_is_refused(tmp_path):
    add(tmp_path / "1001_DFA_ANG_XX.wav")
    with pytest.raises(BadInputError, match="AudioWAV.*\n.*no .wav"):
        prepared(prepare_cremad, tmp_path)


IEMOCAP = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\t{0}_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
A-F1:\tval 3; act 2; dom  1;\t()

[10.0100 - 11.3925]\t{0}_M000\texc\t[2.5000, 2.5000, 2.5000]
[11.5 - 12.0]\t{0}_M001\txxx\t[2.5000, 2.5000, 2.5000]
[12.1 - 13.0]\t{0}_F001\tfru\t[2.5000, 2.5000, 2.5000]
[13.1 - 14.0]\t{0}_F002\thap\t[2.5000, 2.5000, 2.5000]
"""


@pytest.fixture
def iemocap(tmp_path):
    """Two sessions, an improvised and a scripted dialogue."""
    for number, dialogue in enumerate(["Ses01F_impro01", "Ses02M_script01_1b"]):
        session = tmp_path / f"Session{number + 1}"
        notes = session / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
        notes.parent.mkdir(parents=True)
        notes.write_text(IEMOCAP.format(dialogue))
        for turn in ("F000", "F001", "F002", "M000", "M001"):
            wavs = session / "sentences" / "wav" / dialogue
            add(wavs / f"{dialogue}_{turn}.wav")
        (notes.parent / "Attribute").mkdir()
    return tmp_path


def test_iemocap_merges_excited_and_folds_by_session(iemocap, caplog):
    rows = prepared(prepare_iemocap, iemocap)
    columns = ["spk_id", "emotion", "fold", "sex"]
    assert rows[columns].to_dict("index") == {
        f"{dialogue}_{turn}": dict(zip(columns, values))
        for dialogue, session in [
            ("Ses01F_impro01", "1"),
            ("Ses02M_script01_1b", "2"),
        ]
        for turn, values in {
            "F000": (f"Ses0{session}F", "neutral", session, "f"),
            "F002": (f"Ses0{session}F", "happiness", session, "f"),
            "M000": (f"Ses0{session}M", "happiness", session, "m"),
        }.items()
    }
    assert "6 utterances" in caplog.text and "5531" in caplog.text


def test_iemocap_without_its_recordings_is_refused(iemocap):
    wavs = iemocap / "Session2" / "sentences" / "wav" / "Ses02M_script01_1b"
    (wavs / "Ses02M_script01_1b_M000.wav").unlink()
    with pytest.raises(BadInputError, match="1 of 6 files of IEMOCAP"):
        prepared(prepare_iemocap, iemocap)
    with pytest.raises(BadInputError, match="no labelled file"):
        prepare_iemocap(iemocap / "Session1", iemocap / "x.csv")


MSP = """FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
MSP-PODCAST_0001_0008.wav,N,4.8,4.2,5.2,127,Male,Test1
MSP-PODCAST_0001_0019.wav,X,4.8,4.2,5.2,127,Male,Test1
MSP-PODCAST_0002_0033.wav,A,3.8,4.0,3.0,Unknown,Female,Train
MSP-PODCAST_0002_0039.wav,U,3.8,4.0,3.0,Unknown,Unknown,Train
MSP-PODCAST_0003_0001.wav,O,3.8,4.0,3.0,8,Female,Development
MSP-PODCAST_0003_0002.wav,H,3.8,4.0,3.0,8,Female,Development
MSP-PODCAST_0004_0002.wav,H,3.8,4.0,3.0,9,Female,Test2
"""


@pytest.mark.parametrize("name", ["consensus", "concensus"])
def test_msp_podcast_keeps_the_official_partitions(tmp_path, name):
    labels = tmp_path / "Labels" / f"labels_{name}.csv"
    labels.parent.mkdir()
    labels.write_text(MSP)
    for line in MSP.splitlines()[1:]:
        add(tmp_path / "Audios" / line.split(",")[0])
    rows = prepared(prepare_msp_podcast, tmp_path)
    columns = ["spk_id", "emotion", "fold", "sex"]
    assert rows[columns].T.to_dict("list") == {
        "MSP-PODCAST_0001_0008": ["127", "neutral", "test", "m"],
        "MSP-PODCAST_0002_0033": [
            "unknown MSP-PODCAST_0002",
            "anger",
            "train",
            "f",
        ],
        "MSP-PODCAST_0002_0039": [
            "unknown MSP-PODCAST_0002",
            "surprise",
            "train",
            "",
        ],
        "MSP-PODCAST_0003_0002": ["8", "happiness", "valid", "f"],
    }


def test_msp_podcast_without_labels_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="no Labels/labels_consensus.csv"):
        prepare_msp_podcast(tmp_path, tmp_path / "x.csv")


def write_csv(folder, speakers=6, **columns):
    table = [
        (
            add(folder / "a" / f"{s}{u}.wav").relative_to(folder),
            s,
            "en" * (s % 2),
        )
        for s in range(speakers)
        for u in range(2)
    ]
    frame = pd.DataFrame(table, columns=["wav", "spk_id", "language"])
    frame.assign(**columns).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def test_a_table_gets_folds_that_share_no_speaker(tmp_path):
    csv = write_csv(tmp_path)
    prepare_csv(csv, tmp_path / "m.csv", label="language")
    rows = read_manifest(tmp_path / "m.csv")
    assert len(rows) == 12 and rows["fold"].nunique() == 5
    assert (rows.groupby("spk_id")["fold"].nunique() == 1).all()
    assert rows["wav"].iat[0] == str(tmp_path / "a" / "00.wav")


def test_folds_and_names_of_a_table_are_kept(tmp_path):
    folds, names = list("aabbccaabbcc"), list("zyxwvutsrqpo")
    csv = write_csv(tmp_path, fold=folds, ID=names)
    prepare_csv(csv, tmp_path / "m.csv", label="language")
    rows = read_manifest(tmp_path / "m.csv").set_index("ID")
    assert rows.loc[names, "fold"].tolist() == folds


def test_a_table_without_the_label_or_speakers_is_refused(tmp_path):
    csv = write_csv(tmp_path, speakers=4)
    with pytest.raises(BadInputError, match="did you mean 'language'"):
        prepare_csv(csv, tmp_path / "m.csv", label="languge")
    with pytest.raises(BadInputError, match="4 speakers; 5 folds"):
        prepare_csv(csv, tmp_path / "m.csv", label="language")
    with pytest.raises(BadInputError, match="no such table"):
        prepare_csv(tmp_path / "no.csv", tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()
