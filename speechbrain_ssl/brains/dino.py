"""DINO: the training step."""

from speechbrain_ssl.brains.embedding import EmbeddingBrain
from speechbrain_ssl.checks import refuse
from speechbrain_ssl.dataio.views import groups
from speechbrain_ssl.evaluation.collapse import TeacherWatch, verdict
from speechbrain_ssl.schedules import value_at


class DINOBrain(EmbeddingBrain):
    """A student predicts what its teacher sees; the teacher follows it.

    1. The student embeds long and short views, the teacher the long ones.
    2. Heads turn embeddings into logits over prototypes.
    3. The student's views predict the teacher's distribution of the other
       view (`dino`).
    4. After the optimiser's step the teacher moves towards the student.

    Further terms, computed when `loss_weights` names them: `variance` and
    `covariance` of the student's embeddings of long views.

    Source: Cho et al. 2022, arXiv:2208.05413; see the loss and the lobes for
    what is the paper's and what is ours.
    """

    MODULES_NEEDED = ("encoder", "head", "teacher", "dino")
    HPARAMS_NEEDED = (
        *EmbeddingBrain.HPARAMS_NEEDED,
        "teacher_momentum",
        "teacher_temperature",
        "prototype_freeze_steps",
        "collapse_patience",
        "long_views",
        "batch_size",
    )
    HPARAMS_OPTIONAL = (
        *EmbeddingBrain.HPARAMS_OPTIONAL,
        "variance",
        "covariance",
    )
    TERMS = ("dino", "variance", "covariance")
    EVALUATED = "teacher"

    def __init__(self, modules, opt_class, hparams, *rest, **more):
        super().__init__(modules, opt_class, hparams, *rest, **more)
        self.hparams.dino.watched = True
        if hparams.get("embedding_weights"):  # the copy was made before
            student = hparams["encoder"].state_dict()
            hparams["teacher"].encoder.load_state_dict(student)

    def on_fit_start(self):
        """Check the schedules, then start."""
        momentum = self.hparams.teacher_momentum
        temperature = self.hparams.teacher_temperature
        steps = self.hparams.number_of_epochs * len(self.sampler)
        prototypes = len(self.hparams.dino.centre)
        views = self.hparams.long_views * self.hparams.batch_size
        problems = []
        if prototypes < views:
            problems.append(
                f"prototypes is {prototypes}; a batch has {views} teacher "
                "views, and each needs a prototype to itself"
            )
        for step in (0, steps // 2, steps):
            now = value_at(momentum, step)
            if not 0 <= now <= 1:
                problems.append(
                    f"teacher_momentum is {now} at step {step}; 0 to 1"
                )
            now = value_at(temperature, step)
            limit = self.hparams.dino.student_temperature
            if not 0 < now <= limit:
                problems.append(
                    f"teacher_temperature is {now} at step {step}; above 0 "
                    f"and at most the student's, {limit}"
                )
        refuse("DINO", problems, "Correct the YAML value.")
        super().on_fit_start()

    def on_stage_start(self, stage, epoch=None):
        """Also start the watch over the teacher."""
        super().on_stage_start(stage, epoch)
        self.watch = TeacherWatch(len(self.hparams.dino.centre), self.device)

    def statistics(self):
        """Also the teacher's."""
        teacher = self.hparams.teacher.buffers()
        own = [b for b in teacher if b.is_floating_point()]
        return super().statistics() + own

    def embed(self, batch):
        """Embeddings and logits of student and teacher.

        Arguments
        ---------
        batch : dict
            `views_0` (B, U, T) long, `views_1` (B, V - U, t) short views.

        Returns
        -------
        tuple of torch.Tensor
            Student's embeddings (V, B, D) and logits (V, B, K), teacher's
            (U, B, D) and (U, B, K).
        """
        views = groups(batch)
        # Before the student, whose activations stay: the memory is used twice.
        teacher = self.hparams.teacher.both(views[0])
        embeddings = self.modules.encoder(*views).transpose(0, 1)
        logits = self.modules.head(embeddings)
        return embeddings, logits, *teacher

    def terms(self, outputs, batch):
        """The DINO loss and the regularisers named in `loss_weights`.

        Arguments
        ---------
        outputs : tuple
            Of `embed`.
        batch : dict
            Not used.

        Returns
        -------
        dict
            Name to scalar.
        """
        embeddings, logits, watched, teacher = outputs
        dino = self.modules.dino
        temperature = value_at(self.hparams.teacher_temperature, self.progress)
        terms = {"dino": dino(logits, teacher, temperature)}
        self.add("teacher_entropy", dino.entropy)
        self.watch.add(dino.winners, watched[0])
        for name in ("variance", "covariance"):
            if name in self.hparams.loss_weights:
                regulariser = getattr(self.hparams, name)
                terms[name] = regulariser(embeddings[: len(teacher)])
        return terms

    def optimizers_step(self):
        """Keep the prototypes as they are at first, then step."""
        if self.progress < self.hparams.prototype_freeze_steps:
            for weight in self.hparams.head.prototypes.parameters():
                weight.grad = None
        super().optimizers_step()

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Let the teacher follow after a step of the optimiser."""
        if should_step:
            self.hparams.teacher.follow(
                self.hparams.encoder,
                self.hparams.head,
                value_at(self.hparams.teacher_momentum, self.progress),
            )

    def notes(self, terms):
        """How far the teacher is from a collapse."""
        kl = terms["dino"] - terms["teacher_entropy"]
        return {"kl": kl, **self.watch.figures()}

    def judge(self, epochs):
        """Stop when a collapse is certain; `collapse_patience` 0: never."""
        patience = self.hparams.collapse_patience
        if not patience:
            return
        found = verdict(epochs, len(self.hparams.dino.centre), patience)
        refuse(
            f"training stopped after epoch {len(epochs)}: collapse",
            [found] if found else [],
            "All prototypes equal: lower teacher_temperature or "
            "centre_momentum, raise the learning rate. One prototype: lower "
            "centre_momentum, raise teacher_temperature or "
            "prototype_freeze_steps, lower the learning rate. The best "
            "checkpoint so far is kept; collapse_patience sets how long to "
            "wait.",
        )
