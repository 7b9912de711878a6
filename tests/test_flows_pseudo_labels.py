"""What a user runs with pseudo labels: run, kill, resume; and bad input."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, TINY_RUN, newest_weights

import train
from speechbrain_ssl import cli
from speechbrain_ssl.brains import pseudo_labels
from speechbrain_ssl.brains.pseudo_labels import LossGate, PseudoLabelBrain
from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.dataio.manifest import read_manifest, write_manifest

NETWORK = [a for a in TINY_RUN if a.split("=")[0] in ("--n_mels", "--channels")]


def arguments(corpus, folder, *more):
    given = [
        f"--data_folder={corpus}",
        f"--test_trials={corpus / 'trials.txt'}",
        f"--output_folder={folder}",
        "--split_ratio=[75,25]",
        "--device=cpu",
        "--noprogressbar",
        "--start_yaml=ntxent.yaml",
        "--start_epochs=1",
        "--start_steps=3",
        "--round_epochs=2",
        "--round_steps=3",
        "--number_of_clusters=4",
        "--least_silhouette=-1",
        "--batch_size=4",
        "--long_seconds=0.5",
        "--short_seconds=0.25",
        "--crop_seconds=0.5",
        "--embedding_dim=16",
        *NETWORK,
        *more,
    ]
    last = {argument.split("=")[0]: argument for argument in given}
    return [str(REPOSITORY / "hparams" / "pseudo_labels.yaml"), *last.values()]


@pytest.fixture(scope="module")
def chain(small_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain") / "run"
    run = arguments(small_corpus, folder, "--upper_bound=True")
    assert train.main(run) == 0
    return folder


def test_rounds_leave_labels_models_and_figures(chain):
    metrics = json.loads((chain / "metrics.json").read_text())
    systems = ["start", "round 1", "round 2", "labelled"]
    assert list(metrics["trials"]) == systems
    for report in metrics["trials"].values():
        assert report["clean"]["targets"] == 4
    whole = read_manifest(chain / "manifests" / "train.csv")
    for number in (1, 2):
        folder = chain / f"round_{number}"
        rows = read_manifest(folder / "train.csv")
        figures = metrics["clusters"][number - 1]
        assert figures["found"] == 4 and figures["kept"] == len(rows) / 18
        assert set(figures["speakers"]) == {"nmi", "ari", "purity"}
        assert ("stability" in figures) == (number == 2)
        found = np.load(folder / "labels.npz")
        labels = found["labels"][found["kept"]]
        assert rows["spk_id"].tolist() == [f"cluster_{n}" for n in labels]
        kept = whole.iloc[found["kept"]]
        assert rows["ID"].tolist() == kept["ID"].tolist()
        learned = read_manifest(folder / "train" / "manifests" / "train.csv")
        assert learned["spk_id"].str.startswith("cluster_").all()
    assert (chain / "plots" / "rounds.png").stat().st_size > 1000
    start = json.loads((chain / "start" / "metrics.json").read_text())
    ours = metrics["trials"]["start"]["clean"]["eer"]
    assert ours == start["trials"]["clean"]["eer"]


def test_a_csc_model_may_be_the_start(small_corpus, tmp_path):
    """Of its slots the loudest one counts; its ECAPA-TDNN goes on."""
    from conftest import command_line

    more = ["--identities_per_batch=4", "--crop_seconds=0.5", "--sirs_db=[]"]
    more += ["--valid_sirs_db=[]", "--mask_channels=8", "--number_of_epochs=1"]
    run = command_line("csc.yaml", small_corpus, tmp_path / "csc", *more)
    assert train.main(run) == 0
    more = [f"--source={tmp_path / 'csc'}", "--number_of_rounds=1"]
    assert train.main(arguments(small_corpus, tmp_path / "run", *more)) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics["trials"]) == ["start", "round 1"]


def test_labels_do_not_depend_on_the_true_ones(
    chain, small_corpus, tmp_path, monkeypatch
):
    """The same chain with shuffled speakers in the training manifest."""
    from speechbrain_ssl.prepare import corpus

    real = corpus.prepare_voxceleb

    def hidden(data, save, *rest, **options):
        real(data, save, *rest, **options)
        path = f"{save}/train.csv"
        rows = read_manifest(path)
        write_manifest(
            rows.assign(spk_id=rows["spk_id"].to_numpy()[::-1]), path
        )

    monkeypatch.setattr(corpus, "prepare_voxceleb", hidden)
    monkeypatch.setattr(corpus, "voxceleb_preparation", lambda script: hidden)
    run = arguments(small_corpus, tmp_path / "run", "--number_of_rounds=1")
    assert train.main(run) == 0
    ours, theirs = (
        (folder / "round_1" / "train.csv").read_text()
        for folder in (tmp_path / "run", chain)
    )
    assert ours == theirs
    manifests = (tmp_path / "run" / "manifests", chain / "manifests")
    ours, theirs = ((m / "train.csv").read_text() for m in manifests)
    assert ours != theirs


def test_a_killed_chain_goes_on_and_ends_in_the_same_weights(
    chain, small_corpus, tmp_path, monkeypatch, capsys
):
    class Killed(Exception):
        pass

    steps = []

    def kill(brain, *_):
        steps.append(brain.optimizer_step)
        if brain.hparams.output_folder.endswith("round_2/train"):
            raise Killed

    run = arguments(small_corpus, tmp_path / "run", "--upper_bound=True")
    with monkeypatch.context() as patch:
        patch.setattr(PseudoLabelBrain, "on_fit_batch_end", kill)
        with pytest.raises(Killed):
            train.main(run)
    assert len(steps) == 7  # six of round 1, one of round 2
    first = tmp_path / "run" / "round_1" / "train" / "metrics.json"
    before = first.stat().st_mtime_ns
    embeddings = tmp_path / "run" / "round_2" / "embeddings.npy"
    embedded = embeddings.stat().st_mtime_ns
    assert train.main(run) == 0
    assert first.stat().st_mtime_ns == before
    assert embeddings.stat().st_mtime_ns == embedded
    for name in ("round_2/train", "labelled/train"):
        ours, theirs = (
            newest_weights(folder / name, "encoder")
            for folder in (tmp_path / "run", chain)
        )
        for key, value in ours.items():
            assert torch.equal(value, theirs[key]), (name, key)
    capsys.readouterr()
    assert train.main(run) == 0
    assert "already complete after 2 rounds" in capsys.readouterr().out


def test_a_changed_manifest_under_a_half_finished_run_is_refused(
    chain, small_corpus, tmp_path, monkeypatch, capsys
):
    class Killed(Exception):
        pass

    def kill(*_):
        raise Killed

    folder, corpus = tmp_path / "run", tmp_path / "corpus"
    shutil.copytree(small_corpus, corpus)
    run = arguments(corpus, folder, f"--source={chain / 'start'}")
    with monkeypatch.context() as patch:
        patch.setattr(PseudoLabelBrain, "on_fit_batch_end", kill)
        with pytest.raises(Killed):
            train.main(run)
    shutil.rmtree(corpus / "wav" / "spk03")
    assert train.main(run) == 2
    message = capsys.readouterr().err
    assert "stage 'verify'" in message and "begun with train.csv" in message
    assert not (folder / "metrics.json").exists()


def test_changed_settings_are_refused(chain, small_corpus, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(chain, folder)
    (folder / "metrics.json").unlink()
    run = arguments(small_corpus, folder, "--number_of_clusters=5")
    assert train.main(run) == 2
    message = capsys.readouterr().err
    assert "stage 'cluster'" in message
    assert "begun with clusters 4, now it is 5" in message


@pytest.mark.parametrize(
    "more, message",
    [
        (["--number_of_clusters=40"], "the k-means centroids of 18 utt"),
        (["--least_silhouette=0.999"], "least_silhouette 0.999 keeps"),
        (["--smallest_cluster=30"], "smallest_cluster 30 then keeps 0 of 4"),
        (["--source=missing"], "it has no hyperparams.yaml"),
    ],
)
def test_bad_input_is_one_clear_error(
    more, message, chain, small_corpus, tmp_path, capsys
):
    given = [f"--source={chain / 'start'}", *more]
    assert train.main(arguments(small_corpus, tmp_path / "r", *given)) == 2
    assert message in capsys.readouterr().err


def test_only_the_head_learns_at_first(chain, tmp_path, monkeypatch):
    seen = []

    def look(brain, *_):
        head = brain.hparams.aam.weight.detach().clone()
        model = brain.hparams.embedding_model
        body = model.fc.conv.weight.detach().clone()
        norm = model.asp_bn.norm.running_mean.clone()
        seen.append((head, body, norm))

    monkeypatch.setattr(PseudoLabelBrain, "on_fit_batch_end", look)
    run = round_of(chain, tmp_path, "--head_steps=2", "--number_of_epochs=1")
    assert train.main(run) == 0
    weights = torch.load(
        chain / "round_1" / "embedding_model.ckpt", weights_only=True
    )
    given = weights["fc.conv.weight"]
    still = [torch.equal(body, given) for _, body, _ in seen]
    assert still == [True, True, False]
    given = weights["asp_bn.norm.running_mean"]
    assert [torch.equal(norm, given) for _, _, norm in seen] == still
    assert not torch.equal(seen[0][0], seen[1][0])


def test_rounds_are_exported_as_what_they_are(chain, tmp_path, capsys):
    export = ["--to", str(tmp_path / "model"), "--name", "user/model"]
    assert cli.main(["export", str(chain), *export]) == 2
    message = capsys.readouterr().err
    assert "2 rounds of pseudo labels" in message
    assert str(chain / "round_2" / "train") in message
    for source, labels in (("round_2", "without"), ("labelled", "with")):
        export[1] = str(tmp_path / source)
        run = str(chain / source / "train")
        assert cli.main(["export", run, *export]) == 0
        card = (tmp_path / source / "README.md").read_text()
        assert f"{labels} speaker labels" in card and "None" not in card
        assert ("Identify a training speaker" in card) == (labels == "with")


def round_of(chain, folder, *more):
    given = [
        f"--labelled={chain / 'round_1' / 'train.csv'}",
        f"--manifests={chain / 'manifests'}",
        f"--embedding_weights={chain / 'round_1' / 'embedding_model.ckpt'}",
        f"--output_folder={folder / 'round'}",
        "--crop_seconds=0.5",
        "--batch_size=4",
        *[a for a in TINY_RUN if "split" not in a],
        *more,
    ]
    last = {argument.split("=")[0]: argument for argument in given}
    return [str(REPOSITORY / "hparams" / "pseudo_round.yaml"), *last.values()]


def test_weights_of_another_network_are_refused(chain, tmp_path, capsys):
    assert train.main(round_of(chain, tmp_path, "--embedding_dim=8")) == 2
    message = capsys.readouterr().err
    assert "fc.conv.weight has the shape" in message


def gate_of(losses, guesses, sure):
    gate = LossGate(len(losses))
    rows = torch.arange(len(losses))
    gate.add(rows, torch.tensor(losses), torch.tensor(guesses), sure)
    return gate


def test_the_gate_parts_two_groups_of_losses_and_corrects_the_sure():
    draw = np.random.default_rng(0)
    low, high = draw.normal(0.5, 0.2, 60), draw.normal(6, 1, 20)
    losses = np.concatenate([low, high]).clip(0).astype(np.float32)
    sure = torch.cat([torch.full((70,), 0.5), torch.full((10,), 0.95)])
    gate = gate_of(losses, [3] * 80, sure)
    gate.decide(np.zeros(80, int), correct_above=0.9)
    assert gate.kept.tolist() == [*range(60), *range(70, 80)]
    assert gate.labels.tolist() == [0] * 70 + [3] * 10
    gate.decide(np.zeros(80, int), correct_above=1)
    assert gate.kept.tolist() == list(range(60)) and not gate.labels.any()


def test_the_gate_takes_the_mean_of_visits_and_keeps_the_unseen():
    gate = LossGate(7)
    gate.add(
        torch.tensor([0, 1, 2, 3]),
        torch.tensor([0.1, 0.2, 0.1, 9.0]),
        torch.zeros(4, dtype=torch.long),
        torch.zeros(4),
    )
    gate.add(
        torch.tensor([3, 4, 5]),
        torch.tensor([9.0, 0.15, 9.2]),
        torch.zeros(3, dtype=torch.long),
        torch.zeros(3),
    )
    gate.decide(np.arange(7), 1)
    assert gate.kept.tolist() == [0, 1, 2, 4, 6]


def test_a_gated_run_trains_on_what_is_kept_and_resumes(
    chain, tmp_path, monkeypatch
):
    class Killed(Exception):
        pass

    seen = []

    def look(brain, batch, *_):
        seen.append((batch["rows"].tolist(), batch["labels"].tolist()))
        if len(seen) == 5 and not (tmp_path / "whole").exists():
            raise Killed

    def decide(gate, labels, correct_above):
        assert correct_above == 0.4 and gate.visits.sum() == 12
        gate.labels = labels.copy()
        gate.labels[2] = (labels[2] + 1) % 4
        gate.kept = np.array([0, 2, 3, 5, 7, 8])

    monkeypatch.setattr(pseudo_labels.LossGate, "decide", decide)
    more = ["--gate_epoch=1", "--correct_above=0.4", "--ckpt_interval_steps=1"]
    run = round_of(chain, tmp_path, *more, "--number_of_epochs=3")
    run.append("--ckpt_interval_minutes=0")
    monkeypatch.setattr(PseudoLabelBrain, "on_fit_batch_end", look)
    with pytest.raises(Killed):
        train.main(run)
    assert train.main(run) == 0
    labels = read_manifest(chain / "round_1" / "train.csv")["spk_id"]
    codes = labels.astype("category").cat.codes.to_numpy().copy()
    codes[2] = (codes[2] + 1) % 4
    for rows, given in seen[3:]:
        assert set(rows) <= {0, 2, 3, 5, 7, 8}
        assert given == codes[rows].tolist()
    (tmp_path / "round").rename(tmp_path / "whole")
    seen.clear()
    assert train.main(run) == 0
    ours, theirs = (
        newest_weights(tmp_path / name, "encoder")
        for name in ("round", "whole")
    )
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key
    history = json.loads((tmp_path / "round" / "history.json").read_text())
    assert "kept" in history[0] and history[2]["kept"] < 1


def test_gate_values_out_of_range_are_refused(chain, tmp_path, capsys):
    assert train.main(round_of(chain, tmp_path, "--correct_above=2")) == 2
    assert "correct_above is 2; it must be 0 to 1" in capsys.readouterr().err
    with pytest.raises(BadInputError, match="of which 3 are left"):
        from speechbrain_ssl.dataio.views import UtteranceSampler

        rows = read_manifest(chain / "round_1" / "train.csv")
        UtteranceSampler(rows, 4, 1).keep(np.arange(3))
