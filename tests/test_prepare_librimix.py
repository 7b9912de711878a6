"""LibriMix sources: one row an utterance, speakers from the mixture's name."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.manifest import read_manifest
from speechbrain_ssl.prepare.librimix import prepare_librimix_sources

RATE = 8000
FIRST = "4446-2271-0000_1624-142933-0000"
SECOND = "61-70968-0001_4446-2271-0000"  # the first's source, as s2


def write_mixture(folder, name, samples=1600, sources=2, rate=RATE):
    """Sources of a mixture as LibriMix stores them; returns their columns."""
    columns = {"mix_wav": f"{folder}/mix_clean/{name}.wav"}
    for source in range(1, sources + 1):
        path = folder / f"s{source}" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(samples, 0.1), rate)
        columns[f"s{source}_wav"] = str(path)
    return columns


def write_table(path, mixtures, ids=None):
    """A table with the columns of SpeechBrain's LibriMix preparation."""
    rows = pd.DataFrame(mixtures)
    rows.insert(0, "ID", range(len(rows)) if ids is None else ids)
    rows.insert(1, "duration", 1.0)
    rows["s1_wav_format"] = "wav"
    rows["noise_wav"] = "noise.wav"
    rows.to_csv(path, index=False)
    return path


def sources_of(tmp_path, table, **options):
    prepare_librimix_sources(table, tmp_path / "sources.csv", **options)
    return read_manifest(tmp_path / "sources.csv")


@pytest.mark.parametrize("ids", [None, [FIRST]])
def test_speaker_and_session_come_from_the_name_of_the_mixture(tmp_path, ids):
    mixture = write_mixture(tmp_path, FIRST)
    table = write_table(tmp_path / "train.csv", [mixture], ids)
    rows = sources_of(tmp_path, table).set_index("spk_id")
    assert len(rows) == 2
    assert rows.at["4446", "ID"] == "4446-2271-0000"
    assert rows.at["4446", "wav"] == mixture["s1_wav"]
    assert rows.at["4446", "session"] == "4446-2271"
    assert rows.at["1624", "wav"] == mixture["s2_wav"]
    assert rows.at["1624", "session"] == "1624-142933"
    assert rows["stop"].tolist() == [1600, 1600]
    assert rows["duration"].tolist() == [0.2, 0.2]


def test_an_utterance_of_several_mixtures_is_taken_from_its_longest_file(
    tmp_path,
):
    mixtures = [
        write_mixture(tmp_path, FIRST, samples=1600),
        write_mixture(tmp_path, SECOND, samples=2400),
    ]
    rows = sources_of(tmp_path, write_table(tmp_path / "t.csv", mixtures))
    assert rows["ID"].tolist() == [
        "1624-142933-0000",
        "4446-2271-0000",
        "61-70968-0001",
    ]
    assert rows.set_index("ID").at["4446-2271-0000", "stop"] == 2400


def test_several_tables_are_one_set_of_sources(tmp_path):
    mixtures = [write_mixture(tmp_path, name) for name in (FIRST, SECOND)]
    clean = write_table(tmp_path / "clean.csv", mixtures[:1])
    both = write_table(tmp_path / "both.csv", mixtures)
    assert len(sources_of(tmp_path, [clean, both])) == 3


def test_three_sources_are_read_by_number(tmp_path):
    name = f"{FIRST}_7-8-0009"
    mixture = write_mixture(tmp_path, name, sources=3)
    reordered = dict(sorted(mixture.items(), reverse=True))
    rows = sources_of(tmp_path, write_table(tmp_path / "t.csv", [reordered]))
    found = dict(zip(rows["spk_id"], rows["wav"]))
    assert found == {
        "4446": mixture["s1_wav"],
        "1624": mixture["s2_wav"],
        "7": mixture["s3_wav"],
    }


@pytest.mark.parametrize(
    "name", ["mix_12", "4446-2271-0000", f"{FIRST}_7-8-0009", "a-b-c_d-e-f"]
)
def test_other_names_are_refused_with_the_expected_form(tmp_path, name):
    table = write_table(tmp_path / "t.csv", [write_mixture(tmp_path, name)])
    with pytest.raises(BadInputError) as error:
        sources_of(tmp_path, table)
    assert "t.csv" in str(error.value) and "line 2" in str(error.value)
    assert "SPEAKER-CHAPTER-NUMBER" in str(error.value)
    assert not (tmp_path / "sources.csv").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "there is no such table"),
        ("", "it is not a CSV table"),
        ("ID,wav\n1,a.wav\n", "columns ID, wav"),
        ("ID,s1_wav,s2_wav\n", "it has 0 rows"),
        ("s1_wav,s2_wav\na,b\n", "columns s1_wav, s2_wav"),
    ],
)
def test_other_tables_are_refused(tmp_path, content, expected):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInputError, match=expected):
        sources_of(tmp_path, path)


def test_missing_and_faulty_sources_are_refused(tmp_path):
    mixture = write_mixture(tmp_path, FIRST)
    (tmp_path / "s1" / f"{FIRST}.wav").unlink()
    table = write_table(tmp_path / "t.csv", [mixture])
    with pytest.raises(BadInputError, match="1 of 2 sources cannot be used"):
        sources_of(tmp_path, table)


def test_another_sample_rate_is_refused_with_both(tmp_path):
    mixture = write_mixture(tmp_path, FIRST, rate=16000)
    table = write_table(tmp_path / "t.csv", [mixture])
    with pytest.raises(BadInputError, match="16000 Hz; 8000 Hz is expected"):
        sources_of(tmp_path, table)
    assert len(sources_of(tmp_path, table, sample_rate=16000)) == 2
