"""Writes scores and recovered bits for TensorBoard, without TensorFlow."""

from __future__ import annotations

import io
import time

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from keras_wm.scheme.detection import Detection

_BINS = 40
_PIXELS_PER_BIT = 8
_RED = (200, 30, 30)
_GREY = 128


def write_detection(
    events: EventFileWriter, name: str, detection: Detection, step: int
) -> None:
    """Writes bit error rate, smallest score, all scores and the recovered bits.

    Args:
        events: Writer of a TensorBoard log folder.
        name: Name of the marked layer, the prefix of the tags.
        detection: Detection of the message in the layer's kernel.
        step: Number of epochs that the layer was trained for.
    """
    picture = recovered_bits(detection)
    encoded = io.BytesIO()
    imsave(encoded, picture, format="png")
    values = [
        Summary.Value(tag=f"{name}/ber", simple_value=detection.ber),
        Summary.Value(tag=f"{name}/z_min", simple_value=detection.z_min),
        Summary.Value(tag=f"{name}/z", histo=_histogram(detection.z)),
        Summary.Value(
            tag=f"{name}/recovered bits",
            image=Summary.Image(
                height=picture.shape[0],
                width=picture.shape[1],
                colorspace=3,
                encoded_image_string=encoded.getvalue(),
            ),
        ),
    ]
    events.add_event(
        Event(wall_time=time.time(), step=step, summary=Summary(value=values))
    )
    events.flush()


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


def _histogram(z: NDArray[np.float64]) -> HistogramProto:
    counts, edges = np.histogram(z, _BINS)
    return HistogramProto(
        min=z.min(),
        max=z.max(),
        num=len(z),
        sum=z.sum(),
        sum_squares=np.square(z).sum(),
        bucket_limit=edges[1:],
        bucket=counts,
    )
