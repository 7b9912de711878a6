"""Console command `speechbrain-ssl`, the same as `python -m speechbrain_ssl.cli`."""

import sys
from collections.abc import Callable, Sequence
from typing import Optional

import speechbrain as sb

from speechbrain_ssl import commands
from speechbrain_ssl.checks import BadInputError, nearest, refuse
from speechbrain_ssl.probe import probe

COMMANDS: dict[str, tuple[str, Callable[[list[str]], None]]] = {
    "probe": ("what embeddings tell about emotion or any label", probe),
    "export": ("training folder to model folder", commands.export),
    "publish": ("model folder to the Hugging Face Hub", commands.publish),
    "embed": ("recordings to speaker vectors", commands.embed),
    "score": ("two recordings to a score and a decision", commands.score),
    "separate": ("mixture to talkers and their vectors", commands.separate),
}


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command named first.

    Arguments
    ---------
    arguments : sequence of str, optional
        Command and its arguments; by default those of this process.

    Returns
    -------
    int
        0 when it is done, 2 on bad input.

    Example
    -------
    >>> main(["sing"])
    2
    """
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if name in ("", "-h", "--help"):
        print("usage: speechbrain-ssl COMMAND [--help] ...\n")
        for command, (about, _) in COMMANDS.items():
            print(f"  {command:<10} {about}")
        return 0 if name else 2
    try:
        problem = f"there is no command '{name}'{nearest(name, COMMANDS)}"
        refuse(
            "command line",
            [] if name in COMMANDS else [problem],
            f"Commands are {', '.join(COMMANDS)}.",
        )
        sb.utils.logger.setup_logging(default_level="INFO")
        COMMANDS[name][1](rest[:-1])
    except BadInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
