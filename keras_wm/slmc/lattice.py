"""Lattices: which sites are bound to each other, and which are how far apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_wm.utils.arrays import Floats


@dataclass(frozen=True, eq=False)
class Shell:
    """The pairs of sites that are equally far apart.

    Attributes:
        squared_distance: Of the nearest images, in squares of the lattice constant.
        pairs: Whether two sites are so far apart, shape `(N, N)`.
    """

    squared_distance: int
    pairs: NDArray[np.bool_]

    @property
    def coordination(self) -> int:
        """How many sites each site has at this distance."""
        return int(self.pairs[0].sum())


@dataclass(frozen=True, eq=False)
class Lattice:
    r"""Sites, bonds and shells of distance.

    Attributes:
        positions: x and y of each site, shape `(N, 2)`.
        bonds: How many bonds lead from one site to another, shape `(N, N)`. Electrons
            hop along each of them.
        shells: From the nearest neighbours outwards, without the site itself.
    """

    positions: NDArray[np.int64]
    bonds: Floats
    shells: tuple[Shell, ...]

    @property
    def sites(self) -> int:
        """N."""
        return len(self.positions)

    @property
    def extent(self) -> tuple[int, int]:
        """How many sites there are along x and y."""
        across, along = self.positions.max(axis=0) + 1
        return int(across), int(along)

    @property
    def sublattice_signs(self) -> Floats:
        r"""\((-1)^{x + y}\), shape `(N,)`.

        Where a direction has an odd number of sites, the order does not close around
        the lattice.
        """
        signs: Floats = 1.0 - 2.0 * (self.positions.sum(axis=1) % 2)
        return signs

    def first_shells(self, count: int | None) -> tuple[Shell, ...]:
        """The nearest shells.

        Args:
            count: How many. `None` is all.

        Raises:
            ValueError: If there are not as many, or none is asked for.
        """
        if count is None:
            return self.shells
        if not 1 <= count <= len(self.shells):
            across, along = self.extent
            raise ValueError(
                f"A lattice of {across} x {along} sites has 1 to {len(self.shells)} "
                f"shells of neighbours. Received: shells={count!r}. Ask for fewer, or "
                "take a larger lattice."
            )
        return self.shells[:count]


def square_lattice(across: int, along: int | None = None) -> Lattice:
    r"""A square lattice with periodic boundaries.

    Site \(x L_y + y\) is at (x, y). Its bonds lead to \((x \pm 1, y)\) and
    \((x, y \pm 1)\): where a direction has two sites, both bonds lead to the same site,
    so that electrons hop there with twice the amplitude. That is what keeps
    \(-2t(\cos k_x + \cos k_y)\) the dispersion of every such lattice. A shell counts
    each of its sites once, however many ways of the same length lead there.

    Args:
        across: L_x, the number of sites along x, 2 or more.
        along: L_y; `None` is as many as along x.

    Returns:
        A `Lattice` of L_x L_y sites.

    Raises:
        ValueError: If a direction has fewer than two sites.
    """
    sides = (across, across if along is None else along)
    extent = np.array(sides)
    if extent.dtype.kind not in "iu" or extent.min() < 2:
        raise ValueError(
            "A periodic lattice needs two sites or more in each direction, for a site "
            f"has no bond to itself. Received: {' x '.join(map(repr, sides))}"
        )
    positions = np.stack(
        np.meshgrid(*map(np.arange, extent), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    apart = (positions[:, None] - positions) % extent
    steps = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    bonds = sum((apart == np.array(step) % extent).all(axis=-1) for step in steps)
    nearest = np.minimum(apart, extent - apart)
    return Lattice(
        positions, np.asarray(bonds, np.float64), _shells((nearest**2).sum(axis=-1))
    )


def dimer() -> Lattice:
    """Two sites with one bond between them: the least lattice, with open boundaries."""
    apart = 1 - np.eye(2, dtype=np.int64)
    positions = np.array([[0, 0], [1, 0]])
    return Lattice(positions, apart.astype(np.float64), _shells(apart))


def _shells(squared_distances: NDArray[np.int64]) -> tuple[Shell, ...]:
    return tuple(
        Shell(int(each), squared_distances == each)
        for each in np.unique(squared_distances)
        if each
    )
