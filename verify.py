#!/usr/bin/env python
"""Score a trial list with a trained model.

python verify.py hparams/verify.yaml --source=DIR --trials=FILE
    --data_folder=DIR --output_folder=OUT
"""

import sys

import speechbrain as sb

from speechbrain_ssl import settings, verification_run
from speechbrain_ssl.checks import BadInputError


def main(arguments: list[str]) -> int:
    """Run the YAML named first; 0 when it is done, 2 on bad input."""
    try:
        run = settings.load(arguments, settings.VERIFY_KEYS)
        sb.utils.logger.setup_logging()
        verification_run.verify_source(run)
    except BadInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
