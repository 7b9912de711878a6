"""Who may import whom, and how long a file may be."""

import ast

from conftest import REPOSITORY

PACKAGE = REPOSITORY / "speechbrain_ssl"
MAY_IMPORT = {
    "checks": set(),
    "schedules": set(),
    "si_snr": set(),
    "checkpoints": {"checks", "dataio"},
    "lobes": {"checks", "lobes"},
    "losses": {"checks", "si_snr"},
    "augment": {"checks", "dataio"},
    "dataio": {"checks", "dataio", "augment", "schedules"},
    "prepare": {"checks", "dataio", "prepare"},
    "evaluation": {"checks", "dataio", "evaluation", "si_snr"},
    "brains": {
        "brains",
        "checkpoints",
        "checks",
        "dataio",
        "evaluation",
        "schedules",
    },
    "pretrained": {"checks", "lobes"},
    "experiment": {
        "checkpoints",
        "checks",
        "dataio",
        "evaluation",
        "settings",
    },
    "verification_settings": {"checks", "evaluation"},
    "verification_run": {
        "augment",
        "checks",
        "dataio",
        "evaluation",
        "experiment",
        "prepare",
        "pretrained",
        "settings",
        "verification_settings",
    },
    "settings": {"checks", "dataio"},
    "probe": {
        "checks",
        "dataio",
        "evaluation",
        "prepare",
        "pretrained",
        "settings",
    },
    "publishing": {
        "checks",
        "dataio",
        "evaluation",
        "experiment",
        "lobes",
        "losses",
        "prepare",
        "pretrained",
        "publishing",
    },
    "inference": {"checks", "dataio", "evaluation"},
    "commands": {"checks", "dataio", "inference", "publishing"},
    "cli": {"checks", "commands", "probe"},
    "pseudo": {
        "checks",
        "dataio",
        "evaluation",
        "experiment",
        "prepare",
        "pretrained",
        "pseudo",
        "settings",
    },
}


def imports(path):
    """Parts of this package that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("speechbrain_ssl."):
                yield name.split(".")[1]


def test_imports_follow_the_table():
    files = [p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"]
    assert len(files) >= 25
    parts = set()
    for path in files:
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        parts.add(part)
        surplus = set(imports(path)) - MAY_IMPORT[part]
        assert not surplus, f"{path} imports {surplus}"
    assert parts == set(MAY_IMPORT)


def test_files_stay_short():
    files = [
        path
        for folder in ("speechbrain_ssl", "tests", "benchmarks")
        for path in (REPOSITORY / folder).rglob("*.py")
    ]
    assert len(files) >= 35
    for path in files:
        assert len(path.read_text().splitlines()) <= 400, path
    for name in ("train.py", "verify.py"):
        assert len((REPOSITORY / name).read_text().splitlines()) < 50
    yamls = [
        *REPOSITORY.glob("hparams/*.yaml"),
        *REPOSITORY.glob("recipes/**/*.yaml"),
    ]
    assert len(yamls) >= 5
    for path in yamls:
        assert len(path.read_text().splitlines()) <= 160, path
