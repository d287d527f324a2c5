"""The store of a study's networks: trains each once and keeps it for later runs."""

from __future__ import annotations

import gc
import hashlib
import json
from dataclasses import asdict
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
    """Returns networks by their description, and trains each of them once.

    Networks trained from scratch are stored in the subfolder `networks`, as published
    files without metadata of their mark. So an attack starts from what anybody can
    download.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self._folder = folder / "networks"
        # A method with a cache would keep every store and its pictures alive.
        self.pictures = cache(self._load_pictures)

    def _load_pictures(self, task: str = PICTURES) -> Pictures:
        if task == PICTURES:
            return load_pictures(self.settings.data)
        return self.pictures(PICTURES).rotated()

    def has(self, training: Training) -> bool:
        """Returns whether a network is stored."""
        return all(file.exists() for file in self._files(training))

    def network(self, training: Training) -> tuple[Any, History]:
        """Returns a network, and its measurements before training and after each epoch.

        Trains the network if it is not stored.
        """
        file, history_file = self._files(training)
        if self.has(training):
            model = keras.saving.load_model(file, compile=False)
            stored = json.loads(history_file.read_text("utf-8"))
            if training.mark is not None:
                training.mark.keep_anchors(stored.get("anchors", ()))
            return model, stored["history"]
        model, history = train(
            training,
            self.settings,
            self.pictures(training.task),
            lambda parent: self.network(parent)[0],
        )
        if training.from_scratch:
            self._folder.mkdir(parents=True, exist_ok=True)
            publish(model, file)
            with atomic_write(history_file) as path:
                stored = {"training": asdict(training), "history": history}
                if training.warms_up:
                    stored["anchors"] = training.own_mark.anchors()
                path.write_text(json.dumps(stored) + "\n", encoding="utf-8")
        return model, history

    def _files(self, training: Training) -> tuple[Path, Path]:
        """Returns the paths of a network and of its history.

        Their name is unique to the training, its host and the backend.
        """
        described = [asdict(training), self.settings.host, keras.backend.backend()]
        text = json.dumps(described, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._folder / f"{name}.keras", self._folder / f"{name}.json"

    def clean(self) -> None:
        """Frees the memory of networks that are no longer used."""
        keras.backend.clear_session()
        gc.collect()
