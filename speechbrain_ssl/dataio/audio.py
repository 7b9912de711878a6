"""Reading pieces of audio files."""

import numpy as np
import soundfile
import torch

from speechbrain_ssl.checks import BadInputError


def read_piece(path: str, start: int, stop: int) -> torch.Tensor:
    """Samples `start` to `stop` of a mono file, read by seeking.

    Arguments
    ---------
    path : str
        WAV, FLAC or another format of soundfile.
    start, stop : int
        Samples, start < stop.

    Returns
    -------
    torch.Tensor
        (stop - start,) float32.

    Raises
    ------
    BadInputError
        If the file cannot be read, ends early, has more than one channel or
        holds values that are not finite.
    """
    try:
        with soundfile.SoundFile(path) as file:
            channels = file.channels
            file.seek(start)
            wave = file.read(stop - start, dtype="float32")
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise BadInputError(
            f"{path} cannot be read ({error}); repair or remove the file and "
            "run the preparation again"
        ) from error
    if channels != 1:
        raise BadInputError(
            f"{path} has {channels} channels; one is expected. Mix it "
            "down and run the preparation again"
        )
    if len(wave) != stop - start or not np.isfinite(wave).all():
        fault = (
            "ends early" if len(wave) != stop - start else "holds NaN or inf"
        )
        raise BadInputError(
            f"{path} {fault} between samples {start} and {stop}; the file "
            "changed or is damaged: run the preparation again"
        )
    return torch.from_numpy(wave)


def fit_length(wave: torch.Tensor, samples: int) -> torch.Tensor:
    """Repeat a wave that is too short, cut one that is too long.

    Arguments
    ---------
    wave : torch.Tensor
        (T,), T at least 1.
    samples : int
        Wanted length.

    Returns
    -------
    torch.Tensor
        (samples,).

    Example
    -------
    >>> fit_length(torch.tensor([1.0, 2.0]), 5)
    tensor([1., 2., 1., 2., 1.])
    """
    if len(wave) < samples:
        wave = wave.repeat(-(-samples // len(wave)))
    return wave[:samples]


def level(wave: torch.Tensor) -> torch.Tensor:
    """Root mean square along time, never zero.

    Arguments
    ---------
    wave : torch.Tensor
        (..., T).

    Returns
    -------
    torch.Tensor
        (...,).
    """
    return wave.square().mean(-1).sqrt().clamp(min=1e-8)
