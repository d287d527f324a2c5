"""Writes the figures of marks for TensorBoard, without TensorFlow."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import starmap

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray
from scipy.special import ndtr
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.histogram.metadata import (
    create_summary_metadata as histogram_metadata,
)
from tensorboard.plugins.image.metadata import (
    create_summary_metadata as image_metadata,
)
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from keras_wm.embedding.marked_layers import MarkedLayer
from keras_wm.scheme.detection import Detection
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.text import printable

_BINS = 40
# The histograms reach this far at least, so that they show all of N(0, 1).
_REACH = 4.0
_PIXELS_PER_BIT = 8
_RED = (200, 30, 30)
_GREY = 128

_CURVES = {
    "ber": (
        "Bit error rate: the share of all bits that are read incorrectly. 0 for a "
        "complete mark, about 0.5 without a mark."
    ),
    "z_min": (
        "Smallest score z of a bit, in standard deviations of the score of an unmarked "
        "kernel. A bit is read correctly if its z is above 0. `z_min` is the margin "
        "that the mark has reached."
    ),
    "z_mean": (
        "Mean score z of the bits, in standard deviations of the score of an unmarked "
        "kernel. About 0 without a mark."
    ),
    "embedding_loss": (
        "Mean embedding loss per bit, without the factor lambda. The margin loss "
        "is 0 as soon as every score has reached the margin."
    ),
}
_SCORES = (
    "Scores z of the bits, in standard deviations of the score of an unmarked kernel. "
    "A bit is read correctly if its z is above 0. The further the scores are to the "
    "right of N(0, 1), which is shown beside this, the stronger is the mark."
)
_CHANCE = (
    "The number of bits in each bin that chance gives: N(0, 1), the distribution of "
    "the scores of any kernel that does not depend on the key. The bins are those of "
    "the scores of the mark."
)
_BITS = (
    "One field for each bit of the message, row by row. Black is a 0 and white a 1 "
    "that is read correctly; red is a bit that is read incorrectly. Grey fields after "
    "the last bit are empty. Without a mark, about half of the fields are red."
)
_CARD = (
    "The marks of this training. Step n is the state after the epoch with index n, as "
    "in the curves of Keras's `TensorBoard` callback. The first step is the state "
    "before training, -1 if training began with epoch 0."
)


class MarkLog:
    """A TensorBoard log of the marks of one training.

    Curves have the names and steps that Keras's `TensorBoard` callback gives to the
    same values, so both draw one curve in one chart.

    Args:
        folder: Folder of the log.
        curves: Whether to write the curves. Without them, Keras's `TensorBoard`
            callback is expected to do so.
    """

    def __init__(self, folder: str | os.PathLike[str], curves: bool) -> None:
        self._events = EventFileWriter(os.fspath(folder))
        self._curves = curves
        self._has_card = False

    def write(
        self,
        marks: Sequence[MarkedLayer],
        detections: Mapping[str, Detection],
        values: Mapping[str, float],
        step: int,
    ) -> None:
        """Writes the state of the marks after an epoch.

        Args:
            marks: The marked layers, for the text card.
            detections: Detection of each mark whose key is loaded, by the layer's name.
                If it is empty, nothing is written.
            values: The values of the epoch's logs, by name.
            step: Index of the epoch.
        """
        if not detections:
            return
        summaries = []
        if not self._has_card:
            summaries.append(text_pb("marks", _card(marks), _CARD))
            self._has_card = True
        if self._curves:
            summaries += [_curve(name, value) for name, value in values.items()]
        for name, detection in detections.items():
            summaries += [*_histograms(name, detection), _picture(name, detection)]
        for summary in summaries:
            event = Event(wall_time=time.time(), step=step, summary=summary)
            self._events.add_event(event)
        self._events.flush()

    def close(self) -> None:
        """Closes the log file."""
        self._events.close()


def recovered_bits(detection: Detection) -> NDArray[np.uint8]:
    """Draws the recovered bits: 0 black, 1 white, incorrect ones red.

    Args:
        detection: Detection of a message of T bits.

    Returns:
        RGB picture, shape `(8 * rows, 8 * columns, 3)` and about square. Fields after
        the last bit are grey.
    """
    columns = int(np.ceil(np.sqrt(detection.bits)))
    rows = -(-detection.bits // columns)
    picture = np.full((rows * columns, 3), _GREY, np.uint8)
    picture[: detection.bits] = 255 * detection.recovered[:, None]
    picture[: detection.bits][detection.z <= 0] = _RED
    square = picture.reshape(rows, columns, 3)
    return square.repeat(_PIXELS_PER_BIT, axis=0).repeat(_PIXELS_PER_BIT, axis=1)


def _curve(name: str, value: float) -> Summary:
    figure, _, layer = name.partition("/")
    scope = "This layer only. " if layer else ""
    return scalar_pb(f"epoch_{name}", value, scope + _CURVES.get(figure, ""))


def _histograms(layer: str, detection: Detection) -> list[Summary]:
    """Returns the scores, and what chance gives in the same bins.

    Empty bins at the ends stay, so that TensorBoard draws both on the same axis.
    """
    z = detection.z
    edges = np.linspace(min(-_REACH, z.min()), max(_REACH, z.max()), _BINS + 1)
    counts, _ = np.histogram(z, edges)
    # The outermost bins hold the tails too, so that the sum is the number of bits.
    inner = ndtr(edges[1:-1])
    expected = detection.bits * np.diff(np.concatenate([[0.0], inner, [1.0]]))
    return [
        _summary(f"{layer}/z", histogram_metadata(None, _SCORES), _bars(edges, counts)),
        _summary(
            f"{layer}/z by chance",
            histogram_metadata(None, _CHANCE),
            _bars(edges, expected),
        ),
    ]


def _bars(
    edges: NDArray[np.float64], counts: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Returns rows of left edge, right edge and count."""
    return np.stack([edges[:-1], edges[1:], counts], axis=1)


def _picture(layer: str, detection: Detection) -> Summary:
    pixels = recovered_bits(detection)
    encoded = io.BytesIO()
    imsave(encoded, pixels, format="png")
    height, width, _ = pixels.shape
    content = [str(width).encode(), str(height).encode(), encoded.getvalue()]
    return _summary(f"{layer}/recovered bits", image_metadata(None, _BITS), content)


def _summary(tag: str, metadata: SummaryMetadata, content: object) -> Summary:
    tensor = make_tensor_proto(content)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


def _card(marks: Sequence[MarkedLayer]) -> str:
    """Returns Markdown tables of the layers and keys, and how to read the figures."""
    keys = {mark.regularizer.commitment: mark.regularizer.key for mark in marks}
    legend = {"z": _SCORES, "z by chance": _CHANCE, "recovered bits": _BITS}
    return "\n".join(
        [
            *_table("layer kernel slot key state", map(_layer_facts, marks)),
            *_table("key owner bits commitment", starmap(_key_facts, keys.items())),
            *(f"- **{name}**: {text}" for name, text in {**_CURVES, **legend}.items()),
        ]
    )


def _layer_facts(mark: MarkedLayer) -> tuple[str, ...]:
    sizes = () if mark.variable is None else mark.variable.shape
    regularizer = mark.regularizer
    return (
        mark.layer.path,
        " x ".join(map(str, sizes)) or "lost",
        str(regularizer.slot),
        regularizer.commitment[:8],
        mark.problem or "trained",
    )


def _key_facts(commitment: str, key: WatermarkKey | None) -> tuple[str, ...]:
    if key is None:
        return commitment[:8], "not loaded", "unknown", commitment
    copy = f", copy for {key.recipient}" if key.recipient else ""
    return commitment[:8], key.owner + copy, str(key.bits), commitment


def _table(head: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table, with a blank line after it."""
    names = head.split()
    cells = [
        names,
        ["---"] * len(names),
        *(map(_as_plain_markdown, row) for row in rows),
    ]
    return [*(f"| {' | '.join(line)} |" for line in cells), ""]


def _as_plain_markdown(text: str) -> str:
    """Escapes everything in a text that Markdown or HTML could read as markup."""
    return "".join(
        character if character.isalnum() or character == " " else f"&#{ord(character)};"
        for character in printable(text)
    )
