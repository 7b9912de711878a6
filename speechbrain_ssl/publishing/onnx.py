"""The embedding model in ONNX, features included."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import Dim

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.lobes.encoder import ViewEncoder

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of the largest value of an embedding, at least of 1
TRIED = ((2, 16007), (1, 8000), (3, 40123))  # (B, T) after the export


def check_onnx(encoder: nn.Module) -> None:
    """Refuse what cannot be exported, before any work.

    Arguments
    ---------
    encoder : torch.nn.Module
        Of a training folder, without its teacher.

    Raises
    ------
    BadInputError
        If a package is missing or the encoder separates.
    """
    if not isinstance(encoder, ViewEncoder):
        problem = "a separative encoder is not exported to ONNX"
        refuse("--onnx", [problem], "Leave --onnx out.")
    missing = [name for name in PACKAGES if find_spec(name) is None]
    problems = [f"the package {name} is not installed" for name in missing]
    advice = "pip install 'speechbrain_ssl[onnx]', or leave --onnx out."
    refuse("--onnx", problems, advice)


@torch.no_grad()
def export_onnx(encoder: ViewEncoder, path: Path) -> float:
    """Write `waveforms` (B, T) to `embeddings` (B, D), any B and T.

    Arguments
    ---------
    encoder : ViewEncoder
        In evaluation mode, on the CPU.
    path : pathlib.Path
        The .onnx file.

    Returns
    -------
    float
        Largest deviation from torch at three lengths, as a share of the
        largest value of an embedding (at least of 1).

    Raises
    ------
    BadInputError
        If onnxruntime gives other embeddings than torch.
    """
    check_onnx(encoder)
    import onnxruntime

    torch.onnx.export(
        encoder,
        (torch.randn(*TRIED[0]),),
        path,
        dynamo=True,
        input_names=["waveforms"],
        output_names=["embeddings"],
        dynamic_shapes=(({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},),),
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )
    worst = 0.0
    for shape in TRIED:
        waves = torch.randn(*shape) / 10
        expected = encoder(waves).numpy()
        (given,) = session.run(None, {"waveforms": waves.numpy()})
        scale = max(1.0, np.abs(expected).max())
        worst = max(worst, float(np.abs(given - expected).max() / scale))
    problem = f"onnxruntime deviates from torch by {worst:.1e}"
    refuse(
        "--onnx",
        [] if worst <= TOLERANCE else [problem],
        "Nothing was written; leave --onnx out.",
    )
    return worst
