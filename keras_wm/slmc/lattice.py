"""Periodic square lattices: sites, bonds and shells of neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_wm.utils.arrays import Floats


@dataclass(frozen=True, eq=False)
class Shell:
    """All pairs of sites at one distance.

    Attributes:
        squared_distance: Squared distance between nearest images, in units of the
            squared lattice constant.
        pairs: Whether two sites are at this distance, shape `(N, N)`.
    """

    squared_distance: int
    pairs: NDArray[np.bool_]

    @property
    def coordination(self) -> int:
        """Number of sites that each site has at this distance."""
        return int(self.pairs[0].sum())


@dataclass(frozen=True, eq=False)
class Lattice:
    r"""Sites, bonds and shells of a lattice.

    Attributes:
        positions: x and y of each site, shape `(N, 2)`.
        bonds: Number of bonds between each pair of sites, shape `(N, N)`. Electrons
            hop along every bond.
        shells: Shells of neighbours by increasing distance. The site itself is not a
            shell.
    """

    positions: NDArray[np.int64]
    bonds: Floats
    shells: tuple[Shell, ...]

    @property
    def sites(self) -> int:
        """Number of sites N."""
        return len(self.positions)

    @property
    def extent(self) -> tuple[int, int]:
        """Numbers of sites L_x and L_y."""
        size_x, size_y = self.positions.max(axis=0) + 1
        return int(size_x), int(size_y)

    @property
    def sublattice_signs(self) -> Floats:
        r"""Staggered signs \((-1)^{x + y}\), shape `(N,)`.

        If L_x or L_y is odd, the staggered order is frustrated by the periodic
        boundary.
        """
        signs: Floats = 1.0 - 2.0 * (self.positions.sum(axis=1) % 2)
        return signs

    def first_shells(self, count: int | None) -> tuple[Shell, ...]:
        """Returns the nearest shells.

        Args:
            count: Number of shells; `None` for all.

        Raises:
            ValueError: If `count` is not between 1 and the number of shells.
        """
        if count is None:
            return self.shells
        if not 1 <= count <= len(self.shells):
            size_x, size_y = self.extent
            raise ValueError(
                f"A lattice of {size_x} x {size_y} sites has 1 to {len(self.shells)} "
                f"shells of neighbours. Received: shells={count!r}. Ask for fewer "
                "shells, or use a larger lattice."
            )
        return self.shells[:count]


def square_lattice(size_x: int, size_y: int | None = None) -> Lattice:
    r"""Makes a square lattice with periodic boundaries.

    Site \(x L_y + y\) is at (x, y), with bonds to \((x \pm 1, y)\) and
    \((x, y \pm 1)\). In a direction with two sites, both bonds lead to the same
    neighbour, and electrons hop there with twice the amplitude. The dispersion of every
    lattice is then \(-2t(\cos k_x + \cos k_y)\). A shell contains each pair of sites
    once, even if several images are at the same distance.

    Args:
        size_x: Number of sites L_x along x, 2 or more.
        size_y: Number of sites L_y along y; `None` for L_y = L_x.

    Returns:
        A `Lattice` of L_x L_y sites.

    Raises:
        ValueError: If L_x or L_y is less than 2 or not an integer.
    """
    sizes = (size_x, size_x if size_y is None else size_y)
    extent = np.array(sizes)
    if extent.dtype.kind not in "iu" or extent.min() < 2:
        raise ValueError(
            "A periodic lattice needs at least two sites in each direction, because a "
            f"site has no bond to itself. Received: {' x '.join(map(repr, sizes))}"
        )
    positions = np.array(list(np.ndindex(*extent)))
    differences = (positions[:, None] - positions) % extent
    steps = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    bonds = sum((differences == np.array(step) % extent).all(axis=-1) for step in steps)
    nearest = np.minimum(differences, extent - differences)
    squared_distances = (nearest**2).sum(axis=-1)
    shells = tuple(
        Shell(int(distance), squared_distances == distance)
        for distance in np.unique(squared_distances)
        if distance
    )
    return Lattice(positions, np.asarray(bonds, np.float64), shells)
