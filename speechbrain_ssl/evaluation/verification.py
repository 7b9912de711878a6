"""Speaker verification of a trial list, clean and with interferers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

import numpy as np
import pandas as pd
import torch
from torch import nn

from speechbrain_ssl.dataio.files import replaced_when_done
from speechbrain_ssl.dataio.trials import resolve_trials
from speechbrain_ssl.evaluation.embed import Embeddings, embed
from speechbrain_ssl.evaluation.interference import Interference
from speechbrain_ssl.evaluation.metrics import verification_metrics
from speechbrain_ssl.evaluation.scoring import RULES, cosine_scores


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

    Raises
    ------
    BadInputError
        If a trial names an unknown utterance or an utterance has no
        interferer whose speaker is outside its trials.
    """

    def __init__(
        self,
        trials: pd.DataFrame,
        rows: pd.DataFrame,
        pool: Optional[pd.DataFrame] = None,
        sirs_db: Sequence[float] = (),
        name: str = "trials",
        seed: int = 0,
    ):
        self.trials, self.name = trials, name
        enrol, test = resolve_trials(trials, rows["ID"], name)
        used = np.unique(np.concatenate([enrol, test]))
        self.rows = rows.iloc[used].reset_index(drop=True)
        self.enrol_rows = np.searchsorted(used, enrol)
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

    def _speakers_met(self):
        involved = [{speaker} for speaker in self.test["spk_id"]]
        others = self.rows["spk_id"].to_numpy()[self.enrol_rows]
        for row, other in zip(self.test_rows, others):
            involved[row].add(other)
        return involved


def verify(
    encoder: nn.Module,
    trial_list: TrialList,
    device: torch.device,
    scores_folder: Optional[Union[str, Path]] = None,
    label: str = "",
    show: bool = True,
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

    Returns
    -------
    dict
        Condition to figures: eer, min_dcf, targets, nontargets, thresholds,
        rule, rules, scores (numpy array, not for JSON) and, where it applies,
        si_snr_improvement in decibels.
    """
    targets = trial_list.trials["target"].to_numpy()
    clean = embed(
        encoder, trial_list.rows, device, None, f"{label} clean", show
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
        rows = trial_list.enrol_rows, trial_list.test_rows
        scores = {
            rule: cosine_scores(clean, test, *rows, rule) for rule in RULES
        }
        rule = "loudest" if interference is None else "best"
        figures = verification_metrics(scores[rule], targets)
        figures["rule"] = rule
        if test.vectors.shape[1] > 1:
            figures["rules"] = {
                name: verification_metrics(values, targets)
                for name, values in scores.items()
            }
        if test.improvement is not None:
            figures["si_snr_improvement"] = test.improvement
        figures["scores"] = scores[rule]
        report[condition] = figures
        if scores_folder is not None:
            _write_scores(
                trial_list.trials, scores[rule], scores_folder, condition
            )
    return report


def _write_scores(trials, scores, folder, condition):
    with replaced_when_done(Path(folder) / f"{condition}.txt") as path:
        trials.assign(score=scores).to_csv(
            path,
            sep=" ",
            header=False,
            index=False,
            columns=["target", "enrol", "test", "score"],
            float_format="%.6f",
        )


def without_scores(report: dict[str, dict]) -> dict[str, dict]:
    """The report without its score arrays, ready for JSON.

    Example
    -------
    >>> without_scores({"clean": {"eer": 0.1, "scores": [0.5]}})
    {'clean': {'eer': 0.1}}
    """
    return {
        condition: {k: v for k, v in figures.items() if k != "scores"}
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
