"""Trial lists read, written, resolved to rows and made from manifests."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio import trials as module
from speechbrain_ssl.dataio.trials import (
    read_trials,
    resolve_trials,
    write_trials,
)
from speechbrain_ssl.dataio.validation import make_trials


def written(folder, text):
    path = folder / "veri.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def listed(*trials):
    return pd.DataFrame(trials, columns=["target", "enrol", "test"])


def manifest(files):
    """Rows with an ID for each `speaker/session/file`, 1 s at 16 kHz."""
    names = [name.rpartition(".")[0] or name for name in files]
    return pd.DataFrame(
        {
            "ID": names,
            "duration": 1.0,
            "wav": [f"/data/{name}" for name in files],
            "start": 0,
            "stop": 16000,
            "spk_id": [name.split("/")[0] for name in files],
        }
    )


def corpus(**speakers):
    """`corpus(a=[2, 1])`: speaker a with sessions of two and of one file."""
    return manifest(
        [
            f"{speaker}/{session}/{file}.wav"
            for speaker, sessions in speakers.items()
            for session, files in enumerate(sessions)
            for file in range(files)
        ]
    )


def keys(trials):
    return [frozenset(pair) for pair in zip(trials["enrol"], trials["test"])]


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "text",
    [
        "1 a.wav b.wav\n0 a.wav 001\n",
        "1 a.wav b.wav\r\n0 a.wav 001\r\n",
        "\n  1\ta.wav   b.wav  \n\n \t\n0 a.wav\t001",
        b"\xef\xbb\xbf1 a.wav b.wav\n0 a.wav 001\n",  # with a byte-order mark
        "1\u00a0a.wav b.wav\n0 a.wav\u2003001\n",  # wide spaces
    ],
)
def test_lines_of_three_columns_are_read(tmp_path, text):
    trials = read_trials(written(tmp_path, text))
    expected = listed((1, "a.wav", "b.wav"), (0, "a.wav", "001"))
    pd.testing.assert_frame_equal(
        trials, expected.astype({"enrol": str, "test": str})
    )
    assert trials["target"].dtype == np.int64


def test_names_that_look_like_numbers_or_missing_values_stay_names(tmp_path):
    path = written(tmp_path, '1 007 NA\n0 nan "1.0\n0 1e5 #x\n')
    trials = read_trials(path)
    assert trials["enrol"].tolist() == ["007", "nan", "1e5"]
    assert trials["test"].tolist() == ["NA", '"1.0', "#x"]


def test_fast_reading_gives_what_reading_line_by_line_gives(tmp_path):
    generator = np.random.default_rng(0)
    lines = [
        f"{label} id{enrol:03d}/x.wav id{test:03d}/y.wav\n"
        for label, enrol, test in generator.integers(0, [2, 99, 99], (500, 3))
    ]
    path = written(tmp_path, "".join(lines))
    fast = module._read_quickly(path)
    pd.testing.assert_frame_equal(fast, module._read_line_by_line(path))
    assert len(fast) == 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has no trials"),
        ("\n \n", "it has no trials"),
        (
            "1 a b\n0 id1 id2\n\nid1 id2\n",
            r"veri.txt line 4 has 2 columns \('id1 id2'\); a trial is "
            "'label enrol test'",
        ),
        ("1 a b c\n0 a b\n", "veri.txt line 1 has 4 columns"),
        ("0 a b\n1 a b c d e\n", "veri.txt line 2 has 6 columns"),
        ("x 0 a b c\nx 1 a b c\n", "2 problems:\n  - veri.txt line 1 has 5"),
        ("1 a b\n0\n", r"veri.txt line 2 has 1 columns \('0'\)"),
        ("1 a b\n2 a b\n", "veri.txt line 2 has the label '2'; it is 1 or 0"),
        ("1 a b\n0.0 a b\n", "line 2 has the label '0.0'"),
        ("target a b\n0 a b\n", "line 1 has the label 'target'"),
        ("1 a b\n", r"it has no nontarget trials \(label 0\)"),
        ("0 a b\n", r"it has no target trials \(label 1\)"),
        (b"1 a \xff\xfe\n0 a b\n", "it is not text in UTF-8"),
    ],
)
def test_faulty_lists_are_refused_with_file_and_line(tmp_path, text, message):
    with pytest.raises(BadInputError, match=message):
        read_trials(written(tmp_path, text))


def test_all_faulty_lines_are_counted_and_three_shown(tmp_path):
    path = written(tmp_path, "1 a b\n0 a b\n" + "a b\n3 a b\n" * 10)
    with pytest.raises(BadInputError, match="20 problems") as error:
        read_trials(path)
    message = str(error.value)
    assert message.count("veri.txt line") == 3
    assert "line 3" in message and "line 5" in message
    assert "and 17 more" in message


def test_a_missing_list_is_refused_by_its_path(tmp_path):
    with pytest.raises(BadInputError, match="nowhere.txt.*\n.*no such trial"):
        read_trials(tmp_path / "nowhere.txt")
    with pytest.raises(BadInputError, match="no such trial list"):
        read_trials(tmp_path)


# ---------------------------------------------------------------- writing


def test_written_trials_are_read_back_unchanged(tmp_path):
    text = '1 a/b.wav "c"\n0 a/b.wav é\n0 a/b.wav é\n'
    trials = read_trials(written(tmp_path, text))
    write_trials(trials, tmp_path / "new" / "again.txt")
    assert (tmp_path / "new" / "again.txt").read_bytes() == text.encode()
    again = read_trials(tmp_path / "new" / "again.txt")
    pd.testing.assert_frame_equal(again, trials)


@pytest.mark.parametrize("name", ["", "a b", "a\tb", " a"])
def test_names_that_could_not_be_read_back_are_not_written(tmp_path, name):
    with pytest.raises(BadInputError, match="is empty or has white space"):
        write_trials(listed((1, "x", name)), tmp_path / "trials.txt")
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------- resolving


def test_trials_become_positions_of_their_utterances():
    trials = listed((1, "b", "c"), (0, "c", "a"), (0, "b", "b"))
    enrol, test = resolve_trials(trials, ["a", "b", "c"], "test.csv")
    assert enrol.tolist() == [1, 2, 1] and test.tolist() == [2, 0, 1]
    assert enrol.dtype == test.dtype == np.int64


@pytest.mark.parametrize("name", ["x/a", "x/a.wav", "x/a.flac", "x/a.WAV"])
@pytest.mark.parametrize("known", ["x/a", "x/a.wav", "x/a.flac"])
def test_audio_extensions_do_not_keep_names_apart(name, known):
    trials = listed((1, name, "b.c"))
    enrol, test = resolve_trials(trials, ["b.c", known], "test.csv")
    assert (enrol.tolist(), test.tolist()) == ([1], [0])


def test_an_exact_name_wins_over_one_with_another_extension():
    trials = listed((1, "a.wav", "a"), (0, "a.flac", "a"))
    ids = ["a.flac", "a", "a.wav"]
    enrol, test = resolve_trials(trials, ids, "test.csv")
    assert (enrol.tolist(), test.tolist()) == ([2, 0], [1, 1])


def test_other_endings_and_folders_keep_names_apart():
    trials = listed((1, "a.txt", "x/a.wav"))
    with pytest.raises(BadInputError, match="2 problems"):
        resolve_trials(trials, ["a", "b"], "test.csv")


def test_unknown_utterances_are_counted_once_and_shown_with_their_trial():
    trials = listed(
        (1, "a", "b"),
        (1, "a", "q"),
        (0, "q", "a"),
        (0, "r", "s"),
        (0, "t", "b"),
    )
    with pytest.raises(BadInputError) as error:
        resolve_trials(trials, ["a", "b"], "test.csv")
    message = str(error.value)
    assert message.startswith("test.csv: 4 problems:")
    assert "'q' (trial 2: '1 a q') is not among the 2 utterances" in message
    assert "'r' (trial 4: '0 r s')" in message
    assert "and 1 more" in message


def test_a_name_that_fits_two_files_is_refused():
    trials = listed((1, "a", "b"))
    with pytest.raises(BadInputError, match="'a' .* fits several utterances"):
        resolve_trials(trials, ["a.wav", "a.flac", "b"], "test.csv")


def test_repeated_ids_are_refused():
    with pytest.raises(BadInputError, match="'a' occurs twice"):
        resolve_trials(listed((1, "a", "a")), ["a", "b", "a"], "test.csv")


# ----------------------------------------------------------------- making


def test_labels_of_made_trials_are_those_of_the_speakers():
    rows = corpus(a=[3, 3], b=[2, 4], c=[1, 1], d=[1])
    speaker = dict(zip(rows["ID"], rows["spk_id"]))
    trials = make_trials(rows, seed=0, targets=12, nontargets=30)
    assert trials["target"].tolist() == [1] * 12 + [0] * 30
    same = trials["enrol"].map(speaker) == trials["test"].map(speaker)
    assert (same == (trials["target"] == 1)).all()
    assert (trials["enrol"] != trials["test"]).all()


def test_no_trial_is_made_twice_in_either_order():
    rows = corpus(a=[5, 5], b=[5, 5], c=[5], d=[5])
    trials = make_trials(rows, seed=0, targets=90, nontargets=300)
    assert len(set(keys(trials))) == len(trials) == 390


def test_all_trials_there_are_are_made_when_more_are_asked_for():
    rows = corpus(a=[2, 1], b=[2], c=[1])
    speaker = dict(zip(rows["ID"], rows["spk_id"]))
    trials = make_trials(rows, seed=0, targets=1000, nontargets=1000)
    pairs = {frozenset(pair) for pair in combinations(rows["ID"], 2)}
    assert set(keys(trials)) == pairs and len(trials) == len(pairs) == 15
    targets = [len({speaker[name] for name in pair}) == 1 for pair in pairs]
    assert trials["target"].sum() == sum(targets) == 4


def test_same_seed_gives_the_same_trials_and_another_seed_others():
    rows = corpus(a=[5, 5], b=[5, 5], c=[5, 5])
    first, again, other = (
        make_trials(rows, seed, targets=20, nontargets=20) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, again)
    assert set(keys(first)) != set(keys(other))


def test_target_trials_prefer_two_sessions_then_two_files():
    rows = corpus(a=[1, 4], b=[4])
    pieces = rows.assign(ID=rows["ID"] + "#2")  # a second piece of every file
    rows = pd.concat([rows, pieces], ignore_index=True)
    session = dict(zip(rows["ID"], rows["wav"].str.rpartition("/")[0]))
    file = dict(zip(rows["ID"], rows["wav"]))
    # Speaker a has 2 * 8 pairs of two sessions, b 24 pairs of two files.
    trials = make_trials(rows, seed=0, targets=32, nontargets=1)
    trials = trials[trials["target"] == 1]
    of_a = trials["enrol"].str.startswith("a")
    assert of_a.sum() == 16
    for table, chosen in ((session, trials[of_a]), (file, trials[~of_a])):
        enrol, test = chosen["enrol"].map(table), chosen["test"].map(table)
        assert (enrol != test).all()


def test_speakers_share_the_trials_evenly_whatever_their_number_of_files():
    rows = corpus(a=[60, 60], **{f"s{i}": [4, 4] for i in range(9)})
    speaker = dict(zip(rows["ID"], rows["spk_id"]))
    trials = make_trials(rows, seed=0, targets=100, nontargets=900)
    targets = trials[trials["target"] == 1]["enrol"].map(speaker)
    assert targets.value_counts().tolist() == [10] * 10
    others = trials[trials["target"] == 0]
    sides = pd.concat([others["enrol"], others["test"]]).map(speaker)
    assert sides.value_counts().tolist() == [180] * 10


def test_each_of_many_speakers_is_used_before_one_is_used_often():
    rows = corpus(**{f"s{i}": [5, 5] for i in range(300)})
    speaker = dict(zip(rows["ID"], rows["spk_id"]))
    trials = make_trials(rows, seed=0, targets=300, nontargets=300)
    targets = trials[trials["target"] == 1]
    assert targets["enrol"].map(speaker).nunique() == 300
    others = trials[trials["target"] == 0]
    sides = pd.concat([others["enrol"], others["test"]]).map(speaker)
    assert sides.nunique() == 300 and sides.value_counts().max() <= 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (corpus(a=[3]), "1 of the 2 speakers needed"),
        (corpus(a=[1], b=[1]), "no speaker has the two rows"),
        (corpus(a=[1]), "2 problems"),
        (corpus(a=[3])[:0], "0 of the 2 speakers needed"),
    ],
)
def test_rows_that_allow_no_trials_are_refused(rows, message):
    with pytest.raises(BadInputError, match=message):
        make_trials(rows, seed=0)


@pytest.mark.parametrize("name", ["targets", "nontargets"])
def test_a_number_of_trials_below_one_is_refused(name):
    rows = corpus(a=[2], b=[2])
    with pytest.raises(BadInputError, match=f"{name}=0"):
        make_trials(rows, seed=0, **{name: 0})
