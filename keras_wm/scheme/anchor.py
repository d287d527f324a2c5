r"""Anchor of a mark: what a kernel's inputs look like, where the mark was embedded.

A layer's inputs fill few of the directions that the filters of its kernel have. Without
an anchor, a mark fills all directions alike, and most of it can be redrawn without
changing the network's function. An anchor weights the directions: bit j is read from
\(A u_j\) in place of \(u_j\), with

\[A = I + V \, \mathrm{diag}(g) \, V^\top,\]

where the columns of V are the main directions of the inputs and g is how much more
weight they get.

For any A that does not depend on the secret, the scores of an unmarked kernel are
exactly N(0, 1). Everything is derived from the anchor's digest too. So another anchor
is an unrelated key, and nobody can choose one that fits a given model better than by
trying, at the cost of scrypt for each trial.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cached_property
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.utils.arguments import is_integer
from keras_wm.utils.arrays import Floats, read_only
from keras_wm.utils.fields import join_fields

_DOMAIN = "keras_wm anchor 1"
# Bounds of what an anchor from a stranger may ask for.
MOST_DIRECTIONS = 256
_LARGEST_GAIN = 1e4
_MOST_INPUTS = 2**24


class Anchor:
    """The directions of a kernel that its layer's inputs have most.

    The weights of a filter are counted in row-major order. They have three axes: the
    axis of the inputs, and axes before and after it that only belong to the outputs, as
    that of the heads in an attention layer. Both have the length 1 in dense and
    convolutional layers.

    Args:
        gains: g, the additional weight of each direction, shape `(r,)`, from 0 to
            10,000. It is rounded to single precision.
        directions: V, one direction in each column, shape `(m, r)`, entries from -1
            to 1. They are rounded to half precision.
        before: Length of the axis before that of the inputs. Defaults to 1.
        after: Length of the axis after that of the inputs. Defaults to 1.

    Raises:
        ValueError: If an array has another shape or other values.

    Attributes:
        gains: g in double precision, read-only.
        directions: V in double precision, read-only.
        size: M, the weights per filter of the kernels that it fits.
    """

    def __init__(
        self, gains: ArrayLike, directions: ArrayLike, before: int = 1, after: int = 1
    ) -> None:
        with np.errstate(over="ignore"):
            rounded_gains = np.asarray(gains, "<f4")
            rounded = np.asarray(directions, "<f2")
        if rounded.ndim != 2 or rounded_gains.shape != rounded.shape[1:]:
            raise ValueError(
                "Expected gains of shape (r,) and directions of shape (m, r). "
                f"Received: shapes {rounded_gains.shape} and {rounded.shape}"
            )
        inputs, count = rounded.shape
        lengths = (before, inputs, after)
        if not all(is_integer(length, 1) for length in lengths) or not (
            1 <= count <= MOST_DIRECTIONS and prod(lengths) <= _MOST_INPUTS
        ):
            raise ValueError(
                f"Expected 1 to {MOST_DIRECTIONS} directions, and axes of a length of "
                f"at least 1, of {_MOST_INPUTS} weights at most. Received: {count} "
                f"directions, and axes of the lengths {lengths}"
            )
        # A comparison with NaN is false.
        if not (
            np.all((rounded_gains >= 0) & (rounded_gains <= _LARGEST_GAIN))
            and np.all(np.abs(rounded) <= 1)
        ):
            raise ValueError(
                f"Expected gains from 0 to {_LARGEST_GAIN:g}, and directions with "
                "entries from -1 to 1. Received others, or NaN."
            )
        self.gains: Floats = read_only(rounded_gains.astype(np.float64))
        self.directions: Floats = read_only(rounded.astype(np.float64))
        self.before, self.after = int(before), int(after)
        self.size = prod(lengths)
        self._content = rounded_gains.tobytes(), rounded.tobytes()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that the anchor consists of, 64 hexadecimal digits."""
        lengths = (self.before, len(self.directions), self.after, len(self.gains))
        fields = join_fields(_DOMAIN, *lengths, *self._content)
        return hashlib.sha256(fields).hexdigest()

    def applied(self, matrix: Any) -> Floats:
        """Returns A times a matrix.

        Args:
            matrix: Array of shape `(M, n)`.
        """
        inputs = len(self.directions)
        parts = matrix.reshape(self.before, inputs, -1)
        along = self.gains[:, None] * (self.directions.T @ parts)
        changed: Floats = parts + self.directions @ along
        return changed.reshape(matrix.shape)

    def check_size(self, size: int) -> None:
        """Raises ValueError unless kernels have `size` weights per filter."""
        if size != self.size:
            raise ValueError(
                f"Expected a kernel with M={self.size} weights per filter, which the "
                f"anchor in the key's slot was measured for. Received: M={size}. Use "
                "another slot for this kernel."
            )

    def payload(self) -> dict[str, Any]:
        """Returns the anchor as plain values that JSON can hold."""
        gains, directions = (base64.b64encode(part).decode() for part in self._content)
        return {
            "before": self.before,
            "inputs": len(self.directions),
            "after": self.after,
            "gains": gains,
            "directions": directions,
        }

    @classmethod
    def from_payload(cls, payload: Any) -> Self:
        """Reads what `payload` returns.

        Raises:
            ValueError: If a value is missing or not valid.
        """
        try:
            gains, directions = (
                base64.b64decode(payload[name], validate=True)
                for name in ("gains", "directions")
            )
            inputs = payload["inputs"]
            before, after = payload["before"], payload["after"]
            values = np.frombuffer(gains, "<f4")
            shape = (inputs, len(values))
            columns = np.frombuffer(directions, "<f2").reshape(shape)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                "Expected the fields of an anchor: before, inputs, after, gains and "
                f"directions. Received others ({error})"
            ) from error
        return cls(values, columns, before, after)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Anchor):
            return NotImplemented
        return self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return (
            f"<Anchor {self.digest[:8]}: {len(self.gains)} directions of "
            f"{len(self.directions)} inputs>"
        )
