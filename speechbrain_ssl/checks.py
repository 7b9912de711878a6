"""Messages and checks for input that a user can get wrong."""

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SHOWN = 3  # examples named in a message; the rest is counted


class BadInputError(ValueError):
    """Raised when something given by the user cannot be used.

    The message says what was given, what is expected and what to do.
    """


def summarise(problems: Sequence[str]) -> str:
    """Count of the problems and the first three of them, one per line.

    Arguments
    ---------
    problems : sequence of str
        One sentence each; at least one.

    Returns
    -------
    str

    Example
    -------
    >>> print(summarise(["a is empty", "b is empty"]))
    2 problems:
      - a is empty
      - b is empty
    """
    shown = "".join(f"\n  - {problem}" for problem in problems[:SHOWN])
    more = len(problems) - SHOWN
    rest = f"\n  - and {more} more" if more > 0 else ""
    plural = "" if len(problems) == 1 else "s"
    return f"{len(problems)} problem{plural}:{shown}{rest}"


def refuse(what: str, problems: Iterable[str], advice: str) -> None:
    """Raise one error for all problems of one input; do nothing without any.

    Arguments
    ---------
    what : str
        The input, e.g. ``"trials.txt"``.
    problems : iterable of str
        What was given and what is expected, one sentence a problem.
    advice : str
        What to do about it.

    Raises
    ------
    BadInputError
        If there is at least one problem.

    Example
    -------
    >>> refuse("trials.txt", [], "Regenerate it.")
    """
    problems = list(problems)
    if problems:
        raise BadInputError(f"{what}: {summarise(problems)}\n{advice}")


def misfits(
    weights: Mapping[str, Any], network: Mapping[str, Any]
) -> list[str]:
    """What saved weights lack, have too much or have of another shape.

    Arguments
    ---------
    weights, network : dict
        `state_dict` of a file and of the network it is for.

    Returns
    -------
    list of str
        For `refuse`; empty where they fit.

    Example
    -------
    >>> import torch
    >>> misfits({}, torch.nn.Linear(2, 3, bias=False).state_dict())
    ['weight is not among them; this network has the shape (3, 2)']
    """
    problems = []
    for name in sorted({*weights, *network}):
        theirs, ours = (
            f"has the shape {tuple(state[name].shape)}" if name in state else ""
            for state in (weights, network)
        )
        if theirs != ours:
            problems.append(
                f"{name} {theirs or 'is not among them'}; this network "
                f"{ours or 'has no such parameter'}"
            )
    return problems


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggestion for a misspelt name, or an empty string.

    Example
    -------
    >>> nearest("sourcs", ["sources", "seed"])
    " (did you mean 'sources'?)"
    """
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def check_sizes(**sizes: tuple) -> None:
    """Refuse sizes and other values that do not fit, all in one message.

    Arguments
    ---------
    **sizes
        Name to (fits, given, expected).

    Raises
    ------
    BadInputError
        If one does not fit.
    """
    problems = [
        f"{name} is {given}; it must be {expected}"
        for name, (fits, given, expected) in sizes.items()
        if not fits
    ]
    refuse("values", problems, "Correct them in the YAML.")


def check_installed(module: str, extra: str) -> None:
    """Refuse to go on without an optional package.

    Arguments
    ---------
    module : str
        Its import name.
    extra : str
        The extra of this package that installs it.

    Raises
    ------
    BadInputError
        If it is not installed.

    Example
    -------
    >>> check_installed("torch", extra="pseudo")
    """
    refuse(
        module,
        [] if importlib.util.find_spec(module) else ["it is not installed"],
        f"pip install -e '.[{extra}]'",
    )
