"""One CSC training step by part, beside SpeechBrain's PIT and separators.

python benchmarks/csc_step.py [--threads 2] [--repeats 5]

Prints the least of a few repeats in milliseconds and ratios measured side by
side in this process; other load on the machine moves the times.
"""

import argparse
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import soundfile
import torch
from speechbrain.lobes.models.dual_path import (
    Decoder,
    Dual_Path_Model,
    Encoder,
    SBRNNBlock,
)
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.nnet.losses import get_si_snr_with_pitwrapper
from timing import least

from speechbrain_ssl.dataio.audio import read_piece
from speechbrain_ssl.dataio.mixtures import MixtureDataset, MixtureSampler
from speechbrain_ssl.lobes.aggregator import CrossConditionAggregator
from speechbrain_ssl.lobes.csc import SeparativeECAPA, SeparativeEncoder
from speechbrain_ssl.losses.csc import CSCLoss, SISNRLoss

SAMPLES = 24000  # 1.5 s at 16 kHz


def corpus(folder, files=64):
    """Manifest rows of noise files."""
    draw = np.random.default_rng(1)
    rows = []
    for number in range(files):
        path = Path(folder) / f"{number}.wav"
        soundfile.write(path, draw.normal(0, 0.1, 64000), 16000)
        rows.append((str(path), 0, 64000))
    return pd.DataFrame(rows, columns=["wav", "start", "stop"])


class DualPathRNN(torch.nn.Module):
    """SpeechBrain's DPRNN separator, for the cost of a separator of its size."""

    def __init__(self, channels, hidden, layers, window, size):
        super().__init__()
        self.encoder = Encoder(kernel_size=window, out_channels=channels)
        block = SBRNNBlock(channels, hidden, 1, bidirectional=True)
        self.masks = Dual_Path_Model(
            channels, channels, block, block, layers, K=size, num_spks=2
        )
        self.decoder = Decoder(
            channels, 1, kernel_size=window, stride=window // 2, bias=False
        )

    def forward(self, mixtures):
        """(B, T) mixtures to (B, 2, T) estimates."""
        encoded = self.encoder(mixtures)
        return torch.stack(
            [self.decoder(encoded * mask) for mask in self.masks(encoded)], 1
        )


def millions(module):
    """Parameters in millions."""
    return sum(p.numel() for p in module.parameters()) / 1e6


def separative_ecapa(channels, attention):
    """Log-mel masks and an ECAPA-TDNN of a size."""
    ecapa = ECAPA_TDNN(
        80,
        channels=[channels] * 4 + [3 * channels],
        attention_channels=attention,
        se_channels=attention,
    )
    return SeparativeECAPA(ecapa)


def encoders():
    """The separative encoders, small and as published, and a DPRNN."""
    return {
        "SeparativeECAPA 128": separative_ecapa(128, 64),
        "SeparativeECAPA 512": separative_ecapa(512, 128),
        "SeparativeEncoder (GALR)": SeparativeEncoder(
            window=64,
            channels=32,
            trunk_blocks=2,
            separation_blocks=1,
            speaker_blocks=1,
            segment_frames=50,
            hidden=32,
            global_frames=8,
            heads=4,
        ),
        "SpeechBrain DPRNN, no speaker branch": DualPathRNN(
            channels=32, hidden=32, layers=4, window=64, size=50
        ),
    }


def main():
    """Print the parts of a step and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)  # as in a loader's worker
    with tempfile.TemporaryDirectory() as folder:
        rows = corpus(folder)
        sampler = MixtureSampler(
            rows, "utterance", 16, 2, 2, 0.1, 5.0, 1, SAMPLES, seed=1
        )
        dataset = MixtureDataset(rows, 2, SAMPLES)

        def mix():
            return [dataset[plan] for plan in sampler.plan(1, 0)]

        repeats = 4 * arguments.repeats
        together = least(mix, repeats)
        items = mix()
        crop = read_piece(rows["wav"][0], 0, SAMPLES)
        reader = f"{MixtureDataset.__module__}.read_piece"
        with mock.patch(reader, lambda path, start, stop: crop):
            mixing = least(mix, repeats)
    torch.set_num_threads(arguments.threads)
    mixtures = torch.stack([item["mixture"] for item in items])
    sources = torch.stack([item["sources"] for item in items])
    print(
        f"batch of {len(mixtures)} mixtures of 1.5 s at 16 kHz, torch "
        f"{torch.__version__}, {arguments.threads} threads; milliseconds"
    )
    print(f"  reading and mixing, no augmentation  {together:9.1f}")
    print(f"  mixing, crops in memory              {mixing:9.1f}")
    heads(mixtures, sources, arguments.repeats)
    for name, encoder in encoders().items():
        step(name, encoder, mixtures, sources, mixing, arguments.repeats)


def heads(mixtures, sources, repeats):
    """Aggregator with loss, and PIT against SpeechBrain's, with backward."""
    embeddings = torch.randn(32, 192, requires_grad=True)
    identities = torch.arange(32) % 16
    aggregator, loss = CrossConditionAggregator(192), CSCLoss()

    def contrast():
        unit = torch.nn.functional.normalize(embeddings, dim=-1)
        loss(unit, aggregator(unit, identities, 2), identities).backward()

    print(
        f"  aggregator + CSC loss, both ways     {least(contrast, repeats):9.1f}"
    )
    estimates = (sources + 0.3 * torch.randn_like(sources)).requires_grad_()
    separation = SISNRLoss()

    def gram():
        separation(estimates, sources)[0].backward()

    def stock():
        get_si_snr_with_pitwrapper(
            sources.transpose(1, 2), estimates.transpose(1, 2)
        ).mean().backward()

    ours, theirs = least(gram, repeats), least(stock, repeats)
    print(f"  PIT SI-SNR in Gram form, both ways   {ours:9.1f}")
    print(
        f"  SpeechBrain's PitWrapper, both ways  {theirs:9.1f}"
        f"  ({theirs / ours:.1f} times ours)"
    )


def step(name, encoder, mixtures, sources, mixing, repeats):
    """Forward and both ways of one encoder; the share of mixing."""
    separation = SISNRLoss()

    def forward():
        output = encoder(mixtures)
        return output if isinstance(output, torch.Tensor) else output.estimates

    def both():
        separation(forward(), sources)[0].backward()

    ahead, whole = least(forward, repeats), least(both, repeats)
    print(
        f"  {name} ({millions(encoder):.2f} M): forward {ahead:.0f}, both ways "
        f"{whole:.0f}; mixing is {100 * mixing / (mixing + whole):.1f} % of a step"
    )


if __name__ == "__main__":
    main()
