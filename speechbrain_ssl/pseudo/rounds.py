"""Rounds of clustering and training on the clusters."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain as sb
import torch

from speechbrain_ssl import experiment
from speechbrain_ssl.checks import check_installed, refuse
from speechbrain_ssl.dataio.files import replaced_when_done, write_json
from speechbrain_ssl.dataio.manifest import read_manifest, write_manifest
from speechbrain_ssl.dataio.trials import read_trials
from speechbrain_ssl.evaluation import plots
from speechbrain_ssl.evaluation.embed import embed_starts
from speechbrain_ssl.evaluation.verification import (
    TrialList,
    table,
    verify,
    without_scores,
)
from speechbrain_ssl.prepare.relabelled import OTHERS
from speechbrain_ssl.pretrained import Pretrained
from speechbrain_ssl.pseudo.labels import agreement, describe, tracking
from speechbrain_ssl.pseudo.stages import Stages, digest
from speechbrain_ssl.settings import Run

NETWORK = ("sample_rate", "n_mels", "embedding_dim", "channels")


class PseudoLabels:
    """The chain that a YAML with `runner` of this name runs.

    Start: the model of a training folder, or a label-free one trained first.
    A round: embed the training utterances, cluster them, write a manifest
    with the trusted clusters as speakers, train on it from the weights of
    before, verify. Each round has a folder, each stage is done once, and a
    killed training goes on from its checkpoint.

    Speakers of the training manifest are read for figures only, after the
    labels are made.

    Source: Cho et al. 2022, arXiv:2208.05413, section 3.

    Differs: clusters may be counted by the silhouette, which also says which
    utterances are trusted.

    Arguments
    ---------
    run : Run
        The loaded run, its output folder claimed.
    """

    KEYS = (
        "method",
        "seed",
        "output_folder",
        "expected_cost",
        "prepare",
        "source",
        "start_yaml",
        "start_overrides",
        "number_of_rounds",
        "clusters",
        "trusted",
        "round_yaml",
        "round_overrides",
        "upper_bound",
        "runner",
    )

    def __init__(self, run: Run):
        self.hparams, self.options = run.hparams, run.options
        self.yamls = Path(run.yaml).parent
        self.folder = Path(self.hparams["output_folder"])
        self.manifests = self.folder / "manifests"
        self.device = (
            run.options["device"] or sb.utils.distributed.infer_device()
        )

    def run(self) -> dict[str, Any]:
        """Run what is not done yet.

        Returns
        -------
        dict
            What was written to metrics.json.

        Raises
        ------
        BadInputError
            If an input cannot be used, or changed since the run began.
        """
        processes = int(os.environ.get("WORLD_SIZE", 1))
        refuse(
            "processes",
            [f"{processes} were started; the chain runs in one"]
            if processes > 1
            else [],
            "Run it with python.",
        )
        check_installed("sklearn", extra="pseudo")
        rounds = self.hparams["number_of_rounds"]
        print(
            f"{self.hparams['method']}: {rounds} rounds of clustering and "
            f"training; expect {self.hparams['expected_cost']}",
            flush=True,
        )
        self.hparams["prepare"](save_folder=self.manifests)
        self.rows = read_manifest(self.manifests / "train.csv")
        self.corpus = {
            name: digest(self.manifests / name)
            for name in ("train.csv", *OTHERS)
        }
        source = start = self._start()
        reports, figures = {"start": self._verify(source)}, []
        for number in range(1, rounds + 1):
            folder = self.folder / f"round_{number}"
            self._cluster(folder, source, number)
            figures.append(_read(folder / "clusters.json"))
            self._train(folder, source, folder / "train.csv")
            source = folder / "train"
            reports[f"round {number}"] = _read(source / "metrics.json")[
                "trials"
            ]
        self._draw(reports, figures)
        if self.hparams["upper_bound"]:
            folder = self.folder / "labelled"
            self._train(folder, start, self.manifests / "train.csv")
            reports["labelled"] = _read(folder / "train" / "metrics.json")[
                "trials"
            ]
        metrics = {
            "method": self.hparams["method"],
            "seed": self.hparams["seed"],
            "rounds": rounds,
            "trials": reports,
            "clusters": figures,
        }
        write_json(metrics, self.folder / "metrics.json")
        print(f"\n{table(reports)}\n\nwritten to {self.folder}")
        return metrics

    def _start(self):
        """Folder of the starting model, which is trained if none is given."""
        if self.hparams["source"]:
            return Path(self.hparams["source"])
        folder, yaml = self.folder / "start", self.hparams["start_yaml"]
        given = self.hparams["start_overrides"]
        Stages(folder).run(
            "train",
            {**self.corpus, "yaml": digest(self.yamls / yaml), **given},
            lambda: self._run(yaml, folder, given),
        )
        return folder

    def _verify(self, source):
        """Error rates of the starting model."""
        model = Pretrained(source, self.device)
        path = self.folder / "start.json"

        def work():
            trials = TrialList(
                read_trials(self.manifests / "trials.txt"),
                experiment.tested(self.manifests),
                name="test trials",
            )
            report = verify(
                model.encoder, trials, self.device, label="starting model"
            )
            write_json(without_scores(report), path)

        inputs = {**self.corpus, "weights": digest(model.encoder)}
        Stages(self.folder).run("verify", inputs, work)
        return _read(path)

    def _cluster(self, folder, source, number):
        """Embeddings, clusters and the labelled manifest of a round."""
        model = Pretrained(source, self.device)
        stages = Stages(folder)
        inputs = {**self.corpus, "weights": digest(model.encoder)}
        path = folder / "embeddings.npy"
        stages.run("embed", inputs, lambda: self._embed(model, path))
        find, trust = self.hparams["clusters"], self.hparams["trusted"]

        def work():
            found = find(np.load(path), device=str(self.device))
            self._label(folder, found, number)

        inputs = {**inputs, **find.keywords, **trust.keywords}
        stages.run("cluster", inputs, work)

    def _embed(self, model, path):
        vectors = embed_starts(model.encoder, self.rows, self.device)
        with replaced_when_done(path) as temporary:
            np.save(temporary, vectors)

    def _label(self, folder, found, number):
        """Write labels, the manifest and the figures of a round."""
        kept = self.hparams["trusted"](found.labels, found.silhouettes)
        names = np.char.add("cluster_", found.labels[kept].astype(str))
        write_manifest(
            self.rows.iloc[kept].assign(spk_id=names), folder / "train.csv"
        )
        with replaced_when_done(folder / "labels.npz") as temporary:
            np.savez(
                temporary,
                labels=found.labels,
                silhouettes=found.silhouettes,
                kept=kept,
            )
        before = None
        if number > 1:
            last = self.folder / f"round_{number - 1}" / "labels.npz"
            before = np.load(last)["labels"]
        # From here on only figures: true speakers, where there are any.
        speakers = self.rows["spk_id"].to_numpy()
        known = 1 < len(set(speakers)) < len(speakers)
        speakers = speakers if known else None
        figures = describe(found.labels, kept, before, speakers)
        considered = [tried._asdict() for tried in found.considered]
        if known:
            for tried in considered:
                tried.update(agreement(found.at(tried["clusters"]), speakers))
            figures["tracking"] = tracking(considered)
        figures["considered"] = considered
        write_json(figures, folder / "clusters.json")

    def _train(self, folder, source, labelled):
        """Train on a manifest from the weights of a model."""
        model = Pretrained(source, self.device)
        weights = folder / "embedding_model.ckpt"
        yaml = self.hparams["round_yaml"]
        given = {
            **self.hparams["round_overrides"],
            **{k: model.hparams[k] for k in NETWORK if k in model.hparams},
            "labelled": str(labelled),
            "manifests": str(self.manifests),
            "embedding_weights": str(weights),
        }
        inputs = {
            **self.corpus,
            "weights": digest(model.encoder),
            "yaml": digest(self.yamls / yaml),
            "labels": digest(labelled),
            **given,
        }
        # the teacher of DINO holds an encoder
        encoder = getattr(model.encoder, "encoder", model.encoder)
        refuse(
            str(source),
            []
            if hasattr(encoder, "embedding_model")
            else ["its encoder has no embedding_model to start from"],
            "Give a model with SpeechBrain's ECAPA_TDNN, such as dino.yaml's.",
        )

        def work():
            with replaced_when_done(weights) as temporary:
                torch.save(encoder.embedding_model.state_dict(), temporary)
            self._run(yaml, folder / "train", given)

        Stages(folder).run("train", inputs, work)

    def _run(self, yaml, folder, given):
        given = {
            **given,
            "seed": self.hparams["seed"],
            "output_folder": str(folder),
        }
        arguments = [
            f"--{k}={json.dumps(v, ensure_ascii=False)}"
            for k, v in given.items()
        ]
        experiment.start([str(self.yamls / yaml), *arguments], self.options)

    def _draw(self, reports, figures):
        """One picture: error rates and clusters over the rounds."""
        curves = {
            "EER %": [
                (number, 100 * report["clean"]["eer"])
                for number, report in enumerate(reports.values())
            ]
        }
        for name in ("clusters", "kept", "stability"):
            curves[name] = [
                (number, figure[name])
                for number, figure in enumerate(figures, 1)
                if name in figure
            ]
        for name in ("nmi", "ari", "purity"):
            curves[f"speakers: {name}"] = [
                (number, figure["speakers"][name])
                for number, figure in enumerate(figures, 1)
                if "speakers" in figure
            ]
        curves = {name: line for name, line in curves.items() if line}
        path = self.folder / "plots" / "rounds.png"
        plots.plot_curves(curves, path, "round (0: start)", "")


def _read(path):
    return json.loads(path.read_text(encoding="utf-8"))
