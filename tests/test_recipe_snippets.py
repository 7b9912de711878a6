"""The README's lines for recipes of SpeechBrain, in a Brain as theirs."""

import re

import pytest
import speechbrain as sb
import torch
from conftest import REPOSITORY
from hyperpyyaml import load_hyperpyyaml

BASE = """
sample_rate: 16000
n_mels: 40
out_n_neurons: 4
save_folder: !PLACEHOLDER
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [8, 8, 8, 8, 24]
    attention_channels: 64
    se_channels: 64
    lin_neurons: {dim}
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
opt_class: !name:torch.optim.Adam
    lr: 0.003
"""
STOCK = """
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 16
    out_neurons: !ref <out_n_neurons>
compute_cost: !new:speechbrain.nnet.losses.LogSoftmaxWrapper
    loss_fn: !new:speechbrain.nnet.losses.AdditiveAngularMargin
        margin: 0.2
        scale: 30
error_stats: !name:speechbrain.utils.metric_stats.MetricStats
    metric: !name:speechbrain.nnet.losses.classification_error
        reduction: batch
modules:
    compute_features: !ref <compute_features>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
    mean_var_norm: !ref <mean_var_norm>
"""


class SpeakerBrain(sb.Brain):
    """Uses the YAML's keys as `train_speaker_embeddings.py` does."""

    def on_fit_start(self):
        super().on_fit_start()
        self.losses, self.valid_losses = [], []

    def compute_forward(self, batch, stage):
        waves, _ = batch
        if stage == sb.Stage.TRAIN:  # as its augmentation enlarges a batch
            waves = torch.cat([waves, waves + 0.05 * torch.randn_like(waves)])
        lengths = torch.ones(len(waves))
        features = self.modules.compute_features(waves)
        features = self.modules.mean_var_norm(features, lengths)
        embeddings = self.modules.embedding_model(features, lengths)
        return self.modules.classifier(embeddings), lengths

    def compute_objectives(self, predictions, batch, stage):
        outputs, lengths = predictions
        labels = batch[1]
        if stage == sb.Stage.TRAIN:
            labels = torch.cat([labels, labels])
        loss = self.hparams.compute_cost(outputs, labels, lengths)
        if stage != sb.Stage.TRAIN:
            self.valid_losses.append(float(loss))
            ids = [str(i) for i in range(len(labels))]
            self.errors.append(ids, outputs, labels, lengths)
        return loss

    def on_stage_start(self, stage, epoch=None):
        self.errors = self.hparams.error_stats()

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        self.losses.append(float(loss))


def snippet(key):
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (block,) = [block for block in blocks if key in block]
    return block


def fit(text, tmp_path):
    sb.utils.seed_everything(3)
    hparams = load_hyperpyyaml(text, {"save_folder": str(tmp_path)})
    brain = SpeakerBrain(
        hparams["modules"],
        hparams["opt_class"],
        hparams,
        {"device": "cpu", "noprogressbar": True},
    )
    time = torch.arange(8000) / 16000
    pitches = torch.tensor([110.0, 170.0, 260.0, 400.0]).repeat(2)
    waves = torch.sin(2 * torch.pi * pitches[:, None] * time)
    waves = waves + 0.05 * torch.randn_like(waves)
    batch = waves, torch.arange(4).repeat(2)[:, None]
    loader = torch.utils.data.DataLoader([batch], batch_size=None)
    brain.fit(range(12), loader, loader)
    return brain


def test_exported_weights_start_a_stock_recipe(exported, tmp_path):
    lines = snippet("torch_parameter_transfer")
    lines = lines.replace("my-dino", str(exported / "dino"))
    text = BASE.format(dim=16) + STOCK + lines
    hparams = load_hyperpyyaml(text, {"save_folder": str(tmp_path)})
    theirs = torch.load(exported / "dino" / "embedding_model.ckpt")
    ours = hparams["embedding_model"].state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    brain = fit(text, tmp_path)
    assert brain.losses[-1] < brain.losses[0]


def test_our_losses_train_a_stock_recipe(tmp_path):
    text = BASE.format(dim=192) + snippet("RecipeCost")
    brain = fit(text, tmp_path)
    assert brain.losses[-1] < 0.8 * brain.losses[0]
    trained = dict(brain.modules.named_parameters())["aam.weight"]
    assert (
        trained.grad is None
    )  # zeroed after the step: it was in the optimiser
    moved = brain.optimizer.state[trained]["exp_avg"].abs().sum()
    assert moved > 0
    (row,) = {round(score.item(), 5) for score in brain.errors.scores}
    assert row == pytest.approx(brain.valid_losses[-1], rel=1e-4)
