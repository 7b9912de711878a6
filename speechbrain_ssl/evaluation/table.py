"""Tables of embeddings on disk: restartable, made by several processes."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Union
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from torch import nn

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.files import replaced_when_done
from speechbrain_ssl.evaluation.embed import Embeddings, embed

PART = 500  # utterances between two savings


def embed_to_table(
    encoder: nn.Module,
    rows: pd.DataFrame,
    path: Union[str, Path],
    device: torch.device,
    label: str = "embeddings",
    show: bool = True,
    padding: float = 0.0,
) -> Embeddings:
    """Embeddings of a manifest, kept in a file; what is there is not redone.

    Parts are saved beside the file on the way, so that a killed run goes on
    where it was. Under torchrun every process embeds its share. A file made
    by other weights or of other utterances is made anew.

    Arguments
    ---------
    encoder : torch.nn.Module
        As for `embed`.
    rows : pandas.DataFrame
        Manifest rows.
    path : str or pathlib.Path
        The .npz file.
    device : torch.device
        Where the encoder is.
    label, show, padding
        As for `embed`.

    Returns
    -------
    Embeddings
        In the order of the rows.

    Raises
    ------
    BadInputError
        If a file cannot be read.
    """
    path = Path(path)
    made_of = _of_main(fingerprint(encoder, rows, padding))
    parts = path.with_name(f"{path.stem}.{made_of[:16]}.parts")
    if path.is_file() and _load(path, "made_of").tobytes().decode() == made_of:
        return read_table(path)[1]
    found = sorted(parts.glob("[!.]*.npz"))
    done = [_load(part, "rows") for part in found]
    ddp_barrier()  # nobody writes before everybody has looked
    left = np.setdiff1d(np.arange(len(rows)), np.concatenate([[], *done]))
    lengths = (rows["stop"] - rows["start"]).to_numpy()[left]
    rank, processes = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", 0), ("WORLD_SIZE", 1))
    )
    own = left[np.argsort(-lengths, kind="stable")][rank::processes]
    for first in range(0, len(own), PART):
        chosen = own[first : first + PART]
        name = f"{label} {first + len(chosen)} of {len(own)}"
        new = embed(
            encoder, rows.iloc[chosen], device, None, name, show, padding
        )
        _save(
            parts / f"{chosen[0]:09d}.npz",
            rows=chosen,
            vectors=new.vectors,
            energies=new.energies,
        )
    ddp_barrier()
    if if_main_process():
        _join(parts, path, rows["ID"], made_of)
    ddp_barrier()
    return read_table(path)[1]


def _of_main(made_of):
    """The main process's: times of copies of a file may differ by machine."""
    if not torch.distributed.is_initialized():
        return made_of
    box = [made_of]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def _join(parts, path, ids, made_of):
    files = sorted(parts.glob("[!.]*.npz"))
    rows = np.concatenate([[], *(_load(part, "rows") for part in files)])
    order = rows.argsort()
    problem = f"{len(rows)} of {len(ids)} utterances are in {parts}"
    refuse(
        str(path),
        [] if np.array_equal(rows[order], np.arange(len(ids))) else [problem],
        "All processes need one output folder; run it again there.",
    )
    vectors, energies = (
        np.concatenate([_load(part, name) for part in files])[order]
        for name in ("vectors", "energies")
    )
    text = "\n".join(ids).encode()
    _save(
        path,
        ids=np.frombuffer(text, np.uint8),
        made_of=np.frombuffer(made_of.encode(), np.uint8),
        vectors=vectors,
        energies=energies,
    )
    shutil.rmtree(parts)  # also what a kill left half-written


def read_table(path: Union[str, Path]) -> tuple[list[str], Embeddings]:
    """Names and embeddings of a file of `embed_to_table`.

    Arguments
    ---------
    path : str or pathlib.Path
        The .npz file; no code in it is run.

    Returns
    -------
    ids : list of str
    embeddings : Embeddings

    Raises
    ------
    BadInputError
        If it is no such file.
    """
    ids = _load(path, "ids").tobytes().decode().split("\n")
    return ids, Embeddings(_load(path, "vectors"), _load(path, "energies"))


def fingerprint(
    encoder: nn.Module, rows: pd.DataFrame, padding: float = 0.0
) -> str:
    """Digest of an encoder and of the utterances it sees, and how.

    An encoder is its weights and the plain attributes of its modules, such as
    the edges of a filterbank. A file counts as another one when its size or
    time of change is another.

    Example
    -------
    >>> rows = pd.DataFrame({"ID": ["a"], "wav": ["a.wav"]})
    >>> rows = rows.assign(start=0, stop=[8])
    >>> one = fingerprint(nn.Linear(1, 1), rows)
    >>> one == fingerprint(nn.Linear(1, 1), rows)
    False
    """
    digest = hashlib.sha256()
    for name, value in sorted(_tensors(encoder).items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        flat = value.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    digest.update(repr(sorted(_attributes(encoder))).encode())
    columns = rows[["ID", "wav", "start", "stop"]]
    digest.update(json.dumps(columns.astype(str).values.tolist()).encode())
    for path in rows["wav"].unique():
        digest.update(_version(path).encode())
    digest.update(str(float(padding)).encode())
    return digest.hexdigest()


def _tensors(encoder):
    """What a module computes with; some tensors are plain attributes."""
    plain = {
        f"{place}.{name}": value
        for place, module in encoder.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    }
    buffers = dict(encoder.named_buffers())  # those not saved as well
    return {**plain, **buffers, **encoder.state_dict()}


def _attributes(encoder):
    """Public numbers and words of all modules, apart from where they run."""
    return [
        (place, name, repr(value))
        for place, module in encoder.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, (bool, int, float, str, type(None)))
        and not name.startswith(("_", "training", "device"))
    ]


def _version(path):
    try:
        found = os.stat(path)
    except OSError:  # reading it will say so
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns} "


def _load(path, name):
    try:
        with np.load(path, allow_pickle=False) as file:
            return file[name]
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        refuse(
            str(path),
            [f"it holds no table of embeddings ({error})"],
            "Remove it; it is then made anew.",
        )


def _save(path, **arrays):
    with replaced_when_done(path) as temporary:
        np.savez(temporary, **arrays)
