"""Bonds and shells of lattices, checked by counting."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_wm.slmc.lattice import square_lattice
from tests.slmc.closed_forms import dimer

KNOWN = {
    4: {1: 4, 2: 4, 4: 2, 5: 4, 8: 1},
    6: {1: 4, 2: 4, 4: 4, 5: 8, 8: 4, 9: 2, 10: 4, 13: 4, 18: 1},
}
SIDES = st.integers(2, 7)


def coordinations(lattice):
    return {shell.squared_distance: shell.coordination for shell in lattice.shells}


def test_shells_have_the_coordinations_counted_by_hand():
    for size, expected in KNOWN.items():
        assert coordinations(square_lattice(size)) == expected
    assert len(square_lattice(8).shells) == 14


@given(SIDES, SIDES)
@settings(max_examples=20, deadline=None)
def test_shells_contain_the_distances_between_nearest_images(size_x, size_y):
    lattice = square_lattice(size_x, size_y)
    sites = list(product(range(size_x), range(size_y)))
    images = list(product((-size_x, 0, size_x), (-size_y, 0, size_y)))
    assert [tuple(position) for position in lattice.positions] == sites
    for i, (xi, yi) in enumerate(sites):
        for j, (xj, yj) in enumerate(sites):
            nearest = min((xi - xj + a) ** 2 + (yi - yj + b) ** 2 for a, b in images)
            shells = [s.squared_distance for s in lattice.shells if s.pairs[i, j]]
            assert shells == ([nearest] if nearest else [])


@given(SIDES, SIDES)
@settings(max_examples=20, deadline=None)
def test_every_site_has_four_bonds_to_adjacent_sites(size_x, size_y):
    lattice = square_lattice(size_x, size_y)
    expected = np.zeros((lattice.sites, lattice.sites))
    for x, y in product(range(size_x), range(size_y)):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            neighbour = (x + dx) % size_x * size_y + (y + dy) % size_y
            expected[x * size_y + y, neighbour] += 1
    np.testing.assert_array_equal(lattice.bonds, expected)


def test_two_sites_around_a_ring_have_two_bonds_but_are_one_pair():
    lattice = square_lattice(2, 4)
    assert lattice.bonds[0, 4] == 2
    assert lattice.bonds[0, 1] == lattice.bonds[0, 3] == 1
    # At distance 1: one neighbour along x and two along y.
    assert coordinations(lattice) == {1: 3, 2: 2, 4: 1, 5: 1}


def test_a_dimer_has_one_bond():
    np.testing.assert_array_equal(dimer().bonds, [[0, 1], [1, 0]])
    assert coordinations(dimer()) == {1: 1}


@pytest.mark.parametrize("sides", [(1, 4), (4, 0), (-2, 4), (2.5, 2), ("4", 4)])
def test_invalid_sizes_raise_an_error(sides):
    received = f"Received: {sides[0]!r} x {sides[1]!r}"
    with pytest.raises(
        ValueError, match="at least two sites in each direction"
    ) as raised:
        square_lattice(*sides)
    assert received in str(raised.value)


@pytest.mark.parametrize("count", [0, 6, -1])
def test_too_many_or_too_few_shells_raise_an_error(count):
    with pytest.raises(ValueError, match=r"4 x 4 sites has 1 to 5 shells.*shells="):
        square_lattice(4).first_shells(count)


def test_first_shells_are_the_nearest():
    lattice = square_lattice(4)
    assert lattice.first_shells(None) == lattice.shells
    assert [shell.squared_distance for shell in lattice.first_shells(2)] == [1, 2]
