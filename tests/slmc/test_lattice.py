"""Lattices: bonds and shells, by counting."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_wm.slmc.lattice import dimer, square_lattice

KNOWN = {
    4: {1: 4, 2: 4, 4: 2, 5: 4, 8: 1},
    6: {1: 4, 2: 4, 4: 4, 5: 8, 8: 4, 9: 2, 10: 4, 13: 4, 18: 1},
}
SIDES = st.integers(2, 7)


def table(lattice):
    return {shell.squared_distance: shell.coordination for shell in lattice.shells}


@pytest.mark.parametrize("side", KNOWN)
def test_shells_are_those_that_were_counted_by_hand(side):
    assert table(square_lattice(side)) == KNOWN[side]


def test_a_lattice_of_8_has_14_shells():
    assert len(square_lattice(8).shells) == 14


@given(SIDES, SIDES)
@settings(max_examples=20, deadline=None)
def test_shells_are_the_distances_between_nearest_images(across, along):
    lattice = square_lattice(across, along)
    sites = list(product(range(across), range(along)))
    images = list(product((-across, 0, across), (-along, 0, along)))
    assert [tuple(each) for each in lattice.positions] == sites
    for i, (xi, yi) in enumerate(sites):
        for j, (xj, yj) in enumerate(sites):
            nearest = min((xi - xj + a) ** 2 + (yi - yj + b) ** 2 for a, b in images)
            found = [s.squared_distance for s in lattice.shells if s.pairs[i, j]]
            assert found == ([nearest] if nearest else [])


@given(SIDES, SIDES)
@settings(max_examples=20, deadline=None)
def test_every_site_has_four_bonds_to_sites_beside_it(across, along):
    lattice = square_lattice(across, along)
    expected = np.zeros((lattice.sites, lattice.sites))
    for x, y in product(range(across), range(along)):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            other = (x + dx) % across * along + (y + dy) % along
            expected[x * along + y, other] += 1
    np.testing.assert_array_equal(lattice.bonds, expected)


def test_two_sites_around_a_ring_have_two_bonds_and_are_one_neighbour():
    lattice = square_lattice(2, 4)
    assert lattice.bonds[0, 4] == 2
    assert lattice.bonds[0, 1] == lattice.bonds[0, 3] == 1
    # One site across and two along.
    assert table(lattice) == {1: 3, 2: 2, 4: 1, 5: 1}


def test_a_dimer_has_one_bond():
    np.testing.assert_array_equal(dimer().bonds, [[0, 1], [1, 0]])
    assert table(dimer()) == {1: 1}


@pytest.mark.parametrize("sides", [(1, 4), (4, 0), (-2, 4), (2.5, 2), ("4", 4)])
def test_a_lattice_that_cannot_be_is_refused(sides):
    given = f"Received: {sides[0]!r} x {sides[1]!r}"
    with pytest.raises(
        ValueError, match="two sites or more in each direction"
    ) as raised:
        square_lattice(*sides)
    assert given in str(raised.value)


@pytest.mark.parametrize("count", [0, 6, -1])
def test_shells_that_a_lattice_has_not_are_refused(count):
    with pytest.raises(ValueError, match=r"4 x 4 sites has 1 to 5 shells.*shells="):
        square_lattice(4).first_shells(count)


def test_shells_are_counted_from_the_nearest_on():
    lattice = square_lattice(4)
    assert lattice.first_shells(None) == lattice.shells
    assert [one.squared_distance for one in lattice.first_shells(2)] == [1, 2]
