"""Every YAML loads, is checked and builds what it names."""

import pytest
from conftest import REPOSITORY, SHARED_DATA

from speechbrain_ssl import settings
from speechbrain_ssl.checks import BadInputError
from speechbrain_ssl.probe import KEYS

YAMLS = sorted(
    [
        *REPOSITORY.glob("hparams/*.yaml"),
        *REPOSITORY.glob("recipes/*/hparams/*.yaml"),
    ]
)
PLACES = (
    "data_folder",
    "test_trials",
    "train_csv",
    "valid_csv",
    "test_csv",
    "labelled",
    "manifests",
)


def overrides(path):
    text = path.read_text()
    return [
        f"--{name}=x" for name in PLACES if f"\n{name}: !PLACEHOLDER" in text
    ]


def test_all_yamls_are_found():
    assert len(YAMLS) >= 5


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: f"{p.parts[-3]}/{p.stem}")
def test_yaml_loads_with_every_key_used(path):
    if path.stem == "verify":
        more = [
            "--source=a",
            "--trials=b",
            "--data_folder=c",
            "--output_folder=d",
        ]
        keys = settings.VERIFY_KEYS
    elif path.stem.startswith("probe"):
        more, keys = ["--source=a", "--corpus=emodb"], KEYS
    else:
        more, keys = overrides(path), None
    run = settings.load([str(path), "--device=cpu", *more], keys)
    keys = keys or getattr(run.hparams.get("runner"), "KEYS", settings.KEYS)
    assert set(keys) <= set(run.hparams)
    for name, module in run.hparams.get("modules", {}).items():
        if any(True for _ in module.parameters()):  # it would be lost
            assert run.hparams["checkpointer"].recoverables[name] is module


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: f"{p.parts[-3]}/{p.stem}")
def test_header_names_the_command_that_runs_it(path):
    header = path.read_text().split("\n\n")[0]
    script = "verify.py" if path.stem == "verify" else "train.py"
    if path.stem.startswith("probe"):
        script = "speechbrain-ssl probe"
    assert f"{script} {path.relative_to(REPOSITORY).as_posix()}" in header


def test_missing_placeholder_is_named():
    path = REPOSITORY / "recipes" / "VoxCeleb" / "hparams" / "csc.yaml"
    with pytest.raises(BadInputError, match="data_folder|PLACEHOLDER"):
        settings.load([str(path), "--device=cpu"])


def test_folders_keep_their_name_whatever_it_looks_like():
    given = [str(REPOSITORY / "hparams" / "verify.yaml"), "--data_folder=c"]
    given += ["--source=a", "--trials=b", "--output_folder=2026-11-22"]
    run = settings.load(given, settings.VERIFY_KEYS)
    assert run.hparams["output_folder"] == "2026-11-22"
    given[-1] = "--output_folder=rate=0.1"  # would be 'rate 0.1'
    with pytest.raises(BadInputError, match="rate=0.1 has more than one '='"):
        settings.load(given, settings.VERIFY_KEYS)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no real speech beside us")
@pytest.mark.parametrize("name", ["libri_mini", "speech_commands"])
def test_real_corpora_are_prepared_unchanged(name, tmp_path):
    from speechbrain_ssl.dataio.manifest import read_manifest
    from speechbrain_ssl.prepare.corpus import prepare_corpus

    corpus = SHARED_DATA / name
    prepare_corpus(
        tmp_path,
        data_folder=str(corpus),
        test_trials=str(corpus / "trials.txt"),
        check_samples=False,
    )
    train = read_manifest(tmp_path / "train.csv")
    dev = read_manifest(tmp_path / "dev.csv")
    listed = (corpus / "train.txt").read_text().split()[::2]
    assert set(train["spk_id"]) | set(dev["spk_id"]) == set(listed)
    assert not set(train["spk_id"]) & set(dev["spk_id"])
    assert len(train) + len(dev) == len(listed)


def test_warm_up_of_a_recipe_is_in_epochs():
    """Where several processes share an epoch it has fewer steps."""
    given = [
        line.strip()
        for path in (REPOSITORY / "recipes").glob("*/hparams/*.yaml")
        for line in path.read_text().splitlines()
        if line.strip().startswith("warmup:")
    ]
    assert len(given) >= 6
    assert all("!ref <steps_per_epoch>" in line for line in given), given
