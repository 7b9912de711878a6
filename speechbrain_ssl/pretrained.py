"""The evaluated encoder of a training folder."""

from pathlib import Path
from typing import Union

import torch
from hyperpyyaml import load_hyperpyyaml
from torch import nn

from speechbrain_ssl.checks import refuse


class Pretrained:
    """Encoder and settings of a finished or interrupted training folder.

    The folder's hyperparams.yaml is executed while it is read, as every
    HyperPyYAML file is: give only folders you trust. Weights are read with
    weights_only.

    Arguments
    ---------
    source : str or pathlib.Path
        Output folder of train.py.
    device : str
        Where the encoder goes.

    Raises
    ------
    BadInputError
        If the folder is not that of a run or has no checkpoint.
    """

    def __init__(self, source: Union[str, Path], device: str = "cpu"):
        folder = Path(source)
        yaml = folder / "hyperparams.yaml"
        advice = "Give the output folder of train.py with --source=DIR."
        refuse(
            str(source),
            [] if yaml.is_file() else ["it has no hyperparams.yaml"],
            advice,
        )
        overrides = {"output_folder": str(folder)}
        text = yaml.read_text(encoding="utf-8")
        for key in ("noise_folder", "rir_folder"):  # not needed any more
            if f"\n{key}:" in text:
                overrides[key] = None
        self.hparams = load_hyperpyyaml(text, overrides)
        brain = self.hparams["brain"]
        evaluated = getattr(brain, "func", brain).EVALUATED
        self.encoder: nn.Module = self.hparams[evaluated]
        checkpointer = self.hparams["checkpointer"]
        best = checkpointer.find_checkpoint(
            min_key="valid_eer"
        ) or checkpointer.find_checkpoint(min_key="loss")
        refuse(
            str(source),
            [] if best else [f"no checkpoint is in {folder / 'save'}"],
            advice,
        )
        weights = torch.load(
            best.paramfiles[evaluated], map_location="cpu", weights_only=True
        )
        self.encoder.load_state_dict(weights)
        self.encoder.eval().to(device)
        self.folder = folder
