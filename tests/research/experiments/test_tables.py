"""Tables, and the statistics in them."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from keras_wm.research.experiments.tables import (
    ResultTable,
    difference,
    interval,
    paired_difference,
    scientific,
    table,
)

TABLE = ResultTable("Marks", ["mark", "p"], [["a|b", "1"], ["c", "-20"]], ["A note."])


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12, unique=True))
def test_the_interval_is_students(differences):
    mean, half = interval(differences)
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert mean - half == pytest.approx(low, abs=1e-9)
    assert mean + half == pytest.approx(high, abs=1e-9)


def test_differences_are_taken_seed_by_seed_in_percentage_points():
    base = [{"seed": seed, "test_error": 0.01 * seed} for seed in (3, 1, 2)]
    rows = [{"seed": seed, "test_error": 0.01 * seed + 0.002} for seed in (1, 2, 9)]
    assert paired_difference(rows, base) == "+0.20 ± 0.00"
    assert paired_difference(rows[:1], base) == "+0.20"
    assert paired_difference(rows[2:], base) == "-"


def test_the_difference_of_networks_that_share_no_seed_has_welchs_interval():
    rows = [{"test_error": one / 100} for one in (1.0, 2.0, 3.0)]
    base = [{"test_error": one / 100} for one in (0.0, 4.0)]
    test = stats.ttest_ind([1.0, 2.0, 3.0], [0.0, 4.0], equal_var=False)
    assert difference(rows, base) == f"+0.00 ± {test.confidence_interval().high:.2f}"
    assert difference(rows[1:2], base[:1]) == "+2.00"
    assert difference(rows, []) == "-"
    same = base[:1] * 2
    assert difference(same, same) == "+0.00 ± 0.00"
    assert difference(rows, same).startswith("+2.00 ± 2.48")


@pytest.mark.parametrize(
    "value, text", [(4.76e-4, "4.8e-4"), (17.7, "1.8e1"), (0, "0.0e0"), (1, "1.0e0")]
)
def test_numbers_over_decades_have_no_zeros_in_their_exponent(value, text):
    assert scientific(value) == text
    assert float(text) == pytest.approx(value, rel=0.05)


def test_a_table_in_markdown_keeps_its_columns():
    lines = TABLE.to_markdown().splitlines()
    assert lines[:5] == [
        "**Marks**",
        "",
        "| mark | p |",
        "| --- | ---: |",
        r"| a\|b | 1 |",
    ]
    assert lines[-1] == "A note."


def test_a_table_in_a_terminal_shows_everything():
    console = Console(file=io.StringIO(), width=60)
    TABLE.print(console)
    printed = console.file.getvalue()
    assert all(text in printed for text in ("Marks", "a|b", "-20", "A note."))


def test_a_terminal_that_is_too_narrow_loses_nothing():
    console = Console(file=io.StringIO(), width=20)
    ResultTable("T", ["n", "named"], [["12", "1234567890123456789012345"]]).print(
        console
    )
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 20
    assert "1234567890123456789012345" in "".join("".join(lines).split())


def test_lines_without_rows_are_left_out():
    rows = [{"ber": 0.25}, {"ber": 0.75}]
    made = table(
        "T",
        [(["some"], rows), (["none"], [])],
        ["mark"],
        {"BER": lambda found: str(np.mean([row["ber"] for row in found]))},
    )
    assert made.rows == [["some", "0.5"]]
