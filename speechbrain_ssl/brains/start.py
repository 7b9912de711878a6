"""Weights that training starts from."""

from pathlib import Path
from typing import Union

import torch

from speechbrain_ssl.checks import misfits, refuse


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
    refuse(
        f"embedding_weights {path}",
        misfits(weights, model.state_dict()),
        "Give the same embedding_model as in the run the weights are from.",
    )
    model.load_state_dict(weights)
