"""The commands of the console and their arguments."""

import argparse
from pathlib import Path


def export(arguments: list[str]) -> None:
    """Write a model folder that stock SpeechBrain loads."""
    from speechbrain_ssl.publishing.card import Statements
    from speechbrain_ssl.publishing.export import export as run

    parser = _parser("export", export.__doc__)
    parser.add_argument("source", help="finished output folder of train.py")
    parser.add_argument("--to", required=True, help="model folder to write")
    parser.add_argument(
        "--name", help="user/name on the Hub; by default the folder"
    )
    parser.add_argument(
        "--licence", default="unknown", help="of the weights, e.g. apache-2.0"
    )
    parser.add_argument(
        "--dataset", action="append", default=[], help="trained on; repeatable"
    )
    parser.add_argument(
        "--average", type=int, default=1, help="last epochs to average"
    )
    parser.add_argument(
        "--onnx", action="store_true", help="also embedding_model.onnx"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace an earlier export"
    )
    given = parser.parse_args(arguments)
    name = given.name or Path(given.to).absolute().name
    statements = Statements(name, given.licence, tuple(given.dataset))
    metrics = run(
        given.source,
        given.to,
        statements,
        average=given.average,
        force=given.force,
        onnx=given.onnx,
    )
    validation = metrics["validation"]
    print(
        f"written to {given.to}; validation EER {100 * validation['eer']:.2f} % "
        "there as here"
    )


def _parser(name, about):
    return argparse.ArgumentParser(f"speechbrain-ssl {name}", description=about)
