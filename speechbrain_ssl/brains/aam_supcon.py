"""AAM-SupCon: margin softmax and supervised contrast on the same views."""

from speechbrain_ssl.brains.embedding import EmbeddingBrain
from speechbrain_ssl.checks import refuse
from speechbrain_ssl.schedules import value_at


class AAMBrain(EmbeddingBrain):
    """Every named loss over all views of labelled utterances.

    `aam`, where it is among the modules, classifies the training speakers,
    which are counted, with an angular margin that may follow a schedule.
    """

    MODULES_NEEDED = ("encoder", "aam")
    HPARAMS_NEEDED = (*EmbeddingBrain.HPARAMS_NEEDED, "margin")

    def __init__(self, modules, opt_class, hparams, *rest, sampler, **more):
        if "aam" in modules:
            _set_classes(modules["aam"], len(sampler.names))
        super().__init__(
            modules, opt_class, hparams, *rest, sampler=sampler, **more
        )

    def on_fit_batch_start(self, batch, should_step):
        """Also set the margin of this step."""
        super().on_fit_batch_start(batch, should_step)
        if "aam" in self.modules:
            margin = value_at(self.hparams.margin, self.progress)
            self.hparams.aam.margin = margin


class AAMSupConBrain(AAMBrain):
    """Margin softmax, and contrast of all views of the batch.

    `loss_weights` adds `aam` and `supcon`, equally in the paper.

    Source: Li, Mak 2022, arXiv:2210.16636; see the losses.
    """

    MODULES_NEEDED = (*AAMBrain.MODULES_NEEDED, "supcon")

    def terms(self, outputs, batch):
        """Also log what an anchor of the contrastive term meets."""
        terms = super().terms(outputs, batch)
        if "supcon" not in terms:
            return terms
        for name in ("positives", "negatives", "floor"):
            self.add(f"supcon_{name}", getattr(self.hparams.supcon, name))
        return terms


def _set_classes(aam, count):
    problem = f"it is {aam.classes}, the training manifest has {count} speakers"
    refuse(
        "classes",
        [] if aam.classes in (None, count) else [problem],
        f"Set --classes={count}, or leave it out.",
    )
    if aam.classes is None:
        aam.set_classes(count)
