"""Where networks are trained, and kept for the runs that build on them."""

from __future__ import annotations

import gc
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import keras

from keras_wm.embedding.publishing import publish
from keras_wm.research.datasets import Pictures, load_pictures
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.training import PICTURES, History, Training, train
from keras_wm.utils.atomic import atomic_write


class NetworkStore:
    """Gives networks by their description, each trained once.

    Those from scratch are kept as published files, without a trace of their mark:
    what starts from one has what anybody has who downloads it.

    Args:
        settings: Of the study.
        folder: Of the study; networks are kept in a folder in it.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self._folder = folder / "networks"
        self.pictures = cache(self._load)

    def _load(self, task: str = PICTURES) -> Pictures:
        if task == PICTURES:
            return load_pictures(self.settings.data)
        return self.pictures(PICTURES).rotated()

    def has(self, training: Training) -> bool:
        """Whether a network is kept."""
        return all(file.exists() for file in self._files(training))

    def network(self, training: Training) -> tuple[Any, History]:
        """A network, and its figures before training and after each epoch."""
        file, history = self._files(training)
        if self.has(training):
            model = keras.saving.load_model(file, compile=False)
            return model, json.loads(history.read_text("utf-8"))["history"]
        model, figures = self._train(training)
        if training.from_scratch:
            self._folder.mkdir(parents=True, exist_ok=True)
            publish(model, file)
            with atomic_write(history) as path:
                described = {"training": training.to_dict(), "history": figures}
                path.write_text(json.dumps(described) + "\n", encoding="utf-8")
        return model, figures

    def _train(self, training: Training) -> tuple[Any, History]:
        return train(
            training,
            self.settings,
            self.pictures(training.task),
            lambda parent: self.network(parent)[0],
        )

    def _files(self, training: Training) -> tuple[Path, Path]:
        """Where a network and its figures are kept."""
        file = self._folder / f"{self._name(training)}.keras"
        return file, file.with_suffix(".json")

    def _name(self, training: Training) -> str:
        """The same for the same training on the same host, and for no other."""
        described = [training.to_dict(), self.settings.host, keras.backend.backend()]
        text = json.dumps(described, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def clean(self) -> None:
        """Lets go of what earlier networks took."""
        keras.backend.clear_session()
        gc.collect()
