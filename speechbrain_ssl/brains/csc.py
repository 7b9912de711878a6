"""Contrastive Separative Coding: the training step."""

from functools import partial

import torch

from speechbrain_ssl.brains.embedding import EmbeddingBrain
from speechbrain_ssl.checks import refuse
from speechbrain_ssl.schedules import value_at

LEAST_WEIGHT = 1e-3  # of the separation term: without it the voice decides


class CSCBrain(EmbeddingBrain):
    """Mixtures to slots, slots to global vectors, four named terms.

    1. The separative encoder gives each mixture's slots a waveform.
    2. SI-SNR finds which slot holds which source (`separation`), and which
       are silent. The others are embedded.
    3. Slots of mixtures are assigned again, by SI-SNR and voice: as
       waveforms hardly differ at first, SI-SNR alone is a coin.
    4. The aggregator gives the global vector of every identity as each slot
       sees it, and the slot has to pick its own (`contrastive`).
    5. With labels, the slot also picks its row of an inventory (`inventory`;
       only when the YAML has that module).

    Source: Wang et al. 2021, arXiv:2103.00816; see the losses and lobes of
    the same name for what is the paper's and what is ours.
    """

    MODULES_NEEDED = ("encoder", "aggregator", "contrastive")
    HPARAMS_NEEDED = (
        *EmbeddingBrain.HPARAMS_NEEDED,
        "separation",
        "identities_per_batch",
        "conditions",
        "sources",
    )
    TERMS = ("contrastive", "separation", "inventory")

    def on_fit_start(self):
        """Check that inventories have one row an identity, then start."""
        count = len(self.sampler.names)
        losses = [
            self.hparams.contrastive,
            self.hparams.modules.get("inventory"),
        ]
        sizes = {
            len(loss.inventory)
            for loss in losses
            if loss is not None and hasattr(loss, "inventory")
        }
        refuse(
            "inventory_size",
            [
                f"it is {size}, the training manifest has {count} identities"
                for size in sizes
                if size != count
            ],
            f"Set --inventory_size={count}.",
        )
        super().on_fit_start()

    def embed(self, batch):
        """Slots of the mixtures; those without a talker are not embedded.

        Arguments
        ---------
        batch : dict
            `mixture` (B, T) and what `MixtureDataset` adds.

        Returns
        -------
        Slots
            Embeddings (N, D) of the N = P x R slots that hold a talker,
            estimates (B, C, T).
        """
        return self.modules.encoder(
            batch["mixture"], partial(self.spoken, batch)
        )

    def spoken(self, batch, estimates):
        """Which slots hold a talker, by the assignment of SI-SNR.

        Arguments
        ---------
        batch : dict
            `sources` (B, C, T), `identities` (B, C). It receives the scalar
            `separation`, `permutation` (B, C) and `slots`, what is returned.
        estimates : torch.Tensor
            (B, C, T).

        Returns
        -------
        torch.Tensor
            (N,) numbers of slots, b * C + c.
        """
        separation, permutation = self.hparams.separation(
            estimates, batch["sources"]
        )
        identities = batch["identities"].gather(1, permutation).flatten()
        # As many slots hold a talker in every batch: no count leaves the GPU.
        count = self.hparams.identities_per_batch * self.hparams.conditions
        slots = (identities < 0).int().argsort(stable=True)[:count]  # (N,)
        batch.update(
            separation=separation, permutation=permutation, slots=slots
        )
        return slots

    def reassign(self, outputs, batch):
        """The assignment that is best for both terms, as they are weighted.

        Arguments
        ---------
        outputs : Slots
            Of `embed`.
        batch : dict
            `separation` and `permutation` are replaced.
        """
        weights = [
            value_at(
                self.hparams.loss_weights.get(name, 0), self.optimizer_step
            )
            for name in ("contrastive", "separation")
        ]
        decibels = weights[0] / max(weights[1], LEAST_WEIGHT)  # of a nat
        vectors = outputs.embeddings.detach().float()
        slots = vectors.new_zeros(batch["identities"].numel(), vectors.shape[1])
        slots[batch["slots"]] = vectors
        nats = self.hparams.contrastive.preference(
            slots.unflatten(0, batch["identities"].shape),
            batch["identities"],
            batch["permutation"],
            self.hparams.identities_per_batch,
        )
        batch["separation"], batch["permutation"] = self.hparams.separation(
            outputs.estimates, batch["sources"], decibels * nats
        )

    def terms(self, outputs, batch):
        """Separation, contrastive and inventory terms.

        Arguments
        ---------
        outputs : Slots
            Of `embed`.
        batch : dict
            `identities` (B, C), `entries` (B, C) and what `spoken` added.

        Returns
        -------
        dict
            Name to scalar.
        """
        self.reassign(outputs, batch)
        slots = batch["slots"]
        identities, entries = (
            batch[name].gather(1, batch["permutation"]).flatten()[slots]
            for name in ("identities", "entries")
        )
        terms = {
            "separation": batch["separation"],
            "contrastive": self.modules.contrastive(
                outputs.embeddings,
                self.modules.aggregator(
                    outputs.embeddings, identities, self.hparams.conditions
                ),
                identities,
                mixtures=torch.div(
                    slots, self.hparams.sources, rounding_mode="floor"
                ),
                entries=entries,
            ),
        }
        if "inventory" in self.modules:
            terms["inventory"] = self.modules.inventory(
                outputs.embeddings, entries
            )
        return terms

    def notes(self, terms):
        """The mutual-information bound in nats."""
        bound = self.hparams.contrastive.bound(
            terms["contrastive"],
            self.hparams.identities_per_batch,
            self.hparams.sources,
        )
        return {"information_bound": bound}
