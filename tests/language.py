"""Counts phrases that make a reader stop: see docs/glossary.md for what to write.

    python tests/language.py [--count] [PATH ...]

Prints each line of the Python and Markdown files and notebooks below the paths that
holds such a phrase, and exits with 1 if there is one. With `--count`, only prints how
often each phrase occurs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PHRASES = {
    "is no X": (
        r"(?<![Tt]here )\b(?:is|are|was|were|be|it's) no "
        r"(?!longer\b|more\b|less\b|matter\b)\w"
    ),
    "goes on (resumes)": r"\b(?:go|goes|going|gone|went) on\b(?! to\b)",
    "anew (again)": r"\banew\b",
    "of which": r"\bof which\b",
    "by which": r"\bby which\b",
    "who/what clause": r"\b(?:Who|Whoever|What) [a-z]+s\b(?![^.]*\?)",
    "a name a line": r"\b(?:a|one) (?:name|file|line|source|module|row) an? \w+\b",
    "turned (sign-flipped)": r"\bturn(?:ed|s)? (?:in|their|its|the) signs?\b",
    "tells (shows)": r"\b(?:tell|tells|telling|told)\b(?!\()",
    "docstring fragment": (
        r'"""(?:Of|By|With|Without|What|Whether|Who|Whose|Whom|How|Why|Where|When|'
        r"Beside|For|So|Under|In|On|If)\b"
    ),
    "refuses (raises)": r'"""Refuses?\b',
    "argument fragment": r"^ +`?\w+`?: (?:Of|By|With|What|Who|Whose|Whom|How|Why)\b",
    "loop variable": r"\bfor (?:one|each|every|found|other)\b(?:,| in\b)",
}
SUFFIXES = {".py", ".md", ".ipynb", ".cfg", ".html"}


def phrases_in(paths: list[Path]) -> Iterator[tuple[str, Path, int, str]]:
    """Yields each phrase's name, its file, the line's number and the line."""
    files = [
        file
        for path in paths
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.suffix in SUFFIXES and file.resolve() != Path(__file__).resolve()
    ]
    for file in files:
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            # Output of a notebook's cell can be megabytes of a picture.
            if len(line) < 2000:
                for name, pattern in PHRASES.items():
                    if re.search(pattern, line):
                        yield name, file, number, line.strip()


def main() -> int:
    """Prints what was found; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--count", action="store_true")
    arguments = parser.parse_args()
    root = Path(__file__).parents[1]
    hits = list(phrases_in(arguments.paths or [root]))
    if arguments.count:
        for phrase in PHRASES:
            print(f"{sum(name == phrase for name, *_ in hits):5}  {phrase}")
    else:
        for name, file, number, line in hits:
            print(f"{file}:{number}: {name}: {line[:120]}")
    return 1 if hits else 0


if __name__ == "__main__":
    sys.exit(main())
