"""Checkpoints that are complete or absent; random states and time in them."""

import logging
import os
import random
import shutil
import time
from pathlib import Path
from typing import Optional

import numpy as np
import pandas as pd
import torch
from speechbrain.utils.checkpoints import (
    Checkpoint,
    Checkpointer,
    ckpt_recency,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    run_on_main,
)

from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.manifest import checksum, read_manifest

logger = logging.getLogger(__name__)


class SafeCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, safe against a kill while saving.

    The stock class writes the file that makes a folder count as a checkpoint
    first; a kill during saving leaves a newest checkpoint that cannot be
    loaded. Here a checkpoint is written under another name and renamed when
    it is complete, so the one before it stays in force until then; what a
    kill left half-written is removed at the next save.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> layer = torch.nn.Linear(1, 1)
    >>> checkpointer = SafeCheckpointer(folder, {"layer": layer})
    >>> saved = checkpointer.save_checkpoint()
    >>> [found.path == saved.path for found in checkpointer.list_checkpoints()]
    [True]
    """

    corpus: Optional[str] = None  # what is trained on, see `train_on`

    def train_on(
        self, rows: pd.DataFrame, before: Optional[Path] = None
    ) -> None:
        """Say what is trained on; checkpoints of another corpus are refused.

        One that lacks up to 1 % of the utterances, and no speaker, is the
        same, with a notice: damaged files may have been removed.

        Arguments
        ---------
        rows : pandas.DataFrame
            With the columns ID and spk_id, in any order.
        before : pathlib.Path, optional
            Manifest that the run was trained on so far, if it exists.

        Raises
        ------
        BadInputError
            If the newest checkpoint was trained on another.
        """
        self.corpus = checksum(rows["ID"])
        found = self.find_checkpoint()
        its = found and found.meta.get("corpus")
        if its in (None, self.corpus):
            return
        problem = f"they are {self.corpus}; training began with {its}"
        near = _lacks_few(rows, before, most=int(its.split()[0]))
        if near:
            logger.warning("some utterances are gone: %s", problem)
        refuse(
            "training utterances",
            [] if near else [problem],
            f"{self.checkpoints_dir} has its checkpoints. Give the corpus of "
            "before, or another folder with --output_folder=DIR.",
        )

    def save_checkpoint(self, meta=None, *args, **kwargs):
        """Save everything registered; see `Checkpointer.save_checkpoint`.

        Arguments
        ---------
        meta : dict, optional
            Plain numbers and text: the file is read safely.
        *args, **kwargs
            As in SpeechBrain.

        Returns
        -------
        Checkpoint or None
            None on all but the main process.
        """
        meta = dict(meta or {})
        if self.corpus is not None:
            meta["corpus"] = self.corpus
        saved = super().save_checkpoint(meta, *args, **kwargs)
        ddp_barrier()
        if if_main_process():
            saved = _complete(saved)
        # All processes must find the same checkpoints from here on: deleting
        # one is a collective operation.
        ddp_barrier()
        return saved

    def save_and_keep_only(self, *args, importance_keys=(), **kwargs):
        """Save, then delete; see `Checkpointer.save_and_keep_only`.

        The stock method appends to its default list of keys at each call,
        and reads the folder anew for each key.

        Arguments
        ---------
        importance_keys : sequence of callable
            As in SpeechBrain.
        *args, **kwargs
            As in SpeechBrain.
        """
        keys = list(importance_keys)
        super().save_and_keep_only(*args, importance_keys=keys, **kwargs)

    def delete_checkpoints(self, **kwargs):
        """Delete on the main process; see `Checkpointer.delete_checkpoints`.

        The stock method lists the folder on every process: a node whose file
        system is behind would take part in other deletions and wait for ever.

        Arguments
        ---------
        **kwargs
            As in SpeechBrain.
        """
        run_on_main(super().delete_checkpoints, kwargs=kwargs)

    def chosen(self) -> Optional[Checkpoint]:
        """The end of an epoch that stands for the run.

        The latest of those whose validation EER is within one standard error
        of the lowest: among few trials an early epoch is often the lowest by
        chance, and the last one has had all of the training and its lowest
        learning rate. Without validation the lowest training loss. `rank`
        keeps it while training goes on.

        Source: the rule of one standard error, Breiman, Friedman, Olshen,
        Stone, "Classification and Regression Trees", 1984.

        Returns
        -------
        Checkpoint or None
            None before the end of the first epoch.
        """
        best = self.find_checkpoint(min_key="valid_eer")
        if best is None:
            return self.find_checkpoint(min_key="loss")
        most = best.meta["valid_eer"]
        if "valid_targets" in best.meta:
            most += _standard_error(most, best.meta["valid_targets"])
        return self.find_checkpoint(
            max_key="epoch",
            ckpt_predicate=lambda one: one.meta.get("valid_eer", 1.0) <= most,
        )

    def rank(self, checkpoint: Checkpoint) -> tuple[bool, float]:
        """Importance for `save_and_keep_only`: the chosen one, then the latest.

        Arguments
        ---------
        checkpoint : Checkpoint
            One of the folder.

        Returns
        -------
        tuple of bool and float
            The higher, the longer it is kept.
        """
        chosen = self.chosen()
        stands = chosen is not None and checkpoint.path == chosen.path
        return stands, ckpt_recency(checkpoint)

    def _new_checkpoint_dirpath(self):
        path = super()._new_checkpoint_dirpath()
        return path.with_name(_PARTIAL + path.name)

    def _custom_checkpoint_dirpath(self, name):
        path = super()._custom_checkpoint_dirpath(name)
        return path.with_name(_PARTIAL + path.name)


_PARTIAL = "partial-"


def _standard_error(eer, targets):
    """Of an EER, as of a share of the target trials, the fewer ones.

    An error and a success are added (Agresti, Coull 1998), as no error among
    few trials is no certainty.
    """
    share = (eer * targets + 1) / (targets + 2)
    return (share * (1 - share) / (targets + 2)) ** 0.5


def _lacks_few(rows, before, most):
    """Whether rows are at least 99 % of a manifest's, of all its speakers."""
    few = 0.99 * most <= len(rows) < most
    if not few or before is None or not before.is_file():
        return False
    whole = read_manifest(before)
    kept = set(rows["ID"]) <= set(whole["ID"])
    return kept and set(rows["spk_id"]) == set(whole["spk_id"])


def _complete(saved):
    """The checkpoint under its final name; what a kill left is removed."""
    final = saved.path.with_name(saved.path.name[len(_PARTIAL) :])
    os.replace(saved.path, final)
    for left in final.parent.glob(f"{_PARTIAL}*"):
        shutil.rmtree(left)
    files = {name: final / p.name for name, p in saved.paramfiles.items()}
    return Checkpoint(final, saved.meta, files)


@register_checkpoint_hooks
class RandomState:
    """State of all random generators, restored when training goes on.

    Loading only keeps the state: making a loader's iterator draws from
    torch's generator after recovery. `restore`, called before an epoch and at
    its first batch, puts it in force where it was saved.

    Differs from bit-identical in one case: with several processes only the
    main one's state is saved.
    """

    def __init__(self):
        self.loaded = self.end_of_epoch = None

    @mark_as_saver
    def save(self, path):
        """Write the state as tensors and plain numbers."""
        version, words, gauss = random.getstate()
        name, keys, *rest = np.random.get_state()
        state = {
            "python": [version, list(words), gauss],
            "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all()
            if torch.cuda.is_available()
            else [],
        }
        torch.save(state, path)

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Read a state without putting it in force."""
        self.loaded = torch.load(path, weights_only=True)
        self.end_of_epoch = end_of_epoch

    def restore(self, end_of_epoch: bool) -> None:
        """Put a loaded state in force, once.

        Arguments
        ---------
        end_of_epoch : bool
            Whether an epoch is about to start: a state saved at the end of
            one; otherwise one saved within.
        """
        if self.loaded is None or self.end_of_epoch != end_of_epoch:
            return
        version, words, gauss = self.loaded["python"]
        random.setstate((version, tuple(words), gauss))
        name, keys, *rest = self.loaded["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(self.loaded["torch"])
        if self.loaded["cuda"] and torch.cuda.is_available():
            here = torch.cuda.device_count()
            torch.cuda.set_rng_state_all(self.loaded["cuda"][:here])
        self.loaded = None


@register_checkpoint_hooks
class Stopwatch:
    """Minutes that a run has taken, also when it was killed in between.

    What passed between the last checkpoint and the kill is not counted. Only
    the checkpoint that training goes on from counts, not one that is loaded
    after training, such as the best.

    Example
    -------
    >>> watch = Stopwatch()
    >>> watch.save(getfixture("tmp_path") / "watch")
    >>> watch.minutes < 1
    True
    """

    def __init__(self):
        self.began, self.going = time.time(), False

    @property
    def minutes(self) -> float:
        """Minutes until now."""
        return (time.time() - self.began) / 60

    @mark_as_saver
    def save(self, path):
        """Write the minutes as text."""
        self.going = True
        with open(path, "w", encoding="utf-8") as out:
            out.write(f"{self.minutes}\n")

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Add the minutes of before, if this run has saved nothing yet."""
        if self.going:
            return
        self.going = True
        with open(path, encoding="utf-8") as text:
            self.began -= 60 * float(text.read())
