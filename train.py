#!/usr/bin/env python
"""Train a method from its YAML and verify speakers with the result.

python train.py hparams/csc.yaml [--key=value ...]
"""

import sys

from speechbrain_ssl import experiment
from speechbrain_ssl.checks import BadInputError


def main(arguments: list[str]) -> int:
    """Run the YAML named first; 0 when it is done, 2 on bad input."""
    try:
        experiment.start(arguments)
    except BadInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
