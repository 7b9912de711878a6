"""The commands of the console and their arguments."""

import argparse
from pathlib import Path

from speechbrain_ssl.checks import refuse


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


def publish(arguments: list[str]) -> None:
    """Upload a model folder to the Hugging Face Hub."""
    from speechbrain_ssl.publishing.hub import publish as run

    parser = _parser("publish", publish.__doc__)
    parser.add_argument("folder", help="as `speechbrain-ssl export` wrote it")
    parser.add_argument("name", help="user/name, new on the Hub")
    parser.add_argument(
        "--private", action="store_true", help="only its owner sees it"
    )
    parser.add_argument("--revision", help="new branch to publish on")
    given = parser.parse_args(arguments)
    print(run(given.folder, given.name, given.private, given.revision))


def embed(arguments: list[str]) -> None:
    """Write one vector for each recording."""
    import numpy as np

    from speechbrain_ssl.dataio.files import replaced_when_done
    from speechbrain_ssl.dataio.recordings import find_recordings

    parser = _parser("embed", embed.__doc__)
    parser.add_argument(
        "places", nargs="+", help="audio files, a folder or a CSV manifest"
    )
    _add_source(parser)
    parser.add_argument(
        "--to",
        required=True,
        help=".npz file to write: names (N,), embeddings (N, D)",
    )
    parser.add_argument(
        "--data-folder",
        help="of a manifest's recordings; by default the manifest's own",
    )
    given = parser.parse_args(arguments)
    problem = f"'{given.to}' does not end in .npz"
    refuse("--to", [] if given.to.endswith(".npz") else [problem], "Add it.")
    recordings = find_recordings(given.places, given.data_folder)
    names = np.array([recording.name for recording in recordings])
    with replaced_when_done(given.to) as path:
        vectors = _model(given).embed(recordings)
        np.savez(path, names=names, embeddings=vectors)
    count, dim = vectors.shape
    print(f"{count} embeddings of {dim} values in {given.to}")


def score(arguments: list[str]) -> None:
    """Say how alike the speakers of two recordings are."""
    parser = _parser("score", score.__doc__)
    parser.add_argument("one", help="audio file")
    parser.add_argument("other", help="audio file")
    _add_source(parser)
    given = parser.parse_args(arguments)
    found = _model(given).score(given.one, given.other)
    print(f"score        {found.cosine:.4f} (cosine)")
    if found.probability is not None:
        print(f"log-odds     {found.log_odds:.4f}")
        print(f"probability  {found.probability:.4f} (both cases alike likely)")
    print(f"threshold    {found.threshold:.4f} (of the score)")
    print(f"decision     {'same' if found.same else 'different'} speaker")


def separate(arguments: list[str]) -> None:
    """Write the talkers of a mixture, the loudest first, and their vectors."""
    import numpy as np
    import soundfile

    from speechbrain_ssl.dataio.files import replaced_when_done

    parser = _parser("separate", separate.__doc__)
    parser.add_argument("mixture", help="audio file")
    _add_source(parser)
    parser.add_argument("--to", default=".", help="folder to write in")
    parser.add_argument(
        "--force", action="store_true", help="replace files that are there"
    )
    given = parser.parse_args(arguments)
    model = _model(given)
    waves, vectors = model.separate(given.mixture)
    stem = Path(given.to) / Path(given.mixture).stem
    names = [f"{stem}_{number}.wav" for number in range(1, len(waves) + 1)]
    there = [path for path in map(Path, names) if path.exists()]
    refuse(
        given.to,
        [] if given.force else [f"it has a {path.name}" for path in there],
        "Give another folder with --to, or --force to replace them.",
    )
    for name, wave in zip(names, waves):
        with replaced_when_done(name) as path:
            soundfile.write(path, wave, model.sample_rate, subtype="FLOAT")
        print(name)
    with replaced_when_done(f"{stem}_speakers.npz") as path:
        np.savez(path, embeddings=vectors)
    print(f"{stem}_speakers.npz")


def _add_source(parser):
    parser.add_argument(
        "--source", required=True, help="model folder, or user/name on the Hub"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="load a Hub model of others: its YAML is code that runs",
    )
    parser.add_argument("--device", help="by default the best there is")


def _model(given):
    from speechbrain_ssl.inference import SpeakerModel

    return SpeakerModel(given.source, given.device, given.trust)


def _parser(name, about):
    return argparse.ArgumentParser(f"speechbrain-ssl {name}", description=about)
