"""The README's commands, links and numbers."""

import re

from conftest import REPOSITORY

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
        c for c in COMMANDS if re.search(r"python (train|verify|benchmarks)", c)
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


def test_links_point_at_files():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if not link.startswith("http")]
    assert len(local) >= 3
    for link in local:
        assert (REPOSITORY / link).exists(), link


def test_overrides_in_tables_are_yaml_keys():
    for title, yaml in (
        ("CSC does", "csc"),
        ("DINO does", "dino"),
        ("AAM-SupCon does", "aam_supcon"),
        ("pseudo labels do", "pseudo_labels"),
    ):
        text = (REPOSITORY / "hparams" / f"{yaml}.yaml").read_text()
        section = README.split(f"## What {title} here")[1]
        section = section.split("|---|---|\n")[1].split("\n\n")[0]
        keys = re.findall(r"--(\w+)=", section)
        assert len(keys) >= 6
        for key in keys:
            assert f"\n{key}:" in text, key
