"""Arguments and options of the commands, and the types of those that several share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class RequiredStanding(StrEnum):
    """A standing that can be required of a finding."""

    INDEPENDENT = "independent"
    CLAIMED = "claimed"


def argument(help: str, metavar: str, **settings: Any) -> Any:
    """Declares an argument with a placeholder for its value, such as `FILE`."""
    return typer.Argument(help=help, metavar=metavar, **settings)


def option(help: str, metavar: str | None = None, *names: str) -> Any:
    """Declares an option with a placeholder for its value, such as `FILE`."""
    return typer.Option(*names, help=help, metavar=metavar)


def count(help: str, *names: str, least: int = 1) -> Any:
    """Declares an option whose value is an integer."""
    return typer.Option(*names, help=help, metavar="N", min=least)


def flag(name: str, help: str) -> Any:
    """Declares an option without a value."""
    return typer.Option(name, help=help)


File = Annotated[str, argument("Model file, folder or URL.", "FILE")]
Key = Annotated[Path, option("Key file.", "FILE", "--key")]
Layers = Annotated[
    list[str] | None,
    option(
        "Layer to search (default: all). Repeat to test several layers jointly.",
        "NAME",
        "--layer",
    ),
]
Slots = Annotated[
    int | None,
    count(
        "Number of slots of the key to test. Several --layer are read in slots 0, 1, "
        "and so on. (default: all with an anchor, else 1)"
    ),
]
Claim = Annotated[
    str | None, option("The owner's claim, which fixes choices of a test.", "FILE")
]
Published = Annotated[
    str | None,
    option(
        "Day on which the model and all its ancestors first appeared, for --claim.",
        "YYYY-MM-DD",
    ),
]
Controls = Annotated[
    list[str] | None,
    option(
        "Model that was public before the claim and that the model may descend from. "
        "Repeatable.",
        "FILE",
        "--control",
    ),
]
TsaCertificates = Annotated[
    list[Path] | None,
    option(
        "Root certificates (PEM) of time-stamping authorities that you trust. "
        "Repeatable.",
        "PEM",
        "--tsa-certificates",
    ),
]
Recipients = Annotated[
    Path | None,
    option("File of recipient names, one per line (- for stdin).", "FILE"),
]
Require = Annotated[
    RequiredStanding | None,
    option(
        "Standing that a mark must have to count as found: independent (p below "
        "2^-64), or claimed (p below 1e-9), which includes independent."
    ),
]
Sandbox = Annotated[
    bool,
    option(
        "Read the file in a separate process, so that a malicious file cannot crash "
        "or hang this one."
    ),
]
Limit = Annotated[
    list[str] | None,
    option("Change a safety limit, such as array_bytes=8e9. Repeatable.", "NAME=VALUE"),
]
Json = Annotated[bool, flag("--json", "Print one JSON object.")]
Encrypt = Annotated[bool, flag("--encrypt", "Encrypt the key file with a passphrase.")]
DATA = option("Data set: digits, cifar10 or an .npz file.", "NAME|FILE")
Families = Annotated[
    str | None,
    option("Families of attacks, separated by commas (default: all).", "NAMES"),
]
BlocksPerGroup = Annotated[int, count("Residual blocks per group, N.", "--n")]
Widening = Annotated[int, count("Widening factor, k.", "--k")]
Folder = Annotated[Path, option("Output folder of the results.", "FOLDER")]
