"""An interfering talker in test utterances, the same one every time."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.audio import fit_length, level, read_piece


class Interference:
    """Mixes a talker from outside the trial into test utterances.

    The talker of an utterance is drawn from the seed and the utterance's ID
    alone and is one whose speaker takes part in none of its trials, so each
    utterance needs one embedding per level, whatever its number of trials.
    The same talker and crop serve every level.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows of the test utterances.
    pool : pandas.DataFrame
        Manifest rows of the interferers.
    involved : sequence of set of str
        For each test row the speakers of all its trials.
    sir_db : float
        Signal-to-interference ratio in decibels over the whole utterance.
    seed : int
        Of the draws.

    Raises
    ------
    BadInputError
        If no speaker of the pool is outside an utterance's trials.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        pool: pd.DataFrame,
        involved: Sequence[set],
        sir_db: float,
        seed: int,
    ):
        self.rows, self.pool = rows, pool
        self.sir_db = sir_db
        codes, speakers = pd.factorize(pool["spk_id"])
        self.plans, problems = [], []
        for row, others in enumerate(involved):
            name = rows["ID"].iat[row]
            outside = ~np.isin(speakers, list(others))
            free = np.flatnonzero(outside[codes])
            if len(free) == 0:
                problems.append(f"all speakers of the pool meet '{name}'")
                continue
            digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
            draw = np.random.default_rng(int.from_bytes(digest[:8], "big"))
            self.plans.append((int(draw.choice(free)), draw.random()))
        refuse(
            "interfering talkers",
            problems,
            "Give a pool of interferers with more speakers, for example the "
            "validation manifest.",
        )

    def talker(self, row: int) -> torch.Tensor:
        """The interferer of a test row, as long as the test utterance.

        Arguments
        ---------
        row : int
            Number of the test row.

        Returns
        -------
        torch.Tensor
            (T,), a random piece; repeated where it is shorter.
        """
        samples = int(self.rows["stop"].iat[row] - self.rows["start"].iat[row])
        other, place = self.plans[row]
        first = int(self.pool["start"].iat[other])
        last = int(self.pool["stop"].iat[other])
        start = first + int(place * max(0, last - first - samples))
        stop = min(last, start + samples)
        wave = read_piece(self.pool["wav"].iat[other], start, stop)
        return fit_length(wave, samples)

    def mix(self, waves: torch.Tensor, talkers: torch.Tensor) -> torch.Tensor:
        """Utterances with their talkers at the signal-to-interference ratio.

        Arguments
        ---------
        waves : torch.Tensor
            (B, T) test utterances.
        talkers : torch.Tensor
            (B, T) interferers.

        Returns
        -------
        torch.Tensor
            (B, T).
        """
        ratio = level(waves) / level(talkers) * 10 ** (-self.sir_db / 20)
        return waves + talkers * ratio[:, None]
