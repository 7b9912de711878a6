"""The README's commands, links and numbers."""

import re

import pytest
from conftest import REPOSITORY

from speechbrain_ssl import cli

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]


def test_setup_commands_are_those_of_ci():
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert 'pip install -e ".[dev]" && pytest' in COMMANDS
    assert 'pip install -q -e ".[dev]"' in script and "\npytest" in script
    assert (
        'pip install -e ".[plots]" && python train.py hparams/csc.yaml'
        in COMMANDS
    )


def test_commands_name_scripts_yamls_and_keys_that_exist():
    runs = [
        command.replace("speechbrain-ssl probe", "python train.py")
        for command in COMMANDS
        if re.search(r"python (train|verify|benchmarks)|-ssl probe", command)
    ]
    assert len(runs) >= 5
    for command in runs:
        words = command.split("python ")[1].split()
        assert (REPOSITORY / words[0]).is_file(), command
        if len(words) == 1 or not words[1].endswith(".yaml"):
            continue
        text = (REPOSITORY / words[1]).read_text()
        for key in re.findall(r"--(\w+)=", command):
            assert f"\n{key}:" in text, (command, key)


def test_commands_of_recipes_name_yamls_and_keys_that_exist():
    readmes = sorted(REPOSITORY.glob("recipes/**/README.md"))
    commands = [
        command
        for path in readmes
        for command in re.findall(
            r"(?:train|verify)\.py .*yaml.*", path.read_text()
        )
    ]
    assert len(readmes) >= 4 and len(commands) >= 20
    for command in commands:
        text = (REPOSITORY / command.split()[1]).read_text()
        for key in re.findall(r"--(\w+)=", command):
            assert f"\n{key}:" in text, (command, key)


def test_console_commands_and_their_options_exist(capsys):
    """The tests of publishing and inference run each of them."""
    runs = [c.split() for c in COMMANDS if c.startswith("speechbrain-ssl")]
    assert {words[1] for words in runs} == set(cli.COMMANDS)
    for words in runs:
        if words[1] == "probe":  # its options are keys of a YAML, see above
            continue
        with pytest.raises(SystemExit):
            cli.main([words[1], "--help"])
        options = capsys.readouterr().out
        for word in words[2:]:
            assert not word.startswith("--") or f"{word} " in options, word


def test_links_point_at_files():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if not link.startswith("http")]
    assert len(local) >= 3
    for link in local:
        assert (REPOSITORY / link).exists(), link


def test_overrides_in_tables_are_yaml_keys():
    tables = (
        ("What CSC does here", "csc", 6),
        ("What DINO does here", "dino", 5),
        ("What AAM-SupCon does here", "aam_supcon", 8),
        ("What pseudo labels do here", "pseudo_labels", 6),
        ("Verification", "verify", 5),
    )
    for title, yaml, least in tables:
        text = (REPOSITORY / "hparams" / f"{yaml}.yaml").read_text()
        section = README.split(f"## {title}\n")[1]
        section = section.split("|---|---|\n")[1].split("\n\n")[0]
        keys = re.findall(r"--(\w+)=", section)
        assert len(keys) >= least
        for key in keys:
            assert f"\n{key}:" in text, key
