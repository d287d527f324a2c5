"""The parts of a claim."""

from __future__ import annotations

from dataclasses import dataclass

from keras_wm.claims.checks import (
    check_count,
    check_flag,
    check_text,
    check_tuple,
    unexpected,
)
from keras_wm.errors import ClaimError
from keras_wm.files.contents import MOST_AXES

# Names of the facts about a key that a claim contains.
PUBLIC_FACTS = ("commitment", "owner", "bits", "projection", "filters")
# Time stamps have 2 to 8 KB.
MOST_TOKEN_BYTES = 2**16
MOST_SLOTS = 2**16


@dataclass(frozen=True)
class ClaimedLayer:
    """A layer that carries the mark.

    Attributes:
        name: Name of the layer in the model, as `verify` takes it. If the layer has
            several kernels, the shape distinguishes them.
        slot: Number of the key's slot that the layer is marked in.
        shape: Shape of its kernel, filters last.
    """

    name: str
    slot: int
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        check_text("layer", self.name)
        check_count("slot", self.slot, 0, MOST_SLOTS - 1)
        check_tuple("shape", self.shape, int, MOST_AXES)
        if len(self.shape) < 2:
            raise unexpected("shape", "a shape of two axes or more", self.shape)
        for axis in self.shape:
            check_count("shape", axis, 1)


@dataclass(frozen=True)
class Stamp:
    """A time stamp of an authority.

    Attributes:
        response: The answer of the authority, a `TimeStampResp` of RFC 3161.
        renewal: Whether it covers all earlier stamps of the claim too. Otherwise it
            covers the claim only.
    """

    response: bytes
    renewal: bool = False

    def __post_init__(self) -> None:
        check_flag("renewal", self.renewal)
        if not isinstance(self.response, bytes):
            raise unexpected("response", "bytes", self.response)
        if not 0 < len(self.response) <= MOST_TOKEN_BYTES:
            raise ClaimError(
                f"Expected a time stamp of 1 to {MOST_TOKEN_BYTES:,} bytes. Received: "
                f"{len(self.response):,} bytes"
            )

    def __repr__(self) -> str:
        kind = "renewal, " if self.renewal else ""
        return f"<Stamp: {kind}{len(self.response):,} bytes>"
