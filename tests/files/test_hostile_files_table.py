"""The table of hostile files names tests and limits that exist."""

import ast
import re
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

from keras_wm.files import Limits
from tests.files.hdf5.test_bombs import LONG_OUTCOMES, OUTCOMES

HERE = Path(__file__).parent
TABLE = (HERE.parents[1] / "docs" / "hostile_files.md").read_text()
UNITS = {"": 1, " MiB": 2**20, " GiB": 2**30}


def test_every_test_that_the_table_names_exists():
    named = defaultdict(set)
    for file, test in re.findall(r"`((?:\.\./)?(?:\w+/)*test_\w+\.py)::(\w+)`", TABLE):
        named[file].add(test)
    assert len(named) > 10
    # The table names bombs like tests.
    assert named.pop("hdf5/test_bombs.py") <= {*OUTCOMES, *LONG_OUTCOMES}
    for file, tests in named.items():
        body = ast.parse((HERE / file).read_text()).body
        missing = tests - {node.name for node in body if hasattr(node, "name")}
        assert not missing, file


def test_every_default_that_the_table_gives_is_the_default():
    for limit, number, unit in re.findall(r"`(\w+)`, ([\d,]+)( MiB| GiB|)", TABLE):
        default = int(number.replace(",", "")) * UNITS[unit]
        assert getattr(Limits(), limit) == default, limit


def test_the_table_gives_the_default_of_every_limit():
    named = set(re.findall(r"`(\w+)`, [\d,]+", TABLE))
    assert named == {field.name for field in fields(Limits)}
