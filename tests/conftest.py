"""Shared set-up: one torch thread, no Hub, small corpora."""

import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from cnceleb_tree import EVALUATION, SPEAKERS, write_cnceleb
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from trees import TRIALS, add

from speechbrain_ssl.dataio.manifest import write_manifest
from speechbrain_ssl.prepare import cnceleb

torch.set_num_threads(1)

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def write_voices(folder, speakers, sessions=1, utterances=2, seconds=1.0):
    """Tones of one pitch a speaker in VoxCeleb layout; returns the folder."""
    draw = np.random.default_rng(5)
    time = np.arange(int(seconds * 16000)) / 16000
    for speaker in range(speakers):
        for session in range(sessions):
            for utterance in range(utterances):
                wave = sum(
                    np.sin(2 * np.pi * (120 + 17 * speaker) * k * time) / k
                    for k in range(1, 6)
                )
                wave = wave + draw.normal(0, 0.1, len(time))
                path = (
                    Path(folder)
                    / "wav"
                    / f"spk{speaker:02d}"
                    / f"s{session}"
                    / f"{utterance:05d}.wav"
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, 0.1 * wave, 16000, subtype="PCM_16")
    return Path(folder)


TINY_RUN = [
    "--steps_per_epoch=3",
    "--number_of_epochs=2",
    "--split_ratio=[75,25]",
    "--noprogressbar",
    "--workers=0",
    "--device=cpu",
    "--n_mels=40",
    "--embedding_dim=16",
    "--channels=[8,8,8,8,24]",
]
TINY_VIEWS = ["--batch_size=8", "--long_seconds=0.5", "--short_seconds=0.25"]
TINY_HEAD = ["--prototypes=32", "--bottleneck_dim=8"]

TINY_BY_METHOD = {
    "aam_supcon": ["--batch_size=8", "--crop_seconds=0.5", "--classes=9"],
    "csc": [
        "--identities_per_batch=4",
        "--crop_seconds=0.5",
        "--valid_sirs_db=[]",
        "--sirs_db=[5]",
        "--mask_channels=8",
    ],
}


def small_ecapa(n_mels=20, dim=6):
    """An ECAPA-TDNN of eight channels; weights of torch's generator."""
    return ECAPA_TDNN(
        n_mels,
        channels=[8, 8, 8, 8, 24],
        attention_channels=8,
        se_channels=8,
        lin_neurons=dim,
    )


def command_line(yaml, corpus, output, *more):
    """Arguments of train.py for a small run; the last of a key counts."""
    given = [
        f"--data_folder={corpus}",
        f"--test_trials={corpus / 'trials.txt'}",
        f"--output_folder={output}",
        *TINY_RUN,
        *more,
    ]
    last = {argument.split("=")[0]: argument for argument in given}
    return [str(REPOSITORY / "hparams" / yaml), *last.values()]


def dino_options(corpus, output, *more):
    """Arguments of a small DINO run."""
    return command_line(
        "dino.yaml", corpus, output, *TINY_VIEWS, *TINY_HEAD, *more
    )


def newest_weights(folder, module):
    """Tensors of a module in the newest checkpoint of a run."""
    newest = max(
        (folder / "save").glob("CKPT*"), key=lambda p: p.stat().st_mtime
    )
    return torch.load(newest / f"{module}.ckpt", weights_only=True)


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """16 speakers x 1 session x 2 utterances of 1 s, and a trial list.

    Speakers 12 to 15 are those of the trials.
    """
    folder = write_voices(tmp_path_factory.mktemp("corpus"), speakers=16)
    names = [
        [f"spk{s:02d}/s0/{u:05d}.wav" for u in range(2)] for s in range(12, 16)
    ]
    lines = [f"1 {a} {b}" for a, b in names]
    lines += [f"0 {a[0]} {b[1]}" for a in names for b in names if a is not b]
    (folder / "trials.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def runs(small_corpus, tmp_path_factory):
    """A finished run of each method, by name."""
    import train

    root = tmp_path_factory.mktemp("runs")
    for name, more in TINY_BY_METHOD.items():
        more = [*more, "--checkpoints_kept=2"]
        given = command_line(f"{name}.yaml", small_corpus, root / name, *more)
        assert train.main(given) == 0
    given = dino_options(small_corpus, root / "dino", "--sirs_db=[10]")
    assert train.main(given) == 0
    return root


@pytest.fixture(scope="session")
def exported(runs, tmp_path_factory):
    """An exported folder of each method, by name."""
    from speechbrain_ssl import cli
    from speechbrain_ssl.evaluation.calibration import PLAIN, Calibration

    root = tmp_path_factory.mktemp("exported") / "user"
    for name in ("aam_supcon", "csc", "dino"):
        if name == "aam_supcon":
            fitted = Calibration(
                ["score"], [0.5], [2.0], [18.0], 2.5, PLAIN, {}
            )  # 9 cosine - 2
            fitted.save(runs / name / "calibration.json")
        given = ["export", str(runs / name), "--to", str(root / name)]
        given += ["--name", f"user/{name}", "--licence", "apache-2.0"]
        assert cli.main([*given, "--dataset", "tones"]) == 0
    return root


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


@pytest.fixture
def cnceleb_corpus(tmp_path, monkeypatch):
    """Folders of a small CN-Celeb1 and 2, whose numbers pass as published."""
    monkeypatch.setattr(cnceleb, "SPEAKERS", SPEAKERS)
    monkeypatch.setattr(cnceleb, "EVALUATION", EVALUATION)
    return write_cnceleb(tmp_path)


@pytest.fixture
def cnceleb1(cnceleb_corpus):
    """The folder of that CN-Celeb1."""
    return Path(cnceleb_corpus.split(",")[0])


STOCK = """
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 24
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 24
    channels: [8, 8, 8, 8, 24]
    lin_neurons: 12
    attention_channels: 8
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
"""


@pytest.fixture(scope="session")
def stock(tmp_path_factory):
    """Model folder that stock SpeechBrain loads, weights drawn."""
    folder = tmp_path_factory.mktemp("models") / "stock"
    folder.mkdir()
    (folder / "hyperparams.yaml").write_text(STOCK)
    torch.manual_seed(4)
    model = ECAPA_TDNN(
        24, channels=[8, 8, 8, 8, 24], lin_neurons=12, attention_channels=8
    )
    torch.save(model.state_dict(), folder / "embedding_model.ckpt")
    return folder


@pytest.fixture(scope="session")
def manifests(small_corpus, tmp_path_factory):
    """Manifests of the trials' speakers and of the others, with sex."""
    folder = tmp_path_factory.mktemp("manifests")
    rows = []
    for path in sorted((small_corpus / "wav").rglob("*.wav")):
        name = path.relative_to(small_corpus / "wav").as_posix()
        rows.append((name, 1.0, str(path), 0, 16000, name.split("/")[0]))
    names = ["ID", "duration", "wav", "start", "stop", "spk_id"]
    rows = pd.DataFrame(rows, columns=names)
    tested = rows["spk_id"] >= "spk12"
    write_manifest(rows[tested], folder / "test.csv")
    write_manifest(rows[~tested], folder / "cohort.csv")
    sexes = pd.DataFrame({"spk_id": rows["spk_id"].unique()})
    sexes["sex"] = ["f", "m"] * 8
    sexes.to_csv(folder / "meta.csv", index=False)
    return folder


def run_verify(corpus, source, output, *more):
    """Exit status of verify.py; the last of a key counts."""
    given = [
        f"--source={source}",
        f"--trials={corpus / 'trials.txt'}",
        f"--data_folder={corpus}",
        f"--output_folder={output}",
        "--sirs_db=[]",
        "--device=cpu",
        *more,
    ]
    last = {argument.split("=")[0]: argument for argument in given}
    yaml = str(REPOSITORY / "hparams" / "verify.yaml")
    import verify

    return verify.main([yaml, *last.values()])


def metrics(folder):
    """What verify.py wrote."""
    return json.loads((folder / "metrics.json").read_text())


def scores(folder, condition="clean"):
    """Of a condition, in the order of the trials."""
    lines = (folder / "scores" / f"{condition}.txt").read_text().splitlines()
    return np.array([float(line.split()[3]) for line in lines])
