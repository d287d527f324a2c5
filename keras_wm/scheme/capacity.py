r"""Number of bits that a kernel can hold, with and without being detected.

A mark of T bits with a score of m standard deviations for each bit takes the share
\(\rho = m \sqrt{T / N}\) of the norm of the weights that are read. These are the
N = M L weights of the kernel for keyed filters and for the blocks of a recipient's key,
and the N = M weights of the mean filter otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, prod, sqrt

# Largest share rho without detection, measured by `keras-wm experiment covertness`. For
# keyed filters, no detector distinguished marked from unmarked kernels; with a smaller
# share, too little of the mark is left when 99 % of a small kernel is pruned. A mark of
# the share for the mean filter increases that filter's norm by about a tenth. Without a
# limit of the share, the norm grew twelvefold. A recipient's mark in blocks takes more,
# because recipients who compare their copies know of it anyway: an average of c copies
# leaves 1 / c of it. Measured by `keras-wm experiment recipients`.
UNSEEN_SHARE = {"keyed": 0.17, "blocks": 0.25, "mean": 0.5}
# Largest default margin, in standard deviations of a score.
FULL_MARGIN = 4.0
# That of a mark with an anchor, which is held unseen in the directions of the inputs.
# It is larger because whoever redraws the other directions can remove what is there.
ANCHORED_MARGIN = 6.0
# That of a recipient's mark: an average of c copies leaves 1 / c of it.
RECIPIENT_MARGIN = 8.0
# A kernel has room for a limited amount of evidence, T m^2. Fewer bits get a larger
# margin each, and 64 correct bits are a proof (2^-64) even without their scores.
USUAL_BITS = 64


def flat_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Returns (M, L): the weights per filter and the number of filters.

    Args:
        shape: Shape of a kernel, filters last.

    Raises:
        ValueError: If the kernel has fewer than 2 axes or is empty.
    """
    if len(shape) < 2 or 0 in shape:
        raise ValueError(
            "A mark needs a kernel of rank 2 or more, filters last, that is not "
            f"empty. Received: shape={tuple(shape)}. Put the regularizer on a "
            "kernel, not on a bias."
        )
    *filter_shape, count = (int(axis) for axis in shape)
    return prod(filter_shape), count


def readable_weights(size: int, count: int, groups: int) -> int:
    """Returns the dimension of the space that G weight vectors read.

    With an even number of filters L, each vector has as many signs +1 as -1. Such
    vectors are orthogonal to the mean filter and span at most L - 1 dimensions.

    Args:
        size: M, the weights per filter.
        count: L, the number of filters.
        groups: G, the number of weight vectors.
    """
    directions = count if count % 2 else count - 1
    return size * min(groups, directions)


def check_bits(bits: int, projection: str, size: int, count: int, groups: int) -> None:
    """Raises ValueError if no kernel of this shape can hold the message.

    Args:
        bits: T, the length of the message.
        projection: `"random"`, `"direct"`, `"diff"`, `"explicit"` or `"sums"`.
        size: M, the weights per filter.
        count: L, the number of filters.
        groups: G, the number of weight vectors that the bits share.

    Raises:
        ValueError: If T exceeds the limit. For a random projection the limit is twice
            the number of weights that are read: N unknowns can satisfy about 2 N
            independent inequalities (Cover 1965, Geometrical and statistical
            properties of systems of linear inequalities).
    """
    weights = readable_weights(size, count, groups)
    limit, reason = {
        "direct": (size, "M, one weight per bit"),
        "diff": (size // 2, "M / 2, two weights per bit"),
        "sums": (size * count, "M L, one weight per bit"),
    }.get(projection, (2 * weights - 1, f"below twice the {weights} weights read"))
    if bits > limit:
        raise ValueError(
            f"Too many bits for this kernel: T={bits} bits, M={size} weights per "
            f"filter, L={count} filters. Expected T <= {limit} ({reason}) with "
            f"projection={projection!r} and G={groups}. Use a larger kernel or a key "
            "of fewer bits."
        )


def unseen_margin(
    bits: int,
    filters: str,
    size: int,
    count: int,
    has_anchor: bool = False,
    kernels: int = 1,
) -> float:
    r"""Returns the margin m that a message of T bits can have without detection.

    \[m = \min(4, \rho \sqrt{N / T} / K^{1/4})\]

    A change of \(\rho^2\) in each of K kernels is seen as easily as one of
    \(\rho^2 \sqrt{K}\) in a single kernel.

    A mark with an anchor may have a margin of 6. A recipient's mark may have a margin
    of 8, and a larger share, which can be seen.

    Args:
        bits: T, the length of the message.
        filters: `"keyed"`, `"mean"` or `"blocks"`.
        size: M, the weights per filter.
        count: L, the number of filters.
        has_anchor: Whether the kernel is read through an anchor.
        kernels: K, the number of kernels that are marked.

    Returns:
        m, in standard deviations of a score.
    """
    room = _room(filters, size, count)
    largest = ANCHORED_MARGIN if has_anchor else FULL_MARGIN
    if filters == "blocks":
        largest = RECIPIENT_MARGIN
    unseen: float = UNSEEN_SHARE[filters] * sqrt(room / bits) / kernels**0.25
    return min(largest, unseen)


def unseen_bits(
    filters: str, size: int, count: int, margin: float = FULL_MARGIN
) -> int:
    """Returns the number of bits that fit without detection: N (rho / m)^2."""
    return floor(_room(filters, size, count) * (UNSEEN_SHARE[filters] / margin) ** 2)


def share(bits: int, filters: str, size: int, count: int, margin: float) -> float:
    """Returns rho = m sqrt(T / N), the mark's share of the norm."""
    return margin * sqrt(bits / _room(filters, size, count))


def _room(filters: str, size: int, count: int) -> int:
    """Returns N, the number of weights that the mark is spread over."""
    return size if filters == "mean" else size * count
