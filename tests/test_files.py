"""Files that are complete, absent, or as they were."""

import os

import pytest

from speechbrain_ssl.dataio.files import as_before

PATTERNS = ("a.yaml", "tables/*")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tables" / "deep").mkdir(parents=True)
    for name in ("a.yaml", "b.yaml", "tables/c.csv", "tables/deep/d.csv"):
        (tmp_path / name).write_text("old")
    return tmp_path


def change(folder):
    """Files that are kept, one that is not, a new one and one that goes."""
    for name in ("b.yaml", "tables/c.csv", "tables/new.csv"):
        (folder / name).write_text("new")
    (folder / "a.yaml").unlink()


def test_files_of_a_block_that_raises_are_as_before(folder):
    before = contents(folder)
    with pytest.raises(KeyboardInterrupt), as_before(folder, PATTERNS):
        change(folder)
        raise KeyboardInterrupt
    assert contents(folder) == {**before, "b.yaml": "new"}


def test_files_of_a_block_that_ends_stay(folder):
    with as_before(folder, PATTERNS):
        change(folder)
    assert contents(folder) == {
        "b.yaml": "new",
        "tables/c.csv": "new",
        "tables/new.csv": "new",
        "tables/deep/d.csv": "old",
    }


def test_what_a_killed_block_left_is_put_back(folder):
    before = contents(folder)
    if os.fork() == 0:  # ends as by SIGKILL
        with as_before(folder, PATTERNS):
            change(folder)
            os._exit(0)
    os.wait()
    assert (folder / "tables" / "new.csv").exists()
    with as_before(folder, PATTERNS):
        assert (folder / "a.yaml").read_text() == "old"
        assert not (folder / "tables" / "new.csv").exists()
    assert contents(folder) == {**before, "b.yaml": "new"}
