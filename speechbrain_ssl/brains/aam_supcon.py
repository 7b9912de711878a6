"""AAM-SupCon: margin softmax and supervised contrast on the same views."""

from speechbrain_ssl.brains.embedding import EmbeddingBrain
from speechbrain_ssl.checks import refuse
from speechbrain_ssl.schedules import value_at


class AAMSupConBrain(EmbeddingBrain):
    """Every named loss over all views of labelled utterances.

    `aam` classifies the training speakers with an angular margin, `supcon`
    contrasts all views of the batch; `loss_weights` adds them, equally in the
    paper.

    Source: Li, Mak 2022, arXiv:2210.16636; see the losses.
    """

    MODULES_NEEDED = ("encoder", "aam", "supcon")
    HPARAMS_NEEDED = (*EmbeddingBrain.HPARAMS_NEEDED, "margin")

    def __init__(self, modules, opt_class, hparams, *rest, sampler, **more):
        count = len(sampler.names)
        classes = hparams["aam"].classes
        problem = f"it is {classes}, the training manifest has {count} speakers"
        refuse(
            "classes",
            [] if classes in (None, count) else [problem],
            f"Set --classes={count}, or leave it out.",
        )
        if classes is None:
            hparams["aam"].set_classes(count)
        super().__init__(
            modules, opt_class, hparams, *rest, sampler=sampler, **more
        )

    def terms(self, outputs, batch):
        """Also log what an anchor of the contrastive term meets."""
        terms = super().terms(outputs, batch)
        for name in ("positives", "negatives", "floor"):
            self.add(f"supcon_{name}", getattr(self.hparams.supcon, name))
        return terms

    def on_fit_batch_start(self, batch, should_step):
        """Also set the margin of this step."""
        super().on_fit_batch_start(batch, should_step)
        self.hparams.aam.margin = value_at(
            self.hparams.margin, self.optimizer_step
        )
