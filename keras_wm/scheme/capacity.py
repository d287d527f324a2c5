r"""How many bits a kernel can hold, and how many it can hold unseen.

A mark of T bits whose every score stands m standard deviations clear takes the
share \(\rho = m \sqrt{T / N}\) of the norm of what it is read from: the N = M L
weights of the kernel for keyed filters, the N = M of the mean filter otherwise.
"""

from __future__ import annotations

from math import floor, sqrt

# `keras-wm experiment covertness`: with this share no detector told a keyed mark from
# none; with less, too little of it outlives the pruning of 99 % of a small kernel.
# A mean filter grows by about a tenth with its share, and twelvefold without.
UNSEEN_SHARE = {"keyed": 0.17, "mean": 0.5}
FULL_MARGIN = 4.0
# A kernel whose square a mark adds less than this share to is told from no other by
# how its weights are spread, which differs by tenths of a per cent between seeds.
NEGLIGIBLE_SHARE = 1e-3
# A kernel has room for T m^2, which is the evidence. Few bits stand the further clear,
# and 64 that are all right are proof even without their scores.
USUAL_BITS = 64


def readable_weights(size: int, count: int, groups: int) -> int:
    """The dimension of what G weight vectors read from an (M, L) kernel.

    Vectors of as many signs of either kind, which an even L has, are blind to the
    mean filter, and span L - 1 dimensions at the most.
    """
    directions = count if count % 2 else count - 1
    return size * min(groups, directions)


def check_bits(bits: int, projection: str, size: int, count: int, groups: int) -> None:
    """Refuses a message that no kernel of this shape can carry.

    Args:
        bits: T, the length of the message.
        projection: `"random"`, `"direct"`, `"diff"` or `"explicit"`.
        size: M, the weights of a filter.
        count: L, the number of filters.
        groups: G, the number of weight vectors that the bits share.

    Raises:
        ValueError: If T is beyond the limit. For a random projection that is
            twice the weights that are read, the number of independent inequalities
            that as many unknowns can satisfy (Cover 1965).
    """
    weights = readable_weights(size, count, groups)
    most, why = {
        "direct": (size, "M, one distinct weight a bit"),
        "diff": (size // 2, "M / 2, two distinct weights a bit"),
    }.get(projection, (2 * weights - 1, f"below twice the {weights} weights read"))
    if bits > most:
        raise ValueError(
            f"Too many bits for this kernel: T={bits} bits, M={size} weights a filter, "
            f"L={count} filters. Expected T <= {most} ({why}) with "
            f"projection={projection!r} and G={groups}. Use a larger kernel or a key "
            "of fewer bits."
        )


def unseen_margin(bits: int, filters: str, size: int, count: int) -> float:
    """The margin m that a message of T bits can keep without being seen.

    Returns:
        m, in standard deviations of a score; at most 4.
    """
    room = _room(filters, size, count)
    return min(FULL_MARGIN, UNSEEN_SHARE[filters] * sqrt(room / bits))


def unseen_bits(
    filters: str, size: int, count: int, margin: float = FULL_MARGIN
) -> int:
    """How many bits fit unseen at a margin: N (rho / m)^2."""
    return floor(_room(filters, size, count) * (UNSEEN_SHARE[filters] / margin) ** 2)


def share(bits: int, filters: str, size: int, count: int, margin: float) -> float:
    """The share rho of the norm that a mark takes."""
    return margin * sqrt(bits / _room(filters, size, count))


def _room(filters: str, size: int, count: int) -> int:
    return size * count if filters == "keyed" else size
