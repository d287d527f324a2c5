"""The house rules: few modules at the top, small folders, plain names and phrases.

`lint-imports` checks which room may import which, and that no imports form a circle.
"""

from pathlib import Path

from tests.language import phrases_in

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_wm"
TOP_LEVEL = {"__init__", "__main__", "_version", "errors"}
MOST_FILES = 20


def test_the_top_level_holds_rooms_and_three_modules():
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP_LEVEL


def test_no_folder_holds_more_than_twenty_modules():
    for folder in PACKAGE.rglob("**/"):
        modules = [path.name for path in folder.glob("*.py")]
        assert len(modules) <= MOST_FILES, folder


def test_every_room_is_tested_in_a_folder_of_its_name():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    tested = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert rooms - {"plots", "utils"} <= tested


def test_what_people_read_is_in_plain_english():
    paths = ["keras_wm", "tests", "docs", "benchmarks", "examples", "notebooks"]
    files = ["README.md", "CHANGELOG.md", "setup.cfg"]
    phrases = phrases_in([ROOT / name for name in (*paths, *files)])
    assert [f"{file}:{line}: {name}" for name, file, line, _ in phrases] == []
