"""Weights that training starts from."""

from pathlib import Path
from typing import Union

import torch

from speechbrain_ssl.checks import refuse


def start_from(model: torch.nn.Module, path: Union[str, Path]) -> None:
    """Load the weights of a file that another run or an export wrote.

    Arguments
    ---------
    model : torch.nn.Module
        The embedding model.
    path : str or pathlib.Path
        Its `state_dict`; read with weights_only.

    Raises
    ------
    BadInputError
        If there is no such file or it is of another network.
    """
    path, problem = Path(path), "there is no such file"
    refuse(
        f"embedding_weights {path}",
        [] if path.is_file() else [problem],
        "Give DIR/embedding_model.ckpt of 'speechbrain-ssl export RUN --to DIR'.",
    )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    ours = {name: tuple(v.shape) for name, v in model.state_dict().items()}
    theirs = {name: tuple(v.shape) for name, v in weights.items()}
    names = sorted(set(ours) | set(theirs))
    refuse(
        f"embedding_weights {path}",
        [
            f"{name} has the shape {theirs.get(name)}; this network has "
            f"{ours.get(name)}"
            for name in names
            if ours.get(name) != theirs.get(name)
        ],
        "Give the same embedding_model as in the run the weights are from.",
    )
    model.load_state_dict(weights)
