"""Speaker verification of a trial list, clean and with interferers."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

import numpy as np
import pandas as pd
import torch
from torch import nn

from speechbrain_ssl.checks import refuse, summarise
from speechbrain_ssl.dataio.scores import write_scores
from speechbrain_ssl.dataio.trials import resolve_trials
from speechbrain_ssl.evaluation.embed import Embeddings, Utterances, embed
from speechbrain_ssl.evaluation.enrolment import (
    Setting,
    embed_in_parts,
    enrol_models,
)
from speechbrain_ssl.evaluation.interference import Interference
from speechbrain_ssl.evaluation.metrics import verification_metrics
from speechbrain_ssl.evaluation.quality import quality_measures
from speechbrain_ssl.evaluation.scoring import RULES
from speechbrain_ssl.evaluation.table import embed_to_table

logger = logging.getLogger(__name__)

ARRAYS = ("scores", "measures")  # one value a trial: not for JSON


class TrialList:
    """A trial list bound to the utterances it names and its interferers.

    Arguments
    ---------
    trials : pandas.DataFrame
        Columns target, enrol, test.
    rows : pandas.DataFrame
        Manifest rows of all utterances of the list; others are left out.
    pool : pandas.DataFrame, optional
        Manifest of interfering talkers; needed with `sirs_db`.
    sirs_db : sequence of float
        Signal-to-interference ratios of the interfered conditions, decibels.
    name : str
        Of the list, for messages.
    seed : int
        Of the interferers.
    models : pandas.DataFrame, optional
        Columns model and ID, one row a cut: enrolment sides then name models.
    noises : pandas.DataFrame, optional
        Rows of noise files; needed with `snrs_db`.
    snrs_db : sequence of float
        Signal-to-noise ratios of the noisy conditions, decibels.

    Raises
    ------
    BadInputError
        If a trial names an unknown utterance or comes with both labels, or
        an utterance has no interferer whose speaker is outside its trials.
    """

    def __init__(
        self,
        trials: pd.DataFrame,
        rows: pd.DataFrame,
        pool: Optional[pd.DataFrame] = None,
        sirs_db: Sequence[float] = (),
        name: str = "trials",
        seed: int = 0,
        models: Optional[pd.DataFrame] = None,
        noises: Optional[pd.DataFrame] = None,
        snrs_db: Sequence[float] = (),
    ):
        self.trials, self.name = trials, name
        if models is None:
            enrol, test = resolve_trials(trials, rows["ID"], name)
            used = np.unique(np.concatenate([enrol, test]))
            self.members, self.enrol_rows = None, np.searchsorted(used, enrol)
        else:
            names, cuts = model_cuts(models, rows["ID"], name)
            enrol, test = resolve_trials(trials, rows["ID"], name, names)
            used = np.unique(np.concatenate([*cuts, test]))
            self.members = [np.searchsorted(used, own) for own in cuts]
            self.enrol_rows = enrol
        _check_repeats(trials, enrol, test, name)
        self.rows = rows.iloc[used].reset_index(drop=True)
        tested, self.test_rows = np.unique(test, return_inverse=True)
        self.tested = np.searchsorted(used, tested)  # rows with a test side
        self.test = self.rows.iloc[self.tested].reset_index(drop=True)
        self.conditions = {"clean": None}
        if len(sirs_db):
            involved = self._speakers_met()
            for sir in sirs_db:
                self.conditions[f"sir_{sir:g}"] = Interference(
                    self.test, pool, involved, sir, seed
                )
        for snr in snrs_db:
            self.conditions[f"snr_{snr:g}"] = Interference(
                self.test, noises, [()] * len(self.test), snr, seed
            )

    @property
    def first_rows(self) -> np.ndarray:
        """Row of each trial's enrolment, the first cut of a model."""
        if self.members is None:
            return self.enrol_rows
        return np.array([own[0] for own in self.members])[self.enrol_rows]

    def _speakers_met(self):
        involved = [{speaker} for speaker in self.test["spk_id"]]
        others = self.rows["spk_id"].to_numpy()[self.first_rows]
        pairs = self.test_rows * len(self.rows) + pd.factorize(others)[0]
        for trial in np.unique(pairs, return_index=True)[1]:
            involved[self.test_rows[trial]].add(others[trial])
        return involved


def _check_repeats(trials, enrol, test, name):
    """Warn of trials that come twice; refuse those with both labels."""
    pairs = pd.Series(enrol * (test.max(initial=0) + 1) + test)
    again = pairs.duplicated().to_numpy()
    if not again.any():
        return
    targets = pd.Series(trials["target"].to_numpy())
    other = targets != targets.groupby(pairs).transform("first")
    shown = trials[["enrol", "test"]].to_numpy()
    problems = [
        f"'{' '.join(shown[row])}' (trial {row + 1}) has both labels"
        for row in np.flatnonzero(other)
    ]
    refuse(name, problems, "Correct or remove these trials.")
    repeats = [
        f"'{' '.join(shown[row])}' (trial {row + 1}) repeats an earlier trial"
        for row in np.flatnonzero(again)
    ]
    logger.warning("%s: %s", name, summarise(repeats))


def model_cuts(
    models: pd.DataFrame, ids: Sequence[str], where: str
) -> tuple[list[str], list[np.ndarray]]:
    """Names of enrolment models and the positions of the cuts of each.

    Arguments
    ---------
    models : pandas.DataFrame
        Columns model and ID, one row a cut.
    ids : sequence of str
        Names of the utterances at hand.
    where : str
        For messages.

    Returns
    -------
    names : list of str
    cuts : list of numpy.ndarray
        In the order of the table.

    Raises
    ------
    BadInputError
        If a cut is not among the utterances.

    Example
    -------
    >>> models = pd.DataFrame({"model": list("mnm"), "ID": list("abc")})
    >>> model_cuts(models, list("abc"), "models.csv")
    (['m', 'n'], [array([0, 2]), array([1])])
    """
    pairs = models.rename(columns={"model": "enrol", "ID": "test"})
    _, rows = resolve_trials(
        pairs.assign(target="cut of"), ids, where, models["model"].unique()
    )
    codes, names = pd.factorize(models["model"])
    cuts = [rows[codes == code] for code in range(len(names))]
    return names.tolist(), cuts


def verify(
    encoder: nn.Module,
    trial_list: TrialList,
    device: torch.device,
    scores_folder: Optional[Union[str, Path]] = None,
    label: str = "",
    show: bool = True,
    setting: Optional[Setting] = None,
) -> dict[str, dict]:
    """Score a trial list under each of its conditions.

    Enrolment is always clean. The figures of a condition are those of the
    rule that fits it (`loudest` slot when clean, `best` slot with an
    interferer); the other rule's are beside them under `rules`.

    Arguments
    ---------
    encoder : torch.nn.Module
        (B, T) waveforms to `Slots` or (B, D).
    trial_list : TrialList
        What to score.
    device : torch.device
        Where the encoder is.
    scores_folder : str or pathlib.Path, optional
        Where `<condition>.txt` with lines "label enrol test score" goes.
    label : str
        Of the progress bars.
    show : bool
        Whether progress bars may appear.
    setting : Setting, optional
        Backend, normalisation, enrolment; by default the cosine.

    Returns
    -------
    dict
        Condition to figures: eer, min_dcf, targets, nontargets, thresholds,
        rule, rules, scores (numpy array, not for JSON) and, where it applies,
        si_snr_improvement in decibels and measures (arrays).

    Raises
    ------
    BadInputError
        If a file cannot be read or the setting does not fit the list.
    """
    setting = setting or Setting()
    interfered = [name for name in trial_list.conditions if name != "clean"]
    refuse(
        "pieces",
        interfered if setting.piece_samples else [],
        "Score these conditions whole: two parts are for clean trials.",
    )
    targets = trial_list.trials["target"].to_numpy()
    rows, label_clean = trial_list.rows, f"{label} clean"
    if setting.tables is not None and not setting.piece_samples:
        path = setting.tables / "clean.npz"
        clean = embed_to_table(
            encoder, rows, path, device, label_clean, show, setting.padding
        )
    else:
        clean = embed_in_parts(
            encoder,
            Utterances(rows),
            device,
            setting.piece_samples,
            label_clean,
            show,
        )
    enrol = clean
    if trial_list.members is not None:
        enrol = enrol_models(
            encoder,
            rows,
            trial_list.members,
            clean,
            setting,
            device,
        )
    report = {}
    for condition, interference in trial_list.conditions.items():
        if interference is None:
            tested = trial_list.tested
            test = Embeddings(clean.vectors[tested], clean.energies[tested])
        else:
            name = f"{label} {condition}"
            test = embed(
                encoder, trial_list.test, device, interference, name, show
            )
        pairs = trial_list.enrol_rows, trial_list.test_rows
        rules = RULES if test.vectors.shape[1] > 1 else ("loudest",)
        scores = {
            rule: setting.scorer(enrol, test, *pairs, rule) for rule in rules
        }
        rule = rules[0] if interference is None else rules[-1]
        figures = verification_metrics(scores[rule], targets)
        figures["rule"] = "loudest" if interference is None else "best"
        if len(rules) > 1:
            figures["rules"] = {
                name: verification_metrics(values, targets)
                for name, values in scores.items()
            }
        if test.improvement is not None:
            figures["si_snr_improvement"] = test.improvement
        figures["scores"] = scores[rule]
        if setting.measures:
            figures["measures"] = quality_measures(
                setting.scorer, trial_list, enrol, test
            )
        report[condition] = figures
        if scores_folder is not None:
            path = Path(scores_folder) / f"{condition}.txt"
            write_scores(trial_list.trials, scores[rule], path)
    return report


def without_scores(report: dict[str, dict]) -> dict[str, dict]:
    """The report without its arrays of all trials, ready for JSON.

    Example
    -------
    >>> without_scores({"clean": {"eer": 0.1, "scores": [0.5]}})
    {'clean': {'eer': 0.1}}
    """
    return {
        condition: {k: v for k, v in figures.items() if k not in ARRAYS}
        for condition, figures in report.items()
    }


def table(reports: dict[str, dict[str, dict]]) -> str:
    """Text table of EER and minDCF, one line a system and condition.

    Arguments
    ---------
    reports : dict
        System name to what `verify` returned.

    Returns
    -------
    str

    Example
    -------
    >>> figures = {"eer": 0.1, "min_dcf": 0.5, "targets": 9, "nontargets": 90}
    >>> print(table({"csc": {"clean": figures}}))
    system        condition   EER %  minDCF  SI-SNRi dB  trials
    csc           clean       10.00   0.500           -  9 + 90
    """
    lines = ["system        condition   EER %  minDCF  SI-SNRi dB  trials"]
    for system, report in reports.items():
        for condition, figures in report.items():
            gain = figures.get("si_snr_improvement")
            gain = "-" if gain is None else f"{gain:.1f}"
            lines.append(
                f"{system:<13} {condition:<10} {100 * figures['eer']:6.2f}  "
                f"{figures['min_dcf']:6.3f}  {gain:>10}  "
                f"{figures['targets']} + {figures['nontargets']}"
            )
    return "\n".join(lines)
