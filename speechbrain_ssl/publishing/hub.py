"""A model folder to the Hugging Face Hub, whole or not at all."""

from pathlib import Path
from typing import Optional, Union

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from speechbrain_ssl.checks import refuse

NEEDED = ("hyperparams.yaml", "embedding_model.ckpt", "README.md")


def publish(
    folder: Union[str, Path],
    name: str,
    private: bool = False,
    revision: Optional[str] = None,
) -> str:
    """Upload exactly the files of a model folder, in one commit.

    Large files are stored first and the commit that shows them, the card
    last, is the last request. What a failure leaves (a new repository or
    branch) is removed again.

    Arguments
    ---------
    folder : str or pathlib.Path
        As `export` writes it.
    name : str
        user/name or organisation/name; new, unless `revision` is given.
    private : bool
        Whether only the owner sees the new repository.
    revision : str, optional
        A new branch, of a repository that may exist already.

    Returns
    -------
    str
        Address of the model.

    Raises
    ------
    BadInputError
        If the folder is not fit for it, there is no token or network, the
        name is taken or the upload fails.
    """
    folder = Path(folder)
    paths = check_folder(folder, name)
    refuse(
        "token",
        [] if get_token() else ["none is stored and HF_TOKEN is not set"],
        "Make one with the right to write at "
        "https://huggingface.co/settings/tokens and run `hf auth login`.",
    )
    api = HfApi()
    _ask(name, api.whoami)
    exists = _ask(name, api.repo_exists, name)
    problems = []
    if exists and revision is None:
        problems.append("the name is taken")
    if exists and private:
        problems.append("it exists already; --private is for new ones")
    advice = "Give another name, or a new branch of it with --revision."
    refuse(name, problems, advice)
    size = sum(path.stat().st_size for path in paths)
    branch = f" ({revision})" if revision else ""
    print(f"{len(paths)} files, {size / 1e6:.1f} MB, to {name}{branch}:")
    for path in paths:
        megabytes = path.stat().st_size / 1e6
        print(f"  {megabytes:9.3f} MB  {path.relative_to(folder).as_posix()}")
    files = [
        CommitOperationAdd(path.relative_to(folder).as_posix(), path)
        for path in paths
    ]
    message = "Model folder written by speechbrain_ssl"
    made = None  # what takes back what this call made
    try:
        if not exists:
            _ask(name, api.create_repo, name, private=private)
            made = api.delete_repo, {}
        if revision:
            _ask(name, api.create_branch, name, branch=revision)
            made = made or (api.delete_branch, {"branch": revision})
        _ask(
            name,
            api.create_commit,
            name,
            files,
            commit_message=message,
            revision=revision,
        )
    except BaseException:  # also when it is interrupted by hand
        if made:
            _take_back(f"{api.endpoint}/{name}", name, *made)
        raise
    tree = f"/tree/{revision}" if revision else ""
    return f"{api.endpoint}/{name}{tree}"


def check_folder(folder: Path, name: str) -> list[Path]:
    """Files to upload, largest first and the card last.

    Arguments
    ---------
    folder : pathlib.Path
        Model folder.
    name : str
        That it will have.

    Returns
    -------
    list of pathlib.Path

    Raises
    ------
    BadInputError
        If the name or the folder cannot be published: a file is missing or
        leads out of the folder, or the card is not for this name.
    """
    problems = []
    try:
        validate_repo_id(name)
        if name.count("/") != 1:
            problems.append(f"'{name}' is not of the form user/name")
    except HFValidationError as error:
        problems.append(str(error))
    problems += [
        f"{folder} has no {file}"
        for file in NEEDED
        if not (folder / file).is_file()
    ]
    found = sorted(folder.rglob("*"))
    for path in found:
        if path.is_symlink():
            problems.append(f"{path} is a link, which may lead elsewhere")
        elif path.name.startswith("."):
            problems.append(f"{path} is hidden")
    card = folder / "README.md"
    if card.is_file():
        problems += _card_problems(card, name)
    refuse("publish", problems, "Correct these; nothing was sent.")
    files = [path for path in found if path.is_file()]
    return sorted(files, key=lambda p: (p == card, -p.stat().st_size))


def _card_problems(card, name):
    try:
        data = ModelCard.load(card).data.to_dict()
    except ValueError as error:
        return [f"the front matter of {card} cannot be read: {error}"]
    problems = [
        f"the front matter of {card} has no {key}"
        for key in ("library_name", "license", "tags")
        if not data.get(key)
    ]
    if f'"{name}"' not in card.read_text(encoding="utf-8"):
        problems.append(
            f"the commands of {card} load another name: export again with "
            f"--name {name} --force"
        )
    return problems


def _ask(name, request, *arguments, **options):
    """What the Hub answers, its refusals as one message."""
    try:
        return request(*arguments, **options)
    except Exception as error:  # kinds differ between versions of the library
        response = getattr(error, "response", None)
        code = getattr(response, "status_code", None)
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        problem, advice = _ANSWERS.get(
            code,
            (
                f"the Hub was not reached: {what}"
                if code is None
                else f"the Hub refused: {what}",
                "Check the network (and HF_HUB_OFFLINE) and try again.",
            ),
        )
        refuse(name, [problem], advice)


_ANSWERS = {
    401: ("the token is not valid", "Run `hf auth login` with a new one."),
    403: (
        "the token may not write for this owner",
        "Give a name of your own, or a token with the right to write.",
    ),
    409: ("the name or branch is taken", "Give another one."),
}


def _take_back(address, name, delete, options):
    try:
        delete(name, **options)
    except Exception as error:  # as in _ask; the first failure is told
        print(f"{address} could not be removed again: {error}")
