"""Lists of other evaluations, score files and tables of models."""

import numpy as np
import pandas as pd
import pytest

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.scores import (
    read_models,
    read_scores,
    write_scores,
)
from speechbrain_ssl.dataio.trials import read_trials
from speechbrain_ssl.evaluation.verification import TrialList

EXPECTED = [(1, "a", "x.wav"), (0, "a", "007"), (0, "b", "x.wav")]


def written(folder, text, name="trials.txt"):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vox.txt", "1 a x.wav\n0 a 007\n0 b x.wav\n"),
        ("cn.lst", "a x.wav 1\na 007 0\nb x.wav 0\n"),
        ("sitw.lst", "a x.wav tgt\na 007 imp\nb\tx.wav imp\n"),
        ("voxsrc.txt", "a x.wav target\na 007 nontarget\nb x.wav nontarget\n"),
        ("a.csv", "test,target,enrol\nx.wav,1,a\n007,0,a\nx.wav,0,b\n"),
        ("b.csv", "label,enroll,test,n\n1,a,x.wav,2\n0,a,007,\n0,b,x.wav,\n"),
    ],
)
def test_every_form_gives_the_same_trials(tmp_path, name, text):
    trials = read_trials(written(tmp_path, text, name))
    columns = ["target", "enrol", "test"]
    assert list(trials[columns].itertuples(index=False, name=None)) == EXPECTED
    assert trials["target"].dtype == np.int64


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.lst", "a x 1\na y 2\n", "line 2 has the label '2'; it is 1 or 0"),
        ("a.lst", "a x tgt\na y\n", "a trial is 'enrol test label'"),
        ("a.csv", "target,enrol\n1,a\n", "no column test; found: target"),
        (
            "a.csv",
            "target,enrol,test\n1,a,b\n5,a,c\n",
            "a.csv line 3 has the label '5'",
        ),
        ("a.csv", "target,enrol,test\n", "it has no trials"),
        ("a.csv", "target,enrol,test\n1,a,b,\n0,a,c,\n", "line 2, saw 4"),
        ("a.csv", "target,label,enrol,test\n1,1,a,b\n", "'target' comes twice"),
        ("a.csv", "target,enrol,test\n1,a b,c\n0,a,\n", "2 problems.*'a b'"),
        ("a.csv", "", "it is no CSV"),
    ],
)
def test_faults_name_file_line_given_and_expected(
    tmp_path, name, text, message
):
    with pytest.raises(BadInputError, match=f"(?s){message}"):
        read_trials(written(tmp_path, text, name))


TRIALS = pd.DataFrame(EXPECTED, columns=["target", "enrol", "test"])


def test_scores_are_read_back_for_the_trials_they_are_of(tmp_path):
    path = tmp_path / "clean.txt"
    write_scores(TRIALS, np.array([0.5, -1.25, 3e-6]), path)
    expected = pytest.approx([0.5, -1.25, 3e-6], abs=5e-7)
    assert read_scores(path, TRIALS) == expected
    with pytest.raises(BadInputError, match="3 lines, the list 2 trials"):
        read_scores(path, TRIALS[:2])
    other = TRIALS.assign(test=["x.wav", "7", "x.wav"])
    with pytest.raises(BadInputError, match="line 2 is of another trial"):
        read_scores(path, other)
    path.write_text("1 a x.wav high\n0 a 007 0\n0 b x.wav 0\n")
    with pytest.raises(BadInputError, match="it is no score file"):
        read_scores(path, TRIALS)


def test_models_are_read_and_repeated_cuts_refused(tmp_path):
    path = written(tmp_path, "ID,model,genre\n007,m,a\nb,m,b\n", "models.csv")
    assert read_models(path).to_numpy().tolist() == [["m", "007"], ["m", "b"]]
    path = written(tmp_path, "model,ID\nm,a\nm,a\n", "models.csv")
    with pytest.raises(BadInputError, match="line 3 repeats 'a' of its model"):
        read_models(path)
    with pytest.raises(BadInputError, match="no column 'model'"):
        read_models(written(tmp_path, "name,ID\nm,a\n", "models.csv"))
    path = written(tmp_path, "007 audio/a.flac\nm b\n", "core.lst")
    rows = [["007", "audio/a.flac"], ["m", "b"]]
    assert read_models(path).to_numpy().tolist() == rows
    for text in ("m a\nm a 1.5\n", "m a\nm\n"):
        with pytest.raises(BadInputError, match="line 2 is not 'model ID'"):
            read_models(written(tmp_path, text, "assist.lst"))


def listed(*trials):
    rows = pd.DataFrame({"ID": list("abc"), "spk_id": list("xyz")})
    trials = pd.DataFrame(trials, columns=["target", "enrol", "test"])
    return TrialList(trials, rows, name="some list")


def test_repeated_trials_are_counted_and_those_with_both_labels_refused(caplog):
    again = [(1, "a", "b")] * 5 + [(0, "b", "a")]
    assert len(listed(*again).trials) == 6
    assert "some list: 4 problems" in caplog.text
    assert caplog.text.count("repeats an earlier trial") == 3
    with pytest.raises(BadInputError, match=r"'a b' \(trial 6\) has both"):
        listed(*again[:5], (0, "a", "b"))
    caplog.clear()
    listed((1, "a", "b"), (0, "b", "a"))
    assert not caplog.text
