"""Embeddings of every utterance of a manifest."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple, Optional, Union

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from speechbrain_ssl.checks import check_sizes, refuse
from speechbrain_ssl.dataio.audio import fit_length, read_piece
from speechbrain_ssl.dataio.manifest import SHORTEST
from speechbrain_ssl.evaluation.interference import Interference
from speechbrain_ssl.si_snr import si_snr_matrix

RATE = 16000  # Hz
MOST_SAMPLES = RATE * 60  # of one batch; bounds memory
MOST_SECONDS = 20  # of an utterance, for `embed_starts`
READERS = 4  # threads that read the next batch meanwhile


class Embeddings(NamedTuple):
    """One row per utterance of a manifest.

    Arguments
    ---------
    vectors : numpy.ndarray
        (N, C, D) float32, one vector per slot; C is 1 for encoders that do
        not separate.
    energies : numpy.ndarray
        (N, C) energy of the slot's waveform; ones when C is 1.
    improvement : float or None
        Mean SI-SNR improvement over the mixture in decibels, when there was
        interference and the encoder separates.
    """

    vectors: np.ndarray
    energies: np.ndarray
    improvement: Optional[float] = None


class Utterances:
    """Waves of manifest rows, one a row.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows.
    """

    def __init__(self, rows: pd.DataFrame):
        self.files = rows[["wav", "start", "stop"]].to_numpy()
        self.samples = (rows["stop"] - rows["start"]).to_numpy()

    def read(self, number: int) -> torch.Tensor:
        """Wave of an utterance, (T,)."""
        return read_piece(*self.files[number])


class JoinedCuts(Utterances):
    """Waves of enrolment models, the cuts of each one after the other.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows of the cuts.
    members : sequence of numpy.ndarray
        Rows of each model, in the order of joining.
    """

    def __init__(self, rows: pd.DataFrame, members: Sequence[np.ndarray]):
        super().__init__(rows)
        self.members = members
        self.samples = np.array([self.samples[own].sum() for own in members])

    def read(self, number: int) -> torch.Tensor:
        """Wave of a model, (T,)."""
        own = [read_piece(*self.files[row]) for row in self.members[number]]
        return torch.cat(own)


class EvenPieces:
    """Pieces of one length, evenly spaced over each utterance.

    The first begins with the utterance and the last ends with it; one that
    is shorter is repeated.

    Arguments
    ---------
    waves : Utterances
        What is cut.
    pieces : int
        Of each utterance; they overlap where it is short.
    samples : int
        Of a piece.
    """

    def __init__(self, waves: Utterances, pieces: int, samples: int):
        self.waves, self.pieces = waves, pieces
        self.samples = np.full(pieces * len(waves.samples), samples)

    def read(self, number: int) -> torch.Tensor:
        """Wave of a piece; those of an utterance follow each other."""
        row, piece = divmod(number, self.pieces)
        wave, length = self.waves.read(row), int(self.samples[number])
        slack = max(0, len(wave) - length)
        start = slack * piece // max(1, self.pieces - 1)
        return fit_length(wave[start:], length)


@torch.no_grad()
def embed(
    encoder: nn.Module,
    rows: Union[pd.DataFrame, Utterances, EvenPieces],
    device: torch.device,
    interference: Optional[Interference] = None,
    label: str = "embeddings",
    show: bool = True,
    padding: float = 0.0,
) -> Embeddings:
    """Embed each row once, in batches of equal length, or nearly so.

    By default only utterances with the same number of samples share a batch:
    no padding reaches the encoder and the batch changes no embedding.

    Arguments
    ---------
    encoder : torch.nn.Module
        (B, T) waveforms to `Slots`, or to a tensor (B, D).
    rows : pandas.DataFrame or Utterances or EvenPieces
        Manifest rows, or what else has `samples` and `read`.
    device : torch.device
        Where the encoder is.
    interference : Interference, optional
        Mixes another talker into every utterance.
    label : str
        Of the progress bar, which appears after five seconds.
    show : bool
        Whether it may appear.
    padding : float
        Share of a wave that may be padding, below 1. Its frames mirror those
        before and are left out of means; at 0.1 an embedding of a trained
        ECAPA has a cosine above 0.999 with that of the wave alone. Not with
        interference.

    Returns
    -------
    Embeddings

    Raises
    ------
    BadInputError
        If a file cannot be read, or `padding` is out of range or with an
        encoder that takes none.
    """
    fits = 0 <= padding < 1 and (
        not padding or getattr(encoder, "takes_lengths", False)
    )
    expected = "0, or below 1 with an encoder that takes padding: ECAPA-TDNN"
    check_sizes(padding=(fits, padding, expected))
    if interference is not None:
        padding = 0.0
    training = encoder.training
    encoder.eval()
    source = Utterances(rows) if isinstance(rows, pd.DataFrame) else rows
    total = len(source.samples)
    results, gains = [None] * total, []
    bar = tqdm(total=total, desc=label, delay=5, disable=not show)
    batches = _near_lengths(source.samples, padding)
    for batch, waves in _read_ahead(source, batches):
        samples = torch.tensor([len(wave) for wave in waves])
        lengths = samples.to(device) if padding else None
        clean = waves = pad_sequence(waves, batch_first=True)
        if interference is not None:
            talkers = torch.stack([interference.talker(i) for i in batch])
            waves = interference.mix(clean, talkers)
        try:
            found = _run(encoder, waves.to(device), lengths)
        except RuntimeError as error:
            _refuse_short(source, batch, samples, error)
            raise
        vectors, energies, estimates = found
        for place, i in enumerate(batch):
            results[i] = vectors[place], energies[place]
        if interference is not None and estimates is not None:
            sources = torch.stack([clean, waves - clean], dim=1).to(device)
            gains.append(_improvement(estimates, waves.to(device), sources))
        bar.update(len(batch))
    bar.close()
    encoder.train(training)
    return Embeddings(
        np.stack([vector for vector, _ in results]),
        np.stack([energy for _, energy in results]),
        float(torch.cat(gains).mean()) if gains else None,
    )


def _refuse_short(source, batch, samples, error):
    """Name the utterance where one is too short for the encoder."""
    shortest = int(samples.argmin())
    name = f"number {batch[shortest]}"
    if type(source) is Utterances:
        name = source.files[batch[shortest]][0]
    refuse(
        "embeddings",
        [f"{name}: {samples[shortest]} samples are too few ({error})"]
        if samples[shortest] < SHORTEST * RATE
        else [],
        "Leave such utterances out.",
    )


@torch.no_grad()
def probe_vector(encoder: nn.Module, device: torch.device) -> list[float]:
    """What an encoder makes of a second of fixed noise: which model it is.

    The same, but for rounding, on any device and in an exported folder.

    Arguments
    ---------
    encoder, device
        As in `embed`.

    Returns
    -------
    list of float
        Its embedding, of several slots the loudest one's; unit length.
    """
    training = encoder.training
    wave = probe_wave().to(device)
    vectors, energies, _ = _run(encoder.eval(), wave, None)
    encoder.train(training)
    return as_direction(vectors[0, energies[0].argmax()])


def probe_wave() -> torch.Tensor:
    """The noise of `probe_vector`, (1, 16000)."""
    draw = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(1, RATE, generator=draw)


def as_direction(vector: np.ndarray) -> list[float]:
    """Numbers of a vector made as long as one, four digits each."""
    unit = vector / np.linalg.norm(vector)
    return [round(float(value), 4) for value in unit]


def embed_starts(
    encoder: nn.Module, rows: pd.DataFrame, device: torch.device
) -> np.ndarray:
    """One vector for the first `MOST_SECONDS` of each utterance.

    For many utterances: lengths are cut to quarters of a second, so that more
    of them share a batch. With several slots the loudest one counts.

    Arguments
    ---------
    encoder, rows, device
        As in `embed`; 16 kHz.

    Returns
    -------
    numpy.ndarray
        (N, D) float32.
    """
    samples = (rows["stop"] - rows["start"]).clip(upper=MOST_SECONDS * RATE)
    samples = samples - (samples % (RATE // 4)).where(samples >= RATE, 0)
    starts = rows.assign(stop=rows["start"] + samples)
    vectors, energies, _ = embed(encoder, starts, device)
    return vectors[np.arange(len(vectors)), energies.argmax(1)]


def _near_lengths(lengths, padding):
    """Row numbers by length, longest first: memory peaks at once."""
    order = np.argsort(-lengths, kind="stable")
    rising, first = -lengths[order], 0
    while first < len(order):
        longest = -rising[first]
        shortest = np.ceil(longest * (1 - padding))
        near = np.searchsorted(rising, -shortest, side="right")
        last = min(near, first + max(1, MOST_SAMPLES // int(longest)))
        yield order[first:last]
        first = last


def _read_ahead(source, batches):
    """Row numbers and waves of each batch; the next one is being read."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting = None
        for batch in chain(batches, [None]):
            coming = batch is not None and pool.map(source.read, batch)
            if waiting:
                yield waiting[0], list(waiting[1])
            waiting = batch, coming


def _run(encoder, waves, lengths):
    more = {} if lengths is None else {"lengths": lengths}
    output = encoder(waves, **more)
    if isinstance(output, torch.Tensor):
        vectors = output.float().cpu().numpy()[:, None]
        return vectors, np.ones(vectors.shape[:2], np.float32), None
    energies = output.estimates.float().square().sum(-1)
    vectors = output.embeddings.float().cpu().numpy()
    return vectors, energies.cpu().numpy(), output.estimates


def _improvement(estimates, mixtures, sources):
    """SI-SNRi of the two best-matching slots, mean over both talkers."""
    before = si_snr_matrix(mixtures[:, None], sources)[:, 0]  # (B, 2)
    after = si_snr_matrix(estimates, sources)  # (B, C, 2)
    slots = range(after.shape[1])
    pairs = [(a, b) for a in slots for b in slots if a != b]
    best = torch.stack(
        [after[:, a, 0] + after[:, b, 1] for a, b in pairs]
    ).amax(0)
    return ((best - before.sum(1)) / 2).cpu()
