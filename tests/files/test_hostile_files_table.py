"""The table of hostile files names tests and limits that exist."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from keras_wm.files import Limits
from tests.files.hdf5.test_bombs import REFUSALS

HERE = Path(__file__).parent
TABLE = (HERE.parents[1] / "docs" / "hostile_files.md").read_text()
TESTS = sorted(set(re.findall(r"`((?:\.\./)?(?:\w+/)*test_\w+\.py)::(\w+)`", TABLE)))
DEFAULTS = sorted(set(re.findall(r"`(\w+)`, ([\d,]+)( MiB| GiB|)", TABLE)))


@pytest.mark.parametrize(("file", "test"), TESTS)
def test_a_test_that_the_table_names_exists(file, test):
    if file == "hdf5/test_bombs.py":
        assert test in REFUSALS
    else:
        tree = ast.parse((HERE / file).read_text())
        assert test in {node.name for node in tree.body if hasattr(node, "name")}


@pytest.mark.parametrize(("limit", "number", "unit"), DEFAULTS)
def test_a_default_that_the_table_gives_is_the_default(limit, number, unit):
    factor = {"": 1, " MiB": 2**20, " GiB": 2**30}[unit]
    assert getattr(Limits(), limit) == int(number.replace(",", "")) * factor


def test_the_table_gives_the_default_of_every_limit():
    assert {name for name, *_ in DEFAULTS} == {field.name for field in fields(Limits)}
