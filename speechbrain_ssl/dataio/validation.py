"""Validation trials drawn from a manifest."""

import numpy as np
import pandas as pd
from numpy.random import Generator

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.manifest import identity_of
from speechbrain_ssl.dataio.trials import as_trials


def make_trials(
    rows: pd.DataFrame, seed: int, targets: int = 1000, nontargets: int = 3000
) -> pd.DataFrame:
    """Validation trials from a labelled manifest, the same for the same seed.

    Speakers take turns, so that they are as evenly used as the rows allow. A
    speaker's target trials join two sessions (folders) where there are any,
    then two files, then two pieces of one file. No trial occurs twice, in
    either order. The list is shorter than asked for when the rows allow no
    more trials. Not a benchmark: sessions and speakers are those of the rows.

    Arguments
    ---------
    rows : pandas.DataFrame
        Manifest rows; `spk_id` is read.
    seed : int
        Of the random choice.
    targets, nontargets : int
        Trials of each kind, at least 1.

    Returns
    -------
    pandas.DataFrame
        Columns as from `read_trials`, named by the rows' `ID`; target trials
        come first.

    Raises
    ------
    BadInputError
        If there are fewer than two speakers, no speaker with two rows, or a
        number of trials below 1.

    Example
    -------
    >>> names = ["a/1/x", "a/2/y", "b/1/z"]
    >>> rows = pd.DataFrame({"ID": names, "wav": names, "spk_id": list("aab")})
    >>> make_trials(rows, seed=0)["target"].tolist()
    [1, 0, 0]
    """
    sizes = rows["spk_id"].value_counts()
    problems = []
    if len(sizes) < 2:
        problems.append(f"{len(sizes)} of the 2 speakers needed are there")
    if not (sizes > 1).any():
        problems.append("no speaker has the two rows a target trial needs")
    if min(targets, nontargets) < 1:
        given = f"targets={targets}, nontargets={nontargets}"
        problems.append(f"{given} was asked for; each is at least 1")
    advice = "Give more speakers or rows (`halve` makes two of one) or a list."
    refuse("validation trials", problems, advice)
    generator = np.random.default_rng(seed)
    rows = _taking_turns(rows, generator)
    pairs = [
        _target_pairs(rows, generator, targets),
        _nontarget_pairs(rows, nontargets),
    ]
    names = rows["ID"].astype(str).to_numpy(dtype=object)
    enrol, test = np.concatenate(pairs, axis=1)
    labels = np.repeat(np.array([1, 0]), [pair.shape[1] for pair in pairs])
    return as_trials(labels, names[enrol], names[test])


def _taking_turns(rows: pd.DataFrame, generator: Generator) -> pd.DataFrame:
    """Rows shuffled so that speakers alternate, and sessions within each.

    Any leading part of the result covers as many speakers as it can, and of
    each speaker as many sessions as it can.
    """
    rows = rows[["ID"]].assign(
        speaker=pd.factorize(rows["spk_id"])[0],
        session=pd.factorize(identity_of(rows, "session"))[0],
        file=pd.factorize(rows["wav"])[0],
    )
    rows = rows.iloc[generator.permutation(len(rows))]
    for group in (["speaker", "session"], ["speaker"]):
        turns = rows.groupby(group).cumcount().to_numpy()
        rows = rows.iloc[np.argsort(turns, kind="stable")]
    return rows


def _in_turns(groups: np.ndarray, most: int) -> np.ndarray:
    """Positions of the first `most` items when the groups take turns."""
    turns = pd.Series(groups).groupby(groups).cumcount().to_numpy()
    return np.argsort(turns, kind="stable")[:most]


def _target_pairs(
    rows: pd.DataFrame, generator: Generator, targets: int
) -> np.ndarray:
    """Positions of two rows of one speaker, (2, targets) or fewer."""
    members = rows.groupby("speaker").indices.values()
    members = [own for own in members if len(own) > 1]
    sizes = np.array([len(own) for own in members])
    most = 32  # rows of a speaker: all pairs of a large corpus are too many
    enough = min(16 * targets, (sizes**2).sum())
    while (np.minimum(sizes, most) ** 2).sum() < enough:
        most *= 2
    members = [own[:most] for own in members]
    pairs = [own[np.stack(np.triu_indices(len(own), 1))] for own in members]
    pairs = np.concatenate(pairs, axis=1)
    pairs = pairs[:, generator.permutation(pairs.shape[1])]
    speaker, session, file = (
        rows[name].to_numpy()[pairs] for name in ("speaker", "session", "file")
    )
    alike = 1 * (session[0] == session[1]) + (file[0] == file[1])
    order = np.argsort(alike, kind="stable")
    return pairs[:, order[_in_turns(speaker[0][order], targets)]]


def _nontarget_pairs(rows: pd.DataFrame, nontargets: int) -> np.ndarray:
    """Positions of two rows of two speakers, (2, nontargets) or fewer."""
    speaker = rows["speaker"].to_numpy()[: 4 * nontargets]
    positions = np.arange(len(speaker))
    chosen, found = [], 0
    # Each row with the one `step` further on: every pair is met once.
    for step in range(1, len(speaker)):
        near = np.stack([positions[:-step], positions[step:]])
        chosen.append(near[:, speaker[near[0]] != speaker[near[1]]])
        found += chosen[-1].shape[1]
        if found >= 10 * nontargets:
            break
    pairs = np.concatenate(chosen, axis=1)
    low, high = np.sort(speaker[pairs], axis=0)
    return pairs[:, _in_turns(low * len(rows) + high, nontargets)]
