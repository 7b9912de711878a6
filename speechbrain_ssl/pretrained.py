"""The evaluated encoder of a training folder."""

from functools import partial
from pathlib import Path
from typing import Union

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import average_checkpoints
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
    average : int
        1: the checkpoint with the best validation EER (or lowest loss);
        above: mean weights of that many last epochs.

    Raises
    ------
    BadInputError
        If the folder is not that of a run or has too few checkpoints.
    """

    def __init__(
        self,
        source: Union[str, Path],
        device: str = "cpu",
        average: int = 1,
    ):
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
        self.checkpoints = _chosen(self.hparams["checkpointer"], average)
        missing = average - len(self.checkpoints)
        refuse(
            str(source),
            [f"{missing} of {average} checkpoints are missing in {folder}/save"]
            if missing
            else [],
            f"{advice} Training keeps the last --checkpoints_kept=N."
            if average > 1
            else advice,
        )
        self.encoder.load_state_dict(self.weights(evaluated))
        self.encoder.eval().to(device)
        self.folder = folder

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        """Saved tensors of a module, averaged over the chosen checkpoints.

        Arguments
        ---------
        name : str
            Of the recoverable in the YAML.

        Returns
        -------
        dict
            For load_state_dict.
        """
        load = partial(torch.load, weights_only=True)
        return average_checkpoints(self.checkpoints, name, load)


def _chosen(checkpointer, average):
    if average > 1:
        return checkpointer.find_checkpoints(
            max_key="epoch", max_num_checkpoints=average
        )
    best = checkpointer.find_checkpoint(
        min_key="valid_eer"
    ) or checkpointer.find_checkpoint(min_key="loss")
    return [best] if best else []
