"""Tables of results, and the statistics in them."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from keras_wm.research.experiments.tables import (
    ResultTable,
    grouped,
    make_table,
    minus_unmarked,
    paired_difference,
    scientific,
    student_interval,
    unpaired_difference,
)

TABLE = ResultTable("Marks", ["mark", "p"], [["a|b", "1"], ["c", "-20"]], ["A note."])


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12, unique=True))
def test_the_interval_is_that_of_students_t(differences):
    mean, half = student_interval(differences)
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert mean - half == pytest.approx(low, abs=1e-9)
    assert mean + half == pytest.approx(high, abs=1e-9)


def test_paired_differences_are_by_seed_and_in_percentage_points():
    base = [{"seed": seed, "test_error": 0.01 * seed} for seed in (3, 1, 2)]
    rows = [{"seed": seed, "test_error": 0.01 * seed + 0.002} for seed in (1, 2, 9)]
    assert paired_difference(rows, base) == "+0.20 ± 0.00"
    assert paired_difference(rows[:1], base) == "+0.20"
    assert paired_difference(rows[2:], base) == "-"


def test_unpaired_differences_have_the_interval_of_welchs_t():
    rows = [{"test_error": error / 100} for error in (1.0, 2.0, 3.0)]
    base = [{"test_error": error / 100} for error in (0.0, 4.0)]
    test = stats.ttest_ind([1.0, 2.0, 3.0], [0.0, 4.0], equal_var=False)
    assert (
        unpaired_difference(rows, base)
        == f"+0.00 ± {test.confidence_interval().high:.2f}"
    )
    assert unpaired_difference(rows[1:2], base[:1]) == "+2.00"
    assert unpaired_difference(rows, []) == "-"
    same = base[:1] * 2
    assert unpaired_difference(same, same) == "+0.00 ± 0.00"
    assert unpaired_difference(rows, same).startswith("+2.00 ± 2.48")


@pytest.mark.parametrize(
    "value, text", [(4.76e-4, "4.8e-4"), (17.7, "1.8e1"), (0, "0.0e0"), (1, "1.0e0")]
)
def test_scientific_notation_has_a_short_exponent(value, text):
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


def test_a_table_in_a_terminal_shows_all_texts():
    console = Console(file=io.StringIO(), width=60)
    TABLE.print(console)
    printed = console.file.getvalue()
    assert all(text in printed for text in ("Marks", "a|b", "-20", "A note."))


def test_a_table_in_a_narrow_terminal_is_complete():
    console = Console(file=io.StringIO(), width=20)
    ResultTable("T", ["n", "named"], [["12", "1234567890123456789012345"]]).print(
        console
    )
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 20
    assert "1234567890123456789012345" in "".join("".join(lines).split())


def test_rows_are_grouped_by_the_values_of_labels_in_the_given_order():
    rows = [
        {"scheme": scheme, "share": share, "strength": 10.0}
        for share in (0.5, 0)
        for scheme in ("random", "default")
    ]
    groups = grouped(rows[:3], scheme=("default", "random"), share=None, strength=None)
    assert groups == [
        (["default", "50 %", "10"], [rows[1]]),
        (["random", "50 %", "10"], [rows[0]]),
        (["random", "0 %", "10"], [rows[2]]),
    ]


def test_networks_are_compared_with_the_unmarked_ones_of_their_case():
    errors = {
        ("easy", "unmarked"): 0.01,
        ("hard", "unmarked"): 0.5,
        ("hard", "random"): 0.52,
    }
    rows = [
        {"case": case, "scheme": scheme, "seed": 0, "test_error": error}
        for (case, scheme), error in errors.items()
    ]
    cell = minus_unmarked(rows)["minus unmarked"]
    assert [cell([row]) for row in rows] == ["", "", "+2.00"]


def test_groups_without_rows_are_left_out():
    rows = [{"ber": 0.25}, {"ber": 0.75}]
    table = make_table(
        "T",
        [(["some"], rows), (["none"], [])],
        ["mark"],
        {"BER": lambda group: str(np.mean([row["ber"] for row in group]))},
    )
    assert table.rows == [["some", "0.5"]]
