"""How the networks of the experiments come to be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from keras_wm.embedding.distiller import Distiller
from keras_wm.embedding.kernel_projection import without_capacity_warnings
from keras_wm.research.attacks.pruning import hold_zeros, prune
from keras_wm.research.attacks.training import compile_for
from keras_wm.research.datasets import Pictures
from keras_wm.research.experiments.augmentation import Distorted
from keras_wm.research.experiments.measurement import mark_figures
from keras_wm.research.experiments.schemes import HEAD, UNMARKED, Mark, group_layer
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.hosts.wide_resnet import INITIAL_RATE, wide_resnet

PICTURES, TURNS = "pictures", "turns"

History = dict[str, list[float]]


@dataclass(frozen=True)
class Training:
    """One network: everything that its weights depend on, beside the settings.

    Attributes:
        seed: Of initial weights and of order.
        epochs: How long it is trained.
        mark: What is embedded meanwhile, if anything.
        task: `"pictures"`: their classes. `"turns"`: by how many quarters they
            are turned (Gidaris et al. 2018), another task on the same pictures.
        start: The network that it is fine-tuned from; otherwise from scratch. With
            another task it gets a new head.
        teacher: The network whose answers it learns, in place of labels.
        rate: The learning rate at first.
        pruned: The share of the start's weights that are pruned before, in each
            convolution and by ascending magnitude, and stay so.
    """

    seed: int
    epochs: int
    mark: Mark | None = None
    task: str = PICTURES
    start: Training | None = None
    teacher: Training | None = None
    rate: float = INITIAL_RATE
    pruned: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Its description, as plain values."""
        return asdict(self)

    @property
    def first(self) -> Training:
        """The network from scratch that it needs, or that it is."""
        parent = self.start or self.teacher
        return parent.first if parent else self

    @property
    def from_scratch(self) -> bool:
        """Whether it needs no other network."""
        return self.first is self


def from_scratch(
    settings: Settings, scheme: str, seed: int, **options: Any
) -> Training:
    """A network that is trained with a scheme's mark, or without, from scratch."""
    mark = embedded(settings, scheme, seed, **options)
    return Training(seed, settings.training_epochs, mark)


def embedded(settings: Settings, scheme: str, seed: int, **options: Any) -> Mark | None:
    """The mark of a scheme in a network of that seed; `None` for `"unmarked"`."""
    return None if scheme == UNMARKED else mark_of(settings, scheme, seed, **options)


def mark_of(settings: Settings, scheme: str, seed: int, **options: Any) -> Mark:
    """The mark that is looked for; in an unmarked network, one of kind `"random"`.

    Args:
        settings: Of the study: where marks go, and how long they are.
        scheme: A name in `SCHEMES`, or `"unmarked"`.
        seed: The network's, whose owner has a key of her own.
        **options: What differs from the settings.
    """
    scheme = "random" if scheme == UNMARKED else scheme
    layers = (group_layer(settings.group),)
    defaults: dict[str, Any]
    defaults = {
        "layers": layers,
        "bits": settings.bits_of(scheme),
        "strength": settings.strength(scheme),
        "owner": seed,
    }
    return Mark(scheme, **(defaults | options))


def train(
    training: Training,
    settings: Settings,
    pictures: Pictures,
    parent: Callable[[Training], Any],
) -> tuple[Any, History]:
    """Trains a network.

    Args:
        training: Which.
        settings: Of the study.
        pictures: Of the training's task.
        parent: Gives a network that this one needs.

    Returns:
        The `keras.Model`; and of one from scratch, its figures before training and
        after each epoch.
    """
    keras.utils.set_random_seed(training.seed)
    model = wide_resnet(
        pictures.x_train.shape[1:],
        pictures.classes,
        settings.n,
        settings.k,
        settings.weight_decay,
    )
    if training.start is not None:
        take_over(parent(training.start), model, training)
    with without_capacity_warnings():
        if training.mark is not None:
            training.mark.attach(model)
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
    compile_for(trained, loss if trained is model else None, steps, training.rate)
    watch = _Watch(model, training.mark, pictures)
    # No curve is drawn of the others, which are many.
    watches = [watch] if training.from_scratch else []
    x, y = pictures.x_train, pictures.y_train
    fitting = {"epochs": training.epochs, "callbacks": watches, "verbose": 0}
    if settings.distortion is None:
        trained.fit(x, y, batch_size=settings.batch_size, **fitting)
    else:
        trained.fit(
            Distorted(x, y, settings.batch_size, training.seed, settings.distortion),
            **fitting,
        )
    return watch.history


def take_over(source: Any, model: Any, training: Training) -> None:
    """Copies a network's weights, but for a head of another task; prunes them."""
    head = training.start is not None and training.start.task != training.task
    for layer in source.layers:
        if layer.weights and not (head and layer.name == HEAD):
            model.get_layer(layer.name).set_weights(layer.get_weights())
    if training.pruned:
        for layer in convolutions(model):
            layer.kernel.assign(prune(np.asarray(layer.kernel), training.pruned))
            hold_zeros(layer.kernel)


def convolutions(model: Any) -> list[Any]:
    """The layers whose weights pruning takes."""
    return [one for one in model.layers if isinstance(one, keras.layers.Conv2D)]


class _Watch(keras.callbacks.Callback):
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
            self.history["ber"].append(mark_figures(self._network, self._mark)["ber"])
