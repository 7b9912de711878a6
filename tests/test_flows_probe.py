"""What a user runs with `speechbrain-ssl probe`; and bad input."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import REPOSITORY, dino_options

import train
from speechbrain_ssl import cli, probe as probing, settings
from speechbrain_ssl.brains.finetune import FineTuneBrain
from speechbrain_ssl.dataio.views import groups
from speechbrain_ssl.evaluation.probe import speaker_splits
from speechbrain_ssl.lobes.csc import Slots
from speechbrain_ssl.prepare.emodb import SPEAKERS
from speechbrain_ssl.probe import KEYS

PITCHES = {"F": 300, "N": 150, "T": 90, "W": 450}
SYSTEMS = ["dino", "log-mel statistics", "majority class"]


@pytest.fixture(scope="module")
def emodb(tmp_path_factory):
    """EmoDB's speakers with a pitch for each emotion, 0.5 s a file."""
    folder = tmp_path_factory.mktemp("emodb")
    (folder / "wav").mkdir()
    draw, time = np.random.default_rng(2), np.arange(8000) / 16000
    for speaker in SPEAKERS:
        for letter, pitch in PITCHES.items():
            hertz = pitch * draw.uniform(0.9, 1.1)
            wave = sum(
                np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 6)
            )
            wave = 0.1 * wave + draw.normal(0, 0.01, 8000)
            path = folder / "wav" / f"{speaker}a01{letter}a.wav"
            soundfile.write(path, wave, 16000, subtype="PCM_16")
    return folder


@pytest.fixture(scope="module")
def source(small_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "dino"
    assert train.main(dino_options(small_corpus, folder)) == 0
    return folder


def run(yaml, source, folder, *more):
    """Exit code of the command, and its metrics if it has written any."""
    code = cli.main(
        [
            "probe",
            str(REPOSITORY / "hparams" / yaml),
            f"--source={source}",
            f"--output_folder={folder}",
            "--device=cpu",
            "--noprogressbar",
            *more,
        ]
    )
    path = folder / "metrics.json"
    return code, json.loads(path.read_text()) if path.is_file() else None


def test_results_of_another_model_are_not_replaced(source, tmp_path, capsys):
    text = json.dumps({"source": "another"})
    (tmp_path / "metrics.json").write_text(text)
    more = ["--corpus=emodb", f"--data_folder={tmp_path}"]
    code, metrics = run("probe.yaml", source, tmp_path, *more)
    assert code == 2 and metrics == {"source": "another"}
    assert "is of source=another" in capsys.readouterr().err


def test_a_training_folder_and_other_questions_are_left_alone(
    source, tmp_path, capsys
):
    before = (source / "metrics.json").read_bytes()
    more = ["--corpus=emodb", f"--data_folder={tmp_path}"]
    code, _ = run("probe.yaml", source, source, *more)
    assert code == 2 and (source / "metrics.json").read_bytes() == before
    assert "it is a model's" in capsys.readouterr().err
    asked = {"source": str(source), "corpus": "emodb", "classes": ["anger"]}
    (tmp_path / "metrics.json").write_text(json.dumps({"asked": asked}))
    assert run("probe.yaml", source, tmp_path, *more)[0] == 2
    assert "is of classes=['anger'], not None" in capsys.readouterr().err


def test_drawn_folds_follow_the_seed(monkeypatch, tmp_path):
    class Enough(Exception):
        pass

    def prepare(data_folder, save_file, sample_rate, seed=None):
        raise Enough(seed)

    monkeypatch.setitem(probing.PREPARATIONS, "cremad", prepare)
    hparams = {"corpus": "cremad", "data_folder": "x", "label": "emotion"}
    with pytest.raises(Enough, match="7"):
        probing._labelled({**hparams, "seed": 7}, 16000, tmp_path / "m.csv")


def test_a_probe_leaves_figures_predictions_and_pictures(
    source, emodb, tmp_path, capsys
):
    code, metrics = run(
        "probe.yaml",
        source,
        tmp_path,
        "--corpus=emodb",
        f"--data_folder={emodb}",
        "--label_percents=[25,50]",
        "--draws=1",
    )
    assert code == 0
    classes = ["anger", "happiness", "neutral", "sadness"]
    assert metrics["classes"] == classes and metrics["label"] == "emotion"
    fold = {"utterances": 8, "speakers": 2}
    assert metrics["folds"] == dict.fromkeys("01234", fold)
    assert list(metrics["systems"]) == SYSTEMS
    assert metrics["systems"]["majority class"]["micro_f1"] == 0.25
    assert metrics["systems"]["log-mel statistics"]["micro_f1"] > 0.9
    given = pd.read_csv(tmp_path / "predictions.csv")
    assert len(given) == 40
    printed = capsys.readouterr().out
    for system, figures in metrics["systems"].items():
        right = (given[system] == given["emotion"]).mean()
        assert figures["micro_f1"] == pytest.approx(right)
        assert np.sum(figures["confusion"]) == figures["utterances"] == 40
        assert f"{system:<25} {100 * right:10.2f}" in printed
    curve = metrics["label_efficiency"]["dino"]
    assert [line["percent"] for line in curve] == [25, 50]
    assert [line["labels"] for line in curve] == [8, 16]
    for name in ("confusion", "label_efficiency"):
        picture = (tmp_path / "plots" / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")


def test_any_column_of_a_table_and_some_of_its_classes(source, emodb, tmp_path):
    names = sorted(path.name for path in (emodb / "wav").iterdir())
    table = pd.DataFrame({"wav": names, "spk_id": [n[:2] for n in names]})
    table["letter"] = [name[5] for name in names]
    table.to_csv(tmp_path / "table.csv", index=False)
    code, metrics = run(
        "probe.yaml",
        source,
        tmp_path / "out",
        "--corpus=csv",
        f"--csv={tmp_path / 'table.csv'}",
        f"--data_folder={emodb / 'wav'}",
        "--label=letter",
        "--classes=[F,T]",
        "--label_percents=[]",
    )
    assert code == 0
    assert metrics["classes"] == ["F", "T"] and len(metrics["folds"]) == 5
    assert metrics["systems"]["dino"]["utterances"] == 20
    manifest = pd.read_csv(tmp_path / "out" / "manifest.csv", dtype=str)
    assert len(manifest) == 40
    assert (manifest.groupby("spk_id")["fold"].nunique() == 1).all()
    assert not (tmp_path / "out" / "plots" / "label_efficiency.png").exists()


def test_fine_tuning_stands_beside_the_frozen_embeddings(
    source, emodb, tmp_path
):
    code, metrics = run(
        "probe_finetune.yaml",
        source,
        tmp_path,
        "--corpus=emodb",
        f"--data_folder={emodb}",
        "--number_of_epochs=2",
        "--classifier_epochs=1",
        "--crop_seconds=0.5",
        "--short_seconds=0.25",
    )
    assert code == 0
    assert list(metrics["systems"]) == ["dino, fine-tuned", *SYSTEMS]
    figures = metrics["systems"]["dino, fine-tuned"]
    assert figures["utterances"] == 40 and 0 <= figures["micro_f1"] <= 1


class Doubled(torch.nn.Module):
    """Two slots: the wave's own statistics, and louder ones of noise."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)
        self.norm = torch.nn.BatchNorm1d(3)

    def forward(self, waves):
        figures = torch.stack([waves.mean(1), waves.std(1)], dim=1)
        own = self.norm(self.layer(figures))
        embeddings = torch.stack([torch.zeros_like(own), own], dim=1)
        return Slots(embeddings, torch.stack([0.1 * waves, waves], dim=1))


def test_the_encoder_joins_after_the_classifier_and_the_given_one_stays(
    tmp_path, monkeypatch
):
    draw, table = np.random.default_rng(1), []
    for number in range(12):
        wave = draw.normal(0, 0.05 + 0.2 * (number % 2), 1600)
        soundfile.write(tmp_path / f"{number}.wav", wave, 16000)
        speaker = f"s{number // 4}"
        table.append((str(tmp_path / f"{number}.wav"), 0, 1600, speaker))
    rows = pd.DataFrame(table, columns=["wav", "start", "stop", "spk_id"])
    rows = rows.assign(fold=rows["spk_id"], loud=["no", "yes"] * 6)
    splits = speaker_splits(rows, "loud")[:1]
    seen = []
    end = FineTuneBrain.on_fit_batch_end

    def look(brain, *inputs):
        encoder = copy.deepcopy(brain.modules.encoder.state_dict())
        seen.append((encoder, brain.hparams.classifier.weight.clone()))
        end(brain, *inputs)

    monkeypatch.setattr(FineTuneBrain, "on_fit_batch_end", look)
    encoder, heard = Doubled().requires_grad_(False), []
    embed = FineTuneBrain.embed

    def listen(brain, batch):
        heard.extend(v for g in groups(batch) for v in g.unbind(1))
        return embed(brain, batch)

    monkeypatch.setattr(FineTuneBrain, "embed", listen)
    before = copy.deepcopy(encoder.state_dict())
    given = [
        str(REPOSITORY / "hparams" / "probe_finetune.yaml"),
        "--source=x",
        "--corpus=emodb",
        "--batch_size=4",
        "--number_of_epochs=3",
        "--classifier_epochs=1",
        "--crop_seconds=0.1",
        "--short_seconds=0.05",
        "--peak_rate=0.1",
    ]
    finetune = settings.load(given, KEYS).hparams["finetune"]
    given = finetune(
        encoder,
        rows,
        rows["loud"].to_numpy(),
        splits,
        8000,  # crops of 800 and 400 samples
        {"device": "cpu", "noprogressbar": True},
    )
    assert {tuple(w.shape) for w in heard} == {(4, 800), (4, 400)}
    assert all(kind is None for kind in given[4:])
    assert set(given[:4]) <= {"no", "yes"}
    assert len(seen) == 6  # 3 epochs of 8 utterances
    for step, (state, weight) in enumerate(seen):
        same = all(torch.equal(state[name], before[name]) for name in before)
        assert same == (step < 2), step
        learned = state["layer.weight"] - before["layer.weight"]
        assert bool(learned.any()) == (step >= 2), step
        assert step == 0 or not torch.equal(weight, seen[step - 1][1])
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--corpus=emod"], "did you mean 'emodb'"),
        (["--corpus=emodb"], "--data_folder=PATH"),
        (["--corpus=csv"], "--csv=PATH"),
        (["--corpus=emodb", "--labell=sex"], "did you mean 'label'"),
        (["--corpus=emodb", "EMODB", "--label=se"], "did you mean 'sex'"),
        (["--corpus=emodb", "EMODB", "--classes=[anger,joy]"], "class 'joy'"),
        (["--corpus=emodb", "EMODB", "--classes=[anger]"], "2 are needed"),
        (["--corpus=emodb", "--label_percents=[0]"], "above 0, up to 100"),
    ],
)
def test_bad_input_is_one_clear_error(
    source, emodb, tmp_path, capsys, more, message
):
    given = [f"--data_folder={emodb}" if m == "EMODB" else m for m in more]
    code, metrics = run("probe.yaml", source, tmp_path, *given)
    assert code == 2 and metrics is None
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error


def test_without_scikit_learn_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["probe", "hparams/probe.yaml"]) == 2
    assert 'pip install "speechbrain_ssl[probe]"' in capsys.readouterr().err
