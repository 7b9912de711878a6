"""The synthetic corpus: reproducible, complete or absent, usable as speech."""

import json

import numpy as np
import pytest
import soundfile

from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.prepare import synthetic
from speechbrain_ssl.prepare.corpus import is_synthetic
from speechbrain_ssl.prepare.synthetic import make_synthetic_corpus

SIZES = {"speakers": 24, "sessions": 2, "utterances": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_synthetic_corpus(tmp_path_factory.mktemp("a") / "c", **SIZES)


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def read(folder, name):
    return [line.split() for line in (folder / name).read_text().splitlines()]


def waves(folder):
    return sorted((folder / "wav").glob("*/*/*.wav"))


def pitch_range(path):
    return int(path.split("/")[0][3:]) % 2


def pitch_of(path):
    """Hz: the highest peak of the autocorrelation of the whole utterance."""
    samples, rate = soundfile.read(path)
    power = np.abs(np.fft.rfft(samples, 2 * len(samples))) ** 2
    lags = np.arange(rate // 320, rate // 70)
    return rate / lags[np.argmax(np.fft.irfft(power)[lags])]


def test_a_seed_gives_the_same_bytes_on_every_run(tmp_path):
    first = make_synthetic_corpus(tmp_path / "1", 4, 2, 1, seed=5)
    second = make_synthetic_corpus(tmp_path / "2", 4, 2, 1, seed=5)
    assert contents(first) == contents(second)


def test_another_seed_gives_other_utterances(tmp_path):
    first = contents(make_synthetic_corpus(tmp_path / "1", 4, 2, 1, seed=5))
    second = contents(make_synthetic_corpus(tmp_path / "2", 4, 2, 1, seed=6))
    wavs = [name for name in first if name.endswith(".wav")]
    assert len(wavs) == 8
    assert all(first[name] != second[name] for name in wavs)


def test_no_utterance_depends_on_the_size_of_the_corpus(corpus, tmp_path):
    small = make_synthetic_corpus(tmp_path / "small", 4, 2, 1)
    large = contents(corpus)
    for path in waves(small):
        name = str(path.relative_to(small))
        assert path.read_bytes() == large[name]


def test_all_utterances_differ(corpus):
    wavs = [path.read_bytes() for path in waves(corpus)]
    assert len(set(wavs)) == len(wavs) == 24 * 2 * 2


def test_trial_speakers_are_no_training_speakers(corpus):
    train = {path.split("/")[0] for _, path in read(corpus, "train.txt")}
    trials = read(corpus, "trials.txt")
    test = {path.split("/")[0] for trial in trials for path in trial[1:]}
    assert len(train) == 18
    assert len(test) == 6
    assert not train & test


def test_training_list_names_the_speaker_and_every_training_file(corpus):
    rows = read(corpus, "train.txt")
    assert len(rows) == len({path for _, path in rows}) == 18 * 2 * 2
    assert all(path.split("/")[0] == speaker for speaker, path in rows)
    assert all((corpus / "wav" / path).is_file() for _, path in rows)


def test_trials_name_existing_files_and_tell_their_speakers_apart(corpus):
    for label, enrol, test in read(corpus, "trials.txt"):
        assert (corpus / "wav" / enrol).is_file()
        assert (corpus / "wav" / test).is_file()
        same = enrol.split("/")[0] == test.split("/")[0]
        assert label == str(int(same))


def test_target_trials_are_all_pairs_across_sessions(corpus):
    trials = read(corpus, "trials.txt")
    targets = [trial[1:] for trial in trials if trial[0] == "1"]
    assert all(a.split("/")[1] != b.split("/")[1] for a, b in targets)
    assert len({frozenset(pair) for pair in targets}) == 6 * 2 * 2


def test_half_of_the_nontarget_trials_are_within_one_pitch_range(corpus):
    trials = read(corpus, "trials.txt")
    pairs = [trial[1:] for trial in trials if trial[0] == "0"]
    near = sum(pitch_range(a) == pitch_range(b) for a, b in pairs)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert len(pairs) == 2 * near > 0


def test_odd_speakers_have_the_higher_pitch(corpus):
    pitches = {0: [], 1: []}
    for path in waves(corpus):
        name = str(path.relative_to(corpus / "wav"))
        pitches[pitch_range(name)].append(pitch_of(path))
    # Means are drawn around 115 and 205 Hz with a spread of 15 %.
    assert 90 < np.median(pitches[0]) < 145
    assert 165 < np.median(pitches[1]) < 250


def test_utterances_are_16_khz_mono_16_bit_and_two_to_four_seconds(corpus):
    for path in waves(corpus):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.subtype == "PCM_16"
        assert 2.0 <= info.duration <= 3.5


def test_utterances_are_neither_silent_nor_clipped(corpus):
    for path in waves(corpus):
        samples = soundfile.read(path)[0]
        assert 0.49 < np.abs(samples).max() < 0.91
        assert samples.std() > 0.02


def test_utterances_have_loud_and_quiet_parts(corpus):
    for path in waves(corpus):
        samples = soundfile.read(path)[0]
        frames = samples[: len(samples) // 400 * 400].reshape(-1, 400)
        levels = 20 * np.log10(frames.std(axis=1) + 1e-6)
        # The noise floor is at least 15 dB below the mean power.
        assert np.percentile(levels, 95) - levels.min() > 12


def test_a_second_call_writes_nothing(tmp_path):
    folder = make_synthetic_corpus(tmp_path / "c", 4, 2, 1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert make_synthetic_corpus(tmp_path / "c", 4, 2, 1) == folder
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert before == after


def test_an_interrupted_making_leaves_nothing(tmp_path, monkeypatch):
    write, written = soundfile.write, []

    def interrupted(path, *arguments):
        write(path, *arguments)
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(synthetic.soundfile, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_synthetic_corpus(tmp_path / "c", 4, 2, 1)
    assert len(written) == 3
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "c").mkdir()
    folder = make_synthetic_corpus(tmp_path / "c", 4, 2, 1)
    assert json.loads((folder / "corpus.json").read_text())["speakers"] == 4
    assert "say nothing about real" in (folder / "README.md").read_text()


def test_a_corpus_made_by_another_process_meanwhile_is_used(
    tmp_path, monkeypatch
):
    earlier = make_synthetic_corpus(tmp_path / "earlier", 4, 2, 1)
    write = synthetic.write_json

    def write_late(settings, path):
        write(settings, path)
        earlier.rename(tmp_path / "c")

    monkeypatch.setattr(synthetic, "write_json", write_late)
    folder = make_synthetic_corpus(tmp_path / "c", 4, 2, 1)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("name", ["notes.txt", "corpus.json"])
def test_a_folder_with_other_files_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(BadInputError, match="not a synthetic corpus"):
        make_synthetic_corpus(tmp_path, 4, 2, 1)
    assert contents(tmp_path) == {name: b"mine"}


def test_a_corpus_of_other_settings_is_left_alone(tmp_path):
    before = contents(make_synthetic_corpus(tmp_path / "c", 4, 2, 1))
    with pytest.raises(BadInputError, match="'seed': 9"):
        make_synthetic_corpus(tmp_path / "c", 4, 2, 1, seed=9)
    assert contents(tmp_path / "c") == before


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="cannot be written"):
        make_synthetic_corpus(tmp_path / "file" / "c", 4, 2, 1)
    with pytest.raises(BadInputError, match="not a synthetic corpus"):
        make_synthetic_corpus(tmp_path / "file", 4, 2, 1)


@pytest.mark.parametrize(
    "name, value",
    [
        ("speakers", 3),
        ("sessions", 1),
        ("utterances", 0),
        ("seed", -1),
        ("speakers", 4.0),
        ("utterances", True),
    ],
)
def test_sizes_that_are_too_small_or_no_numbers_are_errors(
    tmp_path, name, value
):
    with pytest.raises(BadInputError, match=f"{name} is {value}"):
        make_synthetic_corpus(tmp_path / "c", **{name: value})
    assert not list(tmp_path.iterdir())


def test_recordings_of_such_a_corpus_are_known(tmp_path):
    folder = make_synthetic_corpus(tmp_path / "toy", 4, 2, 1)
    wave = next((folder / "wav").rglob("*.wav"))
    assert is_synthetic(wave) and not is_synthetic("a.wav")
    (folder / "corpus.json").write_text('{"name": "another"}')
    assert not is_synthetic(wave)
