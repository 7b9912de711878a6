"""YAML and command line of a run, checked before any work starts."""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple, Optional

import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import (
    ddp_init_group,
    if_main_process,
    run_on_main,
)
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ssl.checks import BadInputError, nearest, refuse
from speechbrain_ssl.dataio.files import write_json

# Top-level keys that the runner reads; others must be used by the YAML itself,
# by the Brain or by SpeechBrain.
KEYS = (
    "method",
    "seed",
    "output_folder",
    "expected_cost",
    "prepare",
    "sample_rate",
    "label_free_validation",
    "valid_sirs_db",
    "sirs_db",
    "batches",
    "examples",
    "workers",
    "modules",
    "brain",
    "opt_class",
    "number_of_epochs",
    "epoch_counter",
    "checkpointer",
)
VERIFY_KEYS = (
    "source",
    "trust_source",
    "network",
    "trials",
    "output_folder",
    "data_folder",
    "utterances",
    "models",
    "enrolment",
    "two_part",
    "padding",
    "sirs_db",
    "interferers",
    "snrs_db",
    "noise_folder",
    "backend",
    "subtract_mean",
    "score_norm",
    "cohort",
    "cohort_of",
    "cohort_top",
    "fit_calibration",
    "calibration",
    "measures",
    "false_alarm_rate",
    "metadata",
    "breakdown",
    "bootstrap",
    "compare",
)
NOTE = "run.json"
# Overrides with which a run is still the same.
MAY_CHANGE = (
    "output_folder",
    "number_of_epochs",
    "number_of_rounds",
    "workers",
    "checkpoints_kept",
    "expected_cost",
    "tensorboard",
)


class Run(NamedTuple):
    """A YAML file with its overrides, loaded.

    Arguments
    ---------
    yaml : str
        Path of the file.
    overrides : str
        Command-line overrides as YAML text.
    hparams : dict
        Loaded values.
    options : dict
        SpeechBrain's run options.
    """

    yaml: str
    overrides: str
    hparams: dict
    options: dict


def load(arguments: list[str], used: Optional[tuple[str, ...]] = None) -> Run:
    """Read YAML and command line; fail on every slip before work starts.

    Arguments
    ---------
    arguments : list of str
        As on the command line: YAML file, `--key=value` overrides and
        SpeechBrain's run options.
    used : tuple of str, optional
        Top-level keys that the caller reads; by default those of the YAML's
        `runner`, or `KEYS` where it has none.

    Returns
    -------
    Run

    Raises
    ------
    BadInputError
        If the file is missing, a key is misspelt or a value cannot be used.
    """
    if not arguments or arguments[0].startswith("-"):
        refuse(
            "command line",
            ["no YAML file was given"],
            "Usage: python train.py hparams/csc.yaml [--key=value ...]",
        )
    if not Path(arguments[0]).is_file():
        near = nearest(
            Path(arguments[0]).name,
            [path.name for path in Path(arguments[0]).parent.glob("*.yaml")],
        )
        refuse(arguments[0], [f"there is no such YAML file{near}"], "Check it.")
    yaml, options, overrides = sb.parse_arguments(arguments)
    text = Path(yaml).read_text(encoding="utf-8")
    keys = re.findall(r"^([A-Za-z_]\w*):", text, flags=re.MULTILINE)
    given = re.findall(r"^([A-Za-z_]\w*):", overrides, flags=re.MULTILINE)
    refuse(
        "command line",
        [
            f"--{key} is not a key of {yaml}{nearest(key, keys)}"
            for key in given
            if key not in keys
        ]
        + [
            f"--{key} is given more than once"
            for key in sorted(set(given))
            if given.count(key) > 1
        ]
        + [
            f"{argument} has more than one '=', which SpeechBrain drops"
            for argument in arguments[1:]
            if argument.startswith("--") and argument.count("=") > 1
        ],
        "Overrides replace top-level keys of the YAML, each once.",
    )
    ddp_init_group(options)
    try:
        hparams = load_hyperpyyaml(text, overrides)
    except BadInputError:
        raise
    except OSError as error:  # the checkpointer makes the output folder
        refuse(
            str(error.filename or yaml),
            [f"it cannot be read or written: {error.strerror}"],
            "Give another folder, for example with --output_folder=DIR.",
        )
    except Exception as error:  # whatever a constructor named in it raises
        refuse(
            str(yaml), [f"{type(error).__name__}: {error}"], "Correct the YAML."
        )
    if "output_folder" in hparams:  # a number or a date to YAML, perhaps
        hparams["output_folder"] = str(hparams["output_folder"])
    used = used or getattr(hparams.get("runner"), "KEYS", KEYS)
    _check_keys(yaml, text, keys, hparams, used)
    return Run(yaml, overrides, hparams, options)


def _check_keys(yaml, text, keys, hparams, used):
    missing = [key for key in used if key not in hparams]
    referred = set(re.findall(r"<([A-Za-z_]\w*)", text))
    brain = hparams.get("brain")
    brain = getattr(brain, "func", brain)
    read = {
        *getattr(brain, "HPARAMS_NEEDED", ()),
        *getattr(brain, "HPARAMS_OPTIONAL", ()),
    }
    known = {*used, *referred, *read, *RunOptions().keys()}
    problems = [f"the key '{key}' is missing" for key in missing]
    problems += [
        f"nothing uses the key '{key}'{nearest(key, known)}"
        for key in keys
        if key not in known and not key.startswith("__")
    ]
    refuse(str(yaml), problems, "Compare with the YAMLs in hparams/.")


def claim_output_folder(run: Run, compare: bool = True) -> bool:
    """Make the output folder ours, or say that the run is complete.

    Arguments
    ---------
    run : Run
        The loaded run.
    compare : bool
        Refuse a complete run of other overrides.

    Returns
    -------
    bool
        False when the run in the folder is complete already.

    Raises
    ------
    BadInputError
        If the folder holds a run of another method, a complete one of other
        overrides (`MAY_CHANGE` aside) or cannot be written.
    """
    hparams = run.hparams
    folder = Path(hparams["output_folder"])
    note = folder / NOTE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write in {folder}")
    except OSError as error:
        refuse(
            f"output_folder {folder}",
            [f"it cannot be written: {error}"],
            "Give another one with --output_folder=DIR.",
        )
    mine = its = _note(run)
    if note.is_file():
        its = {**mine, **json.loads(note.read_text(encoding="utf-8"))}
        problem = f"it holds a run of '{its['method']}'; this is "
        refuse(
            f"output_folder {folder}",
            [f"{problem}'{mine['method']}'"]
            if its["method"] != mine["method"]
            else [],
            "Give another one with --output_folder=DIR.",
        )
    metrics = folder / "metrics.json"
    if metrics.is_file():
        unit = "rounds" if "number_of_rounds" in hparams else "epochs"
        done = json.loads(metrics.read_text(encoding="utf-8"))[unit]
        if done >= hparams[f"number_of_{unit}"]:
            refuse(
                f"output_folder {folder}",
                _differences(its["overrides"], mine["overrides"])
                if compare
                else [],
                "The run in it is complete. Give another folder with "
                "--output_folder=DIR.",
            )
            print(
                f"already complete after {done} {unit}: {metrics}\n"
                f"Change output_folder or raise number_of_{unit} to train more."
            )
            return False
    changed = _differences(its["overrides"], mine["overrides"])
    if changed and if_main_process():
        print("goes on with other settings: " + "; ".join(changed))
    run_on_main(write_json, args=(its, note))
    return True


def note_complete(run: Run) -> None:
    """Keep the overrides that a run was completed with, on one process.

    Arguments
    ---------
    run : Run
        The loaded run, complete.
    """
    write_json(_note(run), Path(run.hparams["output_folder"]) / NOTE)


def _note(run):
    """What tells a run from others of its folder."""
    return {"method": run.hparams["method"], "overrides": _overrides(run)}


def _overrides(run):
    """What the command line set, key to text."""
    found = re.findall(r"^([A-Za-z_]\w*): ?(.*)$", run.overrides, re.MULTILINE)
    return {key: value for key, value in found if key not in MAY_CHANGE}


def _differences(its, mine):
    """A sentence on each override that two commands do not share."""
    return [
        f"{key} is {mine.get(key, 'as in the YAML')}; its run had "
        f"{its.get(key, 'that of the YAML')}"
        for key in {**its, **mine}
        if not _same(its.get(key), mine.get(key))
    ]


def _same(value, other):
    """Whether two texts are equal or paths of one file or folder."""
    if None in (value, other):
        return value == other
    return value == other or (
        os.path.exists(value)
        and os.path.realpath(value) == os.path.realpath(other)
    )
