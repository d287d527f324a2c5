"""Distilling a teacher into a student that carries a mark."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_wm")
class Distiller(keras.distillation.Distiller):
    r"""A student that learns what a teacher answers, and embeds its marks meanwhile.

    It is Keras's own `Distiller` but for two things. The penalties of the student's
    layers are a part of the loss; Keras leaves them out, so that a
    `WatermarkRegularizer`, or weight decay, would do nothing without a word. And
    by default no label is used, only the teacher's answers: "distill-to-embed"
    (Uchida et al. 2017, section 4.3.2).

    Args:
        teacher: A trained `keras.Model` that returns logits. Keras freezes it.
        student: A `keras.Model` of the same inputs and outputs, the one that is
            trained: publish it when that is done.
        distillation_losses: How the answers are compared; see
            `keras.distillation`. Defaults to the divergence of the softmax at
            temperature 1, whose gradient is that of the cross-entropy with the
            teacher's soft labels.
        student_loss_weight: The weight of the loss on the true labels, from 0 to 1.
            Defaults to 0.
        **kwargs: As for `keras.distillation.Distiller`.

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
            # By its name, Keras 3.15 takes the divergence of the bare logits.
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
        """Configures the training; `loss` is needed only where labels are used."""
        if loss is None and self.student_loss_weight == 0:
            loss = "mse"  # Keras wants one, and multiplies it by the weight of 0.
        super().compile(optimizer, loss, metrics, **kwargs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The student's loss against the teacher, and its penalties."""
        loss = super().compute_loss(*args, **kwargs)
        penalties = self.student.losses
        return sum((ops.cast(one, loss.dtype) for one in penalties), loss)
