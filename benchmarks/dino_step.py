"""One DINO step by part, beside a naive step in the same process.

python benchmarks/dino_step.py [--channels 128] [--batch 16] [--repeats 3]

The naive step is written as most open code has it: a double loop over pairs
of views with a log-softmax each, the moving average tensor by tensor and one
call of the encoder for each crop length. Head and encoder are the same.
Prints the least of a few repeats in milliseconds, called in turn, and the
peak of tensor memory of the loss.
"""

import argparse
import copy

import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from timing import least, most_memory, side_by_side

from speechbrain_ssl.lobes.dino import DINOHead
from speechbrain_ssl.lobes.encoder import ViewEncoder
from speechbrain_ssl.lobes.teacher import Teacher
from speechbrain_ssl.losses.dino import DINOLoss

PROTOTYPES = 65536
LONG, SHORT = 64000, 32000  # 4 and 2 s at 16 kHz


def naive_loss(student, teacher, centre, temperature=0.04):
    """Cross-entropy of every pair of views, one after the other."""
    students = [view / 0.1 for view in student]
    teachers = [
        torch.softmax((view - centre) / temperature, -1).detach()
        for view in teacher
    ]
    total, terms = 0, 0
    for u, target in enumerate(teachers):
        for v, view in enumerate(students):
            if u != v:
                logp = torch.log_softmax(view, -1)
                total = total + torch.sum(-target * logp, -1).mean()
                terms += 1
    return total / terms


@torch.no_grad()
def naive_follow(teacher, encoder, head, momentum):
    """The moving average, new tensors for every parameter."""
    for mine, its in ((teacher.encoder, encoder), (teacher.head, head)):
        for ours, theirs in zip(mine.parameters(), its.parameters()):
            ours.data = momentum * ours.data + (1 - momentum) * theirs.data


def networks(channels):
    """Encoder, head and teacher of a size."""
    ecapa = ECAPA_TDNN(
        80,
        channels=[channels] * 4 + [3 * channels],
        attention_channels=128,
        se_channels=128,
    )
    encoder, head = ViewEncoder(ecapa), DINOHead(192, PROTOTYPES)
    return encoder, head, Teacher(encoder, head)


def compare(name, ours, theirs, repeats):
    """Print two times and their ratio; both ways of computing one thing."""
    times = side_by_side({"ours": ours, "naive": theirs}, repeats)
    show(name, **times)
    return times["ours"]


def show(name, ours, naive):
    """Print two times and their ratio."""
    print(
        f"  {name:<28} ours {ours:9.1f}  naive {naive:9.1f}"
        f"  ({naive / ours:.1f} times)"
    )


def main():
    """Print the parts of a step and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    batch, repeats = arguments.batch, arguments.repeats
    print(
        f"batch {batch} of 2 x 4 s + 4 x 2 s, ECAPA {arguments.channels}, "
        f"K {PROTOTYPES}, torch {torch.__version__}, {arguments.threads} "
        "threads; milliseconds"
    )
    overhead = loss_part(batch, repeats)
    encoder, head, teacher = networks(arguments.channels)
    overhead += compare(
        "teacher follows",
        lambda: teacher.follow(encoder, head, 0.996),
        lambda: naive_follow(teacher, encoder, head, 0.996),
        5 * repeats,
    )
    step_part(encoder, head, teacher, batch, repeats, overhead)


def loss_part(batch, repeats):
    """Loss, both ways, in time and memory."""
    student = torch.randn(6, batch, PROTOTYPES).mul_(0.06).requires_grad_()
    teacher = torch.randn(2, batch, PROTOTYPES).mul_(0.06)
    loss = DINOLoss(PROTOTYPES)
    centre = torch.zeros(PROTOTYPES)

    def ours():
        student.grad = None
        loss(student, teacher, 0.04).backward()

    def naive():
        student.grad = None
        naive_loss(student, teacher, centre).backward()
        centre.mul_(0.9).add_(0.1 * teacher.mean((0, 1)))

    spent = compare("loss, both ways", ours, naive, 3 * repeats)
    lean, fat = most_memory(ours), most_memory(naive)
    print(
        f"  {'peak beyond the logits, MB':<28} ours {lean:9.0f}  naive "
        f"{fat:9.0f}  ({fat / lean:.1f} times)"
    )
    return spent


def step_part(encoder, head, teacher, batch, repeats, overhead):
    """Whole steps, and what ours adds to its encoder passes."""
    long = 0.1 * torch.randn(batch, 2, LONG)
    short = 0.1 * torch.randn(batch, 4, SHORT)
    loss, centre = DINOLoss(PROTOTYPES), torch.zeros(PROTOTYPES)
    copies = copy.deepcopy((encoder, head, teacher))
    optimisers = [
        torch.optim.SGD((*e.parameters(), *h.parameters()), lr=1e-4)
        for e, h in ((encoder, head), copies[:2])
    ]

    def encoders():
        with torch.no_grad():
            teacher(long)
        encoder(long, short).square().mean().backward()
        optimisers[0].zero_grad()

    def ours():
        _, seen = teacher.both(long)
        embeddings = encoder(long, short).transpose(0, 1)
        loss(head(embeddings), seen, 0.04).backward()
        optimisers[0].step()
        optimisers[0].zero_grad()
        teacher.follow(encoder, head, 0.996)

    def naive():
        student, projector, its = copies
        views = torch.cat([student(long), student(short)], 1)
        logits = projector(views.transpose(0, 1))
        with torch.no_grad():
            seen = its.head(its.encoder(long).transpose(0, 1))
        naive_loss(logits, seen, centre).backward()
        centre.mul_(0.9).add_(0.1 * seen.mean((0, 1)))
        optimisers[1].step()
        optimisers[1].zero_grad()
        naive_follow(its, student, projector, 0.996)

    heads = head_part(head, teacher, batch, repeats)
    steps = {"passes": encoders, "ours": ours, "naive": naive}
    times = side_by_side(steps, repeats)
    passes, whole = times.pop("passes"), times["ours"]
    print(f"  {'encoder passes, both ways':<28} ours {passes:9.1f}")
    show("step", **times)
    share = 100 * (whole - passes) / passes
    bookkeeping = 100 * overhead / passes
    print(
        f"  beyond the encoder passes {share:.1f} %, of which loss and "
        f"teacher {bookkeeping:.1f} %, heads {100 * heads / passes:.1f} %"
    )


def head_part(head, teacher, batch, repeats):
    """Both heads on embeddings, the student's both ways."""
    embeddings = torch.randn(6, batch, 192)

    def heads():
        with torch.no_grad():
            teacher.head(embeddings[:2])
        head(embeddings).square().mean().backward()
        head.zero_grad()

    spent = least(heads, repeats)
    print(f"  {'heads, both ways':<28} ours {spent:9.1f}")
    return spent


if __name__ == "__main__":
    main()
