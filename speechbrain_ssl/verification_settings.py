"""What verify.yaml may hold, looked at before the work begins."""

from pathlib import Path

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.evaluation.enrolment import ENROLMENTS
from speechbrain_ssl.evaluation.normalisation import NORMS

BACKENDS = ("cosine", "plda")
COHORTS = ("utterances", "speakers")
MEASURES = ("duration", "norm", "cohort_mean")
# What makes a score; a calibration fits no other.
MAKERS = (
    "network",
    "backend",
    "subtract_mean",
    "score_norm",
    "cohort_of",
    "cohort_top",
    "enrolment",
    "two_part",
)


def makers(hparams: dict) -> dict:
    """What makes a score, of the settings."""
    return {name: hparams[name] for name in MAKERS}


def check_settings(hparams: dict) -> None:
    """Refuse values of verify.yaml that cannot be used, before any work.

    Raises
    ------
    BadInputError
        One line for each.
    """
    lists = ("measures", "breakdown", "compare", "sirs_db", "snrs_db")
    refuse(
        "verify.yaml",
        [
            f"{name} is '{hparams[name]}', no list"
            for name in lists
            if not isinstance(hparams[name], list)
        ],
        "Write [one,two], and [] for none.",
    )
    problems = []
    for name, known in (
        ("backend", BACKENDS),
        ("cohort_of", COHORTS),
        ("score_norm", NORMS),
        ("enrolment", ENROLMENTS),
    ):
        if hparams[name] not in known:
            problems.append(f"{name} is '{hparams[name]}'; one of {known}")
    problems += [
        f"measures has '{name}'; they are of {MEASURES}"
        for name in hparams["measures"]
        if name not in MEASURES
    ]
    if bool(hparams["data_folder"]) == bool(hparams["utterances"]):
        problems.append("give either data_folder or utterances")
    if hparams["snrs_db"] and not hparams["noise_folder"]:
        problems.append("snrs_db needs a noise_folder")
    users = [
        name
        for name, used in (
            ("score_norm", hparams["score_norm"] != "none"),
            ("backend=plda", hparams["backend"] == "plda"),
            ("subtract_mean", hparams["subtract_mean"]),
            ("measures=cohort_mean", "cohort_mean" in hparams["measures"]),
        )
        if used
    ]
    if users and not hparams["cohort"]:
        problems.append(f"{', '.join(users)} needs a cohort")
    if hparams["backend"] == "plda" and hparams["two_part"]:
        problems.append("two_part is a mean of cosines; plda is none")
    if hparams["two_part"] and (hparams["sirs_db"] or hparams["snrs_db"]):
        problems.append(
            "two_part is of clean trials: sirs_db and snrs_db are []"
        )
    draws = hparams["bootstrap"]
    if not isinstance(draws, int) or draws < 0:
        problems.append(f"bootstrap is {draws}; it is 0 or a whole number")
    if hparams["fit_calibration"] and hparams["calibration"]:
        problems.append("give fit_calibration or calibration, not both")
    if (Path(hparams["output_folder"]) / "hyperparams.yaml").exists():
        problems.append("output_folder is a model's; its files would be lost")
    refuse("verify.yaml", problems, "Correct these values.")
