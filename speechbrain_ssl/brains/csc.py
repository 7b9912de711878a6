"""Contrastive Separative Coding: the training step."""

import logging

import torch

from speechbrain_ssl.brains.aam_supcon import AAMBrain
from speechbrain_ssl.checks import refuse

logger = logging.getLogger(__name__)


class CSCBrain(AAMBrain):
    """Mixtures to slots, slots to global vectors, four named terms.

    1. The separative encoder gives each mixture's slots an embedding and a
       waveform.
    2. SI-SNR finds which slot holds which source (`separation`).
    3. Slots that hold a talker are gathered with their identities.
    4. The aggregator gives the global vector of every identity as each slot
       sees it, and the slot has to pick its own (`contrastive`).
    5. With a weight for it, a margin softmax over the training identities
       (speakers, or without labels recordings) classifies the slot as well
       (`aam`).

    Source: Wang et al. 2021, arXiv:2103.00816; see the losses and lobes of
    the same name for what is the paper's and what is ours.

    Differs: the fifth is ours; Wavesplit (arXiv:2002.08933) has such a term,
    and classes that are single recordings are those of exemplar training
    (Dosovitskiy et al. 2014, arXiv:1406.6909).
    """

    MODULES_NEEDED = ("encoder", "aggregator", "contrastive")
    HPARAMS_NEEDED = (
        *AAMBrain.HPARAMS_NEEDED,
        "separation",
        "identities_per_batch",
        "conditions",
        "sources",
    )
    TERMS = ("contrastive", "separation", "aam")

    def __init__(self, modules, opt_class, hparams, *rest, **more):
        if not hparams.get("loss_weights", {}).get("aam"):
            # A row an identity: not made for nothing, there may be millions.
            modules = {k: v for k, v in modules.items() if k != "aam"}
        super().__init__(modules, opt_class, hparams, *rest, **more)

    def on_fit_start(self):
        """Check that an inventory has one row an identity, then start."""
        count = len(self.sampler.names)
        size = len(getattr(self.hparams.contrastive, "inventory", range(count)))
        problem = f"it is {size}, the training manifest has {count} identities"
        refuse(
            "inventory_size",
            [problem] if size != count else [],
            f"Set --inventory_size={count}.",
        )
        aggregation = getattr(self.hparams.aggregator, "aggregation", None)
        learned = aggregation in ("attention", "value_map")
        if learned and self.hparams.conditions == 2:
            logger.warning(
                "conditions is 2: attention over the one other condition has "
                "no choice, its queries and keys are not trained; use 3 or 4"
            )
        super().on_fit_start()

    def embed(self, batch):
        """Slots of the mixtures.

        Arguments
        ---------
        batch : dict
            `mixture` (B, T) and what `MixtureDataset` adds.

        Returns
        -------
        Slots
            Embeddings (B, C, D), estimates (B, C, T).
        """
        return self.modules.encoder(batch["mixture"])

    def terms(self, outputs, batch):
        """Separation, contrastive and classification terms.

        Arguments
        ---------
        outputs : Slots
            Of `embed`.
        batch : dict
            `sources` (B, C, T), `identities` (B, C), `entries` (B, C).

        Returns
        -------
        dict
            Name to scalar.
        """
        separation, permutation = self.hparams.separation(
            outputs.estimates, batch["sources"]
        )
        identities = batch["identities"].gather(1, permutation).flatten()
        entries = batch["entries"].gather(1, permutation).flatten()
        # As many slots hold a talker in every batch: no count leaves the GPU.
        count = self.hparams.identities_per_batch * self.hparams.conditions
        spoken = (identities < 0).int().argsort(stable=True)[:count]  # (N,)
        embeddings = outputs.embeddings.flatten(0, 1)[spoken]
        mixtures = torch.div(
            spoken, self.hparams.sources, rounding_mode="floor"
        )
        vectors = self.modules.aggregator(
            embeddings, identities[spoken], self.hparams.conditions
        )
        terms = {
            "separation": separation,
            "contrastive": self.modules.contrastive(
                embeddings,
                vectors,
                identities[spoken],
                mixtures=mixtures,
                entries=entries[spoken],
            ),
        }
        self.add("log_contrast_set", self.hparams.contrastive.log_set)
        if "aam" in self.modules:
            slots = embeddings.unsqueeze(1)  # one view each
            terms["aam"] = self.modules.aam(slots, entries[spoken])
        return terms

    def notes(self, terms):
        """The mutual-information bound in nats."""
        bound = terms["log_contrast_set"] - terms["contrastive"]
        return {"information_bound": bound}
