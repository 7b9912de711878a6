"""Two gloo processes against one process with the doubled batch."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, dino_options
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from speechbrain_ssl import checkpoints
from speechbrain_ssl.checkpoints import SafeCheckpointer
from speechbrain_ssl.evaluation import positives
from speechbrain_ssl.lobes.dino import DINOHead
from speechbrain_ssl.lobes.teacher import Teacher
from speechbrain_ssl.losses.aam_supcon import AAMLoss, SupConLoss
from speechbrain_ssl.losses.dino import DINOLoss

STEPS, BATCH = 3, 8


class Views(nn.Module):
    """A linear encoder of groups of views."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 6)

    def forward(self, *groups):
        return torch.cat([self.layer(group) for group in groups], 1)


def dino_steps(rank, processes, sinkhorn):
    """A few steps on this process's share of each batch."""
    torch.manual_seed(0)
    encoder, head = Views(), DINOHead(6, 16, 10, 5)
    teacher = Teacher(encoder, head)
    loss = DINOLoss(16, sinkhorn_iterations=sinkhorn)
    trained = [encoder, head]
    if processes > 1:
        trained = [DistributedDataParallel(m) for m in trained]
    parameters = [p for m in trained for p in m.parameters()]
    optimiser = torch.optim.SGD(parameters, lr=0.5)
    share = BATCH // processes
    mine = slice(rank * share, (rank + 1) * share)
    for _ in range(STEPS):
        long, short = torch.randn(BATCH, 2, 12), torch.randn(BATCH, 4, 12)
        student = trained[1](
            trained[0](long[mine], short[mine]).transpose(0, 1)
        )
        _, seen = teacher.both(long[mine])
        optimiser.zero_grad()
        loss(student, seen, 0.04).backward()
        optimiser.step()
        teacher.follow(encoder, head, 0.9)
    state = {**teacher.state_dict(), "centre": loss.centre}
    return {**state, **head.state_dict(prefix="student.")}


def supcon_steps(rank, processes, margin):
    """The same with AAM and SupCon, of which only SupCon sees all rows."""
    torch.manual_seed(0)
    encoder, aam = Views(), AAMLoss(6, 5)
    supcon = SupConLoss(margin=margin)
    trained = [encoder, aam]
    if processes > 1:
        trained = [DistributedDataParallel(m) for m in trained]
    parameters = [p for m in trained for p in m.parameters()]
    optimiser = torch.optim.SGD(parameters, lr=0.5)
    share = BATCH // processes
    mine = slice(rank * share, (rank + 1) * share)
    for _ in range(STEPS):
        views, labels = torch.randn(BATCH, 3, 12), torch.randint(5, (BATCH,))
        embeddings = trained[0](views[mine])
        loss = supcon(embeddings, labels[mine])
        loss = loss + trained[1](embeddings, labels[mine])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {**encoder.state_dict(), **aam.state_dict(prefix="aam.")}


def process(rank, folder, steps, option):
    """One of two processes; the results of each go to a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/meet", rank=rank, world_size=2
    )
    torch.save(steps(rank, 2, option), f"{folder}/{rank}.pt")
    torch.distributed.barrier()  # no one leaves while another still speaks
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads can abort an interpreter that ends


def saved_checkpoints(rank, processes, slowness):
    """Checkpoints that a process finds after each save of the main one."""
    rename = os.replace

    def slowly(*paths):
        time.sleep(slowness)
        rename(*paths)

    checkpoints.os.replace = slowly
    os.environ["RANK"] = str(rank)  # what SpeechBrain looks at
    layer = torch.nn.Linear(1, 1)
    checkpointer = SafeCheckpointer("checkpoints", {"layer": layer})
    found = []
    for _ in range(3):
        checkpointer.save_checkpoint()
        found.append(len(checkpointer.list_checkpoints()))
    return {"found": torch.tensor(found)}


def neighbours(rank, processes, rows):
    """The table of neighbours, and how many rows this process embedded."""
    vectors = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)
    seen = []

    def embed_starts(encoder, own, device):
        seen.append(len(own))
        return vectors[own.index]

    names = [f"{row}/a/x.wav" for row in range(rows)]
    frame = pd.DataFrame({"ID": names, "wav": names, "spk_id": names})
    brain = SimpleNamespace(
        sampler=SimpleNamespace(rows=frame),
        evaluated=None,
        device="cpu",
        step=0,
    )
    with mock.patch.object(positives, "embed_starts", embed_starts):
        positives.NeighbourPositives(2, 1).prepare(brain, 1)
    table = torch.from_numpy(brain.sampler.positives)
    return {"table": table, "seen": torch.tensor(seen)}


@pytest.mark.parametrize("rows", [8, 9])
def test_each_process_embeds_a_share_for_the_neighbours(tmp_path, rows):
    given = str(tmp_path), neighbours, rows
    torch.multiprocessing.spawn(process, given, nprocs=2)
    alone = neighbours(0, 1, rows)
    assert alone["seen"].tolist() == [rows]
    for rank, share in ((0, rows - rows // 2), (1, rows // 2)):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(state["table"], alone["table"])
        assert state["seen"].tolist() == [share]


def test_every_process_finds_a_checkpoint_that_was_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = str(tmp_path), saved_checkpoints, 0.3
    torch.multiprocessing.spawn(process, given, nprocs=2)
    for rank in (0, 1):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert state["found"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("steps", "option"), [(dino_steps, 0), (dino_steps, 3), (supcon_steps, 0.1)]
)
def test_two_processes_equal_one_with_the_doubled_batch(
    tmp_path, steps, option
):
    given = str(tmp_path), steps, option
    torch.multiprocessing.spawn(process, given, nprocs=2)
    alone = steps(0, 1, option)
    assert len(alone) >= 3
    for rank in (0, 1):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in alone.items():
            torch.testing.assert_close(
                state[name], value, rtol=1e-4, atol=1e-5, msg=name
            )


def test_training_runs_on_two_processes(small_corpus, tmp_path):
    arguments = dino_options(
        small_corpus,
        tmp_path / "run",
        "--batch_size=4",
        "--distributed_backend=gloo",
    )
    torchrun("train.py", *arguments)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["epochs"] == 2 and "clean" in metrics["trials"]
    told = torchrun(
        "verify.py",
        str(REPOSITORY / "hparams" / "verify.yaml"),
        f"--source={tmp_path / 'run'}",
        f"--trials={small_corpus / 'trials.txt'}",
        f"--data_folder={small_corpus}",
        f"--output_folder={tmp_path / 'verified'}",
        "--sirs_db=[]",
        "--distributed_backend=gloo",
    )
    assert told.count("written to") == 1  # by the first process alone
    again = json.loads((tmp_path / "verified" / "metrics.json").read_text())
    for name in ("eer", "min_dcf"):
        ours, theirs = (m["trials"]["clean"][name] for m in (again, metrics))
        assert ours == pytest.approx(theirs)


def torchrun(script, *arguments):
    """Run a script on two processes; what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run"]
    command += ["--standalone", "--nproc_per_node=2"]
    ran = subprocess.run(
        [*command, str(REPOSITORY / script), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout
