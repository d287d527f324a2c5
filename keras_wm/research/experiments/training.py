"""Training of the networks that the experiments need."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_wm.embedding.callback import BitErrorRate
from keras_wm.embedding.distiller import Distiller
from keras_wm.embedding.loss.kernel_projection import without_capacity_warnings
from keras_wm.research.attacks.pruning import hold_zeros, prune
from keras_wm.research.attacks.training import compile_for, compile_with
from keras_wm.research.datasets import Pictures
from keras_wm.research.experiments.augmentation import AugmentedBatches
from keras_wm.research.experiments.measurement import measure_mark
from keras_wm.research.experiments.schemes import HEAD, UNMARKED, Mark, group_layer
from keras_wm.research.experiments.settings import ADAM, Settings
from keras_wm.research.hosts.wide_resnet import INITIAL_RATE, wide_resnet

# The tasks: to classify the pictures, or their rotations. Stored networks are named by
# these values.
PICTURES, ROTATIONS = "pictures", "turns"

# Pictures from which an anchor is measured.
_SHOWN = 512

History = dict[str, list[float]]


@dataclass(frozen=True)
class Training:
    """The training of one network: all that its weights depend on besides `Settings`.

    Attributes:
        seed: Random seed of the initial weights and of the order of batches.
        epochs: Number of epochs.
        mark: Mark to embed during the training, if any.
        task: `PICTURES` to predict the classes of the pictures. `ROTATIONS` to predict
            by how many quarter turns a picture is rotated (Gidaris et al. 2018),
            another task on the same pictures.
        start: Network to fine-tune; `None` starts from random weights. For another
            task the network gets a new head.
        teacher: Network whose outputs are learned in place of labels.
        rate: Initial learning rate.
        pruned: Share of weights that are pruned before the training, by ascending
            magnitude in each convolution. They stay zero.
    """

    seed: int
    epochs: int
    mark: Mark | None = None
    task: str = PICTURES
    start: Training | None = None
    teacher: Training | None = None
    rate: float = INITIAL_RATE
    pruned: float = 0.0

    @property
    def own_mark(self) -> Mark:
        """The embedded mark, of a network that has one."""
        if self.mark is None:
            raise ValueError("Expected a marked network. Received: mark=None")
        return self.mark

    @property
    def root(self) -> Training:
        """The training from scratch that this one depends on, or itself."""
        parent = self.start or self.teacher
        return parent.root if parent else self

    @property
    def from_scratch(self) -> bool:
        """True if the training needs no other network."""
        return self.root is self

    @property
    def warms_up(self) -> bool:
        """True if the network has to be trained for a while before it is marked."""
        return self.from_scratch and self.mark is not None and self.mark.is_anchored


def from_scratch(
    settings: Settings, scheme: str, seed: int, **options: Any
) -> Training:
    """Returns the training from scratch with a scheme's mark; `UNMARKED` for none."""
    mark = embedded_mark(settings, scheme, seed, **options)
    return Training(seed, settings.training_epochs, mark)


def embedded_mark(
    settings: Settings, scheme: str, seed: int, **options: Any
) -> Mark | None:
    """Returns the mark to embed; `None` for `UNMARKED`. Arguments as `mark_to_test`."""
    if scheme == UNMARKED:
        return None
    return mark_to_test(settings, scheme, seed, **options)


def mark_to_test(settings: Settings, scheme: str, seed: int, **options: Any) -> Mark:
    """Returns the mark to test a network for; for `UNMARKED`, one of kind `"random"`.

    Each seed has its own owner and key. The options replace fields of the `Mark`.
    """
    scheme = "random" if scheme == UNMARKED else scheme
    mark = Mark(
        scheme,
        (group_layer(settings.group),),
        settings.bits_of(scheme),
        settings.strength(scheme),
        owner=seed,
    )
    return replace(mark, **options)


def train(
    training: Training,
    settings: Settings,
    pictures: Pictures,
    parent: Callable[[Training], Any],
) -> tuple[Any, History]:
    """Trains a network.

    Args:
        training: Description of the network.
        settings: Settings of the study.
        pictures: Pictures with the labels of the training's task.
        parent: Returns the network to start from or to learn from.

    Returns:
        The `keras.Model`, and its test error, bit error rate and loss before training
        and after each epoch. They are empty unless trained from scratch.
    """
    keras.utils.set_random_seed(training.seed)
    shape, classes = pictures.x_train.shape[1:], pictures.classes
    model = wide_resnet(shape, classes, settings.n, settings.k, settings.weight_decay)
    if training.start is not None:
        copy_weights(parent(training.start), model, training)
    with without_capacity_warnings():
        if training.mark is not None and not training.warms_up:
            training.mark.attach(model, pictures.x_train[:_SHOWN])
        trained = model
        if training.teacher is not None:
            trained = Distiller(parent(training.teacher), model)
        return model, _fit(trained, model, training, settings, pictures)


def _fit(
    trained: Any,
    model: Any,
    training: Training,
    settings: Settings,
    pictures: Pictures,
) -> History:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    steps = math.ceil(len(pictures.x_train) / settings.batch_size) * training.epochs
    own_loss = loss if trained is model else None
    if training.from_scratch and settings.optimizer == ADAM:
        compile_with(trained, own_loss, keras.optimizers.Adam(1e-3))
    else:
        compile_for(trained, own_loss, steps, training.rate)
    callbacks: list[Any] = []
    if training.warms_up:
        epochs = max(training.epochs // 3, 1)
        callbacks += training.own_mark.attaching(epochs, pictures.x_train[:_SHOWN])
    recorder = _HistoryRecorder(model, training.mark, pictures)
    # Only curves of networks from scratch are plotted, and there are many others.
    callbacks += [recorder] if training.from_scratch else []
    if settings.decoupled and training.mark is not None:
        callbacks.append(BitErrorRate())
    x, y, batch = pictures.x_train, pictures.y_train, settings.batch_size
    fitting = {"epochs": training.epochs, "callbacks": callbacks, "verbose": 0}
    if settings.augmentation is None:
        trained.fit(x, y, batch_size=batch, **fitting)
    else:
        batches = AugmentedBatches(x, y, batch, training.seed, settings.augmentation)
        trained.fit(batches, **fitting)
    return recorder.history


def copy_weights(source: Any, model: Any, training: Training) -> None:
    """Copies the weights of the network that a training starts from, and prunes them.

    The head is not copied if the training has another task.
    """
    new_head = training.start is not None and training.start.task != training.task
    for layer in source.layers:
        if layer.weights and not (new_head and layer.name == HEAD):
            model.get_layer(layer.name).set_weights(layer.get_weights())
    if training.pruned:
        for layer in convolutions(model):
            layer.kernel.assign(prune(np.asarray(layer.kernel), training.pruned))
            hold_zeros(layer.kernel)


def convolutions(model: Any) -> list[Any]:
    """Returns the convolutions of a model."""
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


class _HistoryRecorder(keras.callbacks.Callback):
    """Measures a network before training and after each epoch."""

    def __init__(self, network: Any, mark: Mark | None, pictures: Pictures) -> None:
        super().__init__()
        self._network, self._mark, self._pictures = network, mark, pictures
        self.history: History = {}

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.history.update(test_error=[], loss=[], ber=[])
        self._measure()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._measure()
        self.history["loss"].append((logs or {})["loss"])

    def _measure(self) -> None:
        self.history["test_error"].append(self._pictures.test_error(self._network))
        if self._mark is not None:
            self.history["ber"].append(measure_mark(self._network, self._mark)["ber"])
