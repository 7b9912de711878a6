"""Supervised contrastive loss, forward and backward, beside a naive one.

python benchmarks/supcon.py [--rows 320 1280 7360] [--repeats 5]

The naive loss multiplies square masks, as most open code does. Five views of
each utterance, 192 dimensions, two utterances of a speaker. Prints the least
of a few repeats in milliseconds, called in turn, and the peak of tensor
memory beyond the embeddings.
"""

import argparse

import torch
from timing import most_memory, side_by_side
from torch.nn import functional as F

from speechbrain_ssl.losses.aam_supcon import SupConLoss

VIEWS = 5


def naive_loss(embeddings, labels, temperature=0.07):
    """The same loss by a mask of positives and a mask of oneself."""
    rows = F.normalize(embeddings, dim=-1).flatten(0, 1)
    labels = labels.repeat_interleave(embeddings.shape[1])
    logits = rows @ rows.T / temperature
    logits = logits - logits.max(1, keepdim=True).values.detach()
    others = 1 - torch.eye(len(rows), device=rows.device)
    positives = (labels[:, None] == labels).float() * others
    powers = torch.exp(logits) * others
    log_shares = logits - powers.sum(1, keepdim=True).log()
    return -((positives * log_shares).sum(1) / positives.sum(1)).mean()


def main():
    """Print times, memory and ratios for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[320, 1280, 7360]
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    print(f"torch {torch.__version__}, {arguments.threads} threads")
    for rows in arguments.rows:
        compare(rows, arguments.repeats)


def compare(rows, repeats):
    """One line for a number of rows; both must agree."""
    batch = rows // VIEWS
    embeddings = torch.randn(batch, VIEWS, 192, requires_grad=True)
    labels = torch.arange(batch) // 2
    losses = {"ours": SupConLoss(), "naive": naive_loss}
    values = {name: loss(embeddings, labels) for name, loss in losses.items()}
    torch.testing.assert_close(*values.values())
    gradients = [
        torch.autograd.grad(value, embeddings)[0] for value in values.values()
    ]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
    steps = {
        name: lambda loss=loss: torch.autograd.grad(
            loss(embeddings, labels), embeddings
        )
        for name, loss in losses.items()
    }
    times = side_by_side(steps, repeats)
    sizes = {name: most_memory(step) for name, step in steps.items()}
    print(
        f"{rows:5d} rows: ours {times['ours']:8.1f} ms {sizes['ours']:7.1f} MB, "
        f"naive {times['naive']:8.1f} ms {sizes['naive']:7.1f} MB "
        f"({times['naive'] / times['ours']:.1f} times the time, "
        f"{sizes['naive'] / sizes['ours']:.1f} times the memory)"
    )


if __name__ == "__main__":
    main()
