"""Reports print as text and as HTML: the same facts, and nothing harmful."""

import html
import re

import numpy as np
import pytest

import keras_wm
from keras_wm.scanning import FileResult, KeyResult, ScanReport
from keras_wm.verification.report import TextReport
from tests.conftest import fixed_key
from tests.files.written import write_weights

HOSTILE = "<script>&\x1b[31m\u202e\r\n"
ESCAPED = r"<script>&\x1b[31m\u202e\r\n"


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """One report of each kind, with hostile names of a file, layer and owner."""
    path = tmp_path_factory.mktemp("hostile") / HOSTILE
    kernel = np.random.default_rng(1).normal(size=(40, 20))
    write_weights(path, kernel, name=HOSTILE)
    key = fixed_key(owner=HOSTILE)
    other = fixed_key(owner=f"other {HOSTILE}", secret=b"\x01" * 32)
    parties = [keras_wm.Party(key, path), keras_wm.Party(other, path)]
    (layer,) = {kernel.layer for kernel in keras_wm.inspect(path)}
    scan = ScanReport(1, 0.5)
    result = KeyResult(HOSTILE, "", True, HOSTILE, -30.0, 0.0, 32, 32, 1)
    scan.add(FileResult(str(path), tests=1, keys=(result,)))
    return [
        keras_wm.verify(path, key, reordered=True),
        keras_wm.verify(path, key, layer=[layer]),
        keras_wm.compare(path, parties),
        keras_wm.identify(path, key, [HOSTILE + "a", "b"], alpha=0.999),
        keras_wm.inspect(path),
        scan,
    ]


class Report(TextReport):
    def rows(self):
        return [(HOSTILE, HOSTILE), ("name", "value")]


class Table(TextReport):
    _columns = ("layer", "bits")
    _right_aligned = (1,)

    def rows(self):
        return [(HOSTILE, "7"), ("c1", "1000")]


def test_names_are_aligned_to_the_right_and_values_to_the_left():
    width = len(ESCAPED)
    lines = [f"{ESCAPED}  {ESCAPED}", f"{'name':>{width}}  value"]
    assert repr(Report()).splitlines() == lines


def test_a_table_has_headers_and_aligned_numbers():
    width = len(ESCAPED)
    assert repr(Table()).splitlines() == [
        f"{'layer':{width}}  bits",
        f"{ESCAPED}     7",
        f"{'c1':{width}}  1000",
    ]
    page = Table()._repr_html_()
    assert re.findall("<th.*?>(.*?)</th>", page) == ["layer", "bits"]
    assert page.count("<tr>") == 3


def test_every_report_is_one_of_these(reports):
    assert all(isinstance(report, TextReport) for report in reports)


def test_no_report_can_control_a_terminal(reports):
    for report in [*reports, Report(), Table()]:
        assert ESCAPED in repr(report)
        for line in repr(report).split("\n"):
            assert line.isprintable()


def test_no_report_can_inject_markup(reports):
    for report in [*reports, Report(), Table()]:
        page = report._repr_html_()
        assert page.isprintable()
        assert set(re.findall("<.*?>", page)) <= {
            *("<table>", "</table>", "<tr>", "</tr>", "</th>", "</td>"),
            *("<th style='text-align:left'>", "<td style='text-align:left'>"),
        }


def test_text_and_html_show_the_same_facts(reports):
    for report in [*reports, Report(), Table()]:
        cells = re.findall("<t[hd] .*?>(.*?)</t[hd]>", report._repr_html_())
        text = "".join(map(html.unescape, cells))
        # Text differs by the spaces between columns and the ends of lines only.
        assert "".join(text.split()) == "".join(repr(report).split())


def test_a_report_with_a_name_of_megabytes_stays_readable():
    class Long(TextReport):
        def rows(self):
            return [("name", "x" * 10**7)]

    assert len(repr(Long())) < 20_000
