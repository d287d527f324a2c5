"""A distiller that embeds the marks of its student."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_wm")
class Distiller(keras.distillation.Distiller):
    r"""Distils a teacher into a student, and embeds the student's marks meanwhile.

    It differs from Keras's own `Distiller` in two ways:

    - The penalties of the student's layers are part of the loss. Keras ignores them, so
      that a `WatermarkRegularizer`, or weight decay, would silently have no effect.
    - By default no labels are used, only the teacher's predictions. This embeds a mark
      without the training labels: "distill-to-embed",
      [Uchida et al. (2017)](https://doi.org/10.1145/3078971.3078974), section 4.3.2.

    With the teacher's logits t and the student's logits s, the default loss is
    \(\mathrm{KL}(\mathrm{softmax}(t) \,\Vert\, \mathrm{softmax}(s))\), averaged over
    the batch, plus the student's penalties. Its gradient equals that of the
    cross-entropy with the teacher's softmax as soft labels.

    Args:
        teacher: A trained `keras.Model` that returns logits. Keras freezes it.
        student: The `keras.Model` to train, with the same inputs and outputs. Publish
            this one after training.
        distillation_losses: One or several losses of `keras.distillation` that compare
            the predictions. Defaults to the Kullback-Leibler divergence of the softmax
            at temperature 1.
        student_loss_weight: Weight of the loss on the true labels, a float from 0 to 1.
            The distillation loss has the remaining weight. Defaults to 0.
        **kwargs: Further arguments of `keras.distillation.Distiller`.

    Example:

    ```python
    keras_wm.attach(student, "conv2_block1_conv2", key)
    distiller = keras_wm.Distiller(teacher, student)
    distiller.compile("sgd")
    distiller.fit(x, epochs=10, callbacks=[keras_wm.BitErrorRate()])
    keras_wm.publish(student, "student.keras")
    ```
    """

    def __init__(
        self,
        teacher: Any,
        student: Any,
        distillation_losses: Any = None,
        student_loss_weight: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if distillation_losses is None:
            # For the loss's name instead of the object, Keras 3.15 computes the
            # divergence of the logits without a softmax.
            distillation_losses = keras.distillation.LogitsDistillation(
                temperature=1.0, loss=keras.losses.KLDivergence()
            )
        super().__init__(
            teacher,
            student,
            distillation_losses,
            student_loss_weight=student_loss_weight,
            **kwargs,
        )

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configures the training.

        Args:
            optimizer: As in `keras.Model.compile`.
            loss: Loss on the true labels. Only needed if `student_loss_weight` is
                above 0.
            metrics: As in `keras.Model.compile`.
            **kwargs: Further arguments of `keras.Model.compile`.
        """
        if loss is None and self.student_loss_weight == 0:
            loss = "mse"  # Keras requires a loss, and multiplies it by the weight 0.
        super().compile(optimizer, loss, metrics, **kwargs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the distillation loss plus the penalties of the student."""
        loss = super().compute_loss(*args, **kwargs)
        penalties = self.student.losses
        return sum((ops.cast(penalty, loss.dtype) for penalty in penalties), loss)
