"""The commands for claims: make, stamp, renew, check, card, digest and open.

`keras-wm claim FILE` is short for `keras-wm claim make FILE`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from keras_wm.cli import options
from keras_wm.cli.app import Exit, print_report
from keras_wm.cli.inputs import (
    check_unused,
    file_reader,
    load_key,
    new_passphrase,
    read_names,
)
from keras_wm.cli.options import argument, count, flag, option

if TYPE_CHECKING:
    from keras_wm.claims.claim import Claim
    from keras_wm.claims.facts import ClaimedLayer
    from keras_wm.scheme.key import WatermarkKey

_MAKE = "make"


class _FileOrCommand(TyperGroup):
    """A group whose first argument can also be the file to make a claim for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [_MAKE, *args]
        return list(super().parse_args(ctx, args))


claim = typer.Typer(
    cls=_FileOrCommand,
    help="Make the claim for a marked model file, have it dated, and check claims.\n\n"
    "`keras-wm claim FILE --key KEY` is short for `keras-wm claim make FILE --key KEY`."
    " If the file has the name of a command, write `./FILE`.",
    short_help="Make the claim for a marked model file, have it dated, and check it.",
    subcommand_metavar="FILE --key KEY | COMMAND ...",
    no_args_is_help=True,
)

ClaimFile = Annotated[Path, argument("Claim file.", "CLAIM")]
Tsa = Annotated[str, option("URL of a time-stamping authority (RFC 3161).", "URL")]


@claim.command(_MAKE)
def make(
    file: options.File,
    key: options.Key,
    output: Annotated[
        Path | None,
        option(
            "Output path of the claim (default: NAME.claim in this folder).",
            "FILE",
            "--output",
            "-o",
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        option(
            "Marked layer with the number of its slot (default: search all kernels, "
            "slot 0). Repeatable.",
            "NAME[:SLOT]",
            "--layer",
        ),
    ] = None,
    slots: Annotated[int, count("Number of slots to search.")] = 1,
    checkpoint: Annotated[
        Path | None, option("The network as it was before it was marked.", "FILE")
    ] = None,
    recipients: options.Recipients = None,
    predecessor: Annotated[
        Path | None, option("The claim for an earlier version.", "CLAIM")
    ] = None,
    released: Annotated[
        bool, flag("--released", "The model is already public; the claim says so.")
    ] = False,
    sandbox: options.Sandbox = True,
    limit: options.Limit = None,
) -> None:
    """Make the claim for a marked model file. Keep it, and have its digest dated."""
    from keras_wm.claims.claim import Claim

    target = output or Path(f"{_stem(file)}.claim")
    check_unused(target)
    loaded = load_key(key)
    with file_reader(limit, sandbox) as reader:
        claimed = _claimed_layers(file, loaded, layers, slots, reader)
        made = Claim.make(
            file,
            loaded,
            claimed,
            jointly=len(claimed) > 1,
            checkpoint=checkpoint,
            recipients=read_names(recipients),
            predecessor=Claim.load(predecessor) if predecessor else None,
            released=released,
            **reader,
        )
    made.save(target)
    typer.echo(f"{target}: keep this file. It is needed to prove the date.")
    for layer in made.layers:
        typer.echo(f"marked layer: {_describe(layer)}")
    typer.echo(f"digest: {made.digest}")
    typer.echo(
        f"Have the digest dated before anybody sees the model: keras-wm claim stamp "
        f"{target} --tsa URL, or put it into a git commit."
    )


@claim.command()
def stamp(
    path: ClaimFile, tsa: Tsa, tsa_certificates: options.TsaCertificates = None
) -> None:
    """Have a claim dated by a time-stamping authority, which sees its digest only."""
    from keras_wm.claims.claim import Claim
    from keras_wm.claims.stamping import stamp as stamp_claim

    stamped = stamp_claim(Claim.load(path), tsa, tsa_certificates)
    stamped.save(path, overwrite=True)
    _report_stamps(path, stamped)


@claim.command()
def renew(
    path: ClaimFile, tsa: Tsa, tsa_certificates: options.TsaCertificates = None
) -> None:
    """Renew the time stamps of a claim before their certificates expire."""
    from keras_wm.claims.claim import Claim
    from keras_wm.claims.stamping import renew as renew_claim

    renewed = renew_claim(Claim.load(path), tsa, tsa_certificates)
    renewed.save(path, overwrite=True)
    _report_stamps(path, renewed)


@claim.command()
def check(
    path: ClaimFile,
    tsa_certificates: options.TsaCertificates = None,
    model: Annotated[
        str | None, option("Model file that the claim should be made for.", "FILE")
    ] = None,
    key: Annotated[
        Path | None, option("Key that the claim should be made for.", "FILE")
    ] = None,
    opening: Annotated[
        Path | None, option("Opened slot that should belong to the claim.", "FILE")
    ] = None,
    recipients: options.Recipients = None,
    sandbox: options.Sandbox = True,
    limit: options.Limit = None,
    as_json: options.Json = False,
) -> None:
    """Check a claim offline: its date, and what it is made for.

    The date is checked with --tsa-certificates.

    Exit status: 0 everything that was asked is confirmed, 1 something is not, or
    nothing was asked.
    """
    from keras_wm.claims.claim import Claim
    from keras_wm.verification.claim_check import check_claim

    if recipients is not None and key is None:
        raise typer.BadParameter("Expected --recipients with --key, the owner's key.")
    loaded = Claim.load(path)
    with file_reader(limit, sandbox and model is not None) as reader:
        report = check_claim(
            loaded,
            tsa_certificates=tsa_certificates,
            model=model,
            key=load_key(key) if key else None,
            opening=load_key(opening) if opening else None,
            recipients=read_names(recipients) if recipients else None,
            **reader,
        )
    print_report(report, as_json)
    raise typer.Exit(Exit.FOUND if report.valid else Exit.NOT_FOUND)


@claim.command()
def card(path: ClaimFile, tsa_certificates: options.TsaCertificates = None) -> None:
    """Print a section for a model card, in Markdown. It contains nothing secret."""
    from keras_wm.claims.card import model_card
    from keras_wm.claims.claim import Claim

    typer.echo(model_card(Claim.load(path), tsa_certificates))


@claim.command()
def digest(path: ClaimFile) -> None:
    """Print the digest of a claim, for a git commit, OpenTimestamps or a notary."""
    from keras_wm.claims.claim import Claim

    typer.echo(Claim.load(path).digest)


@claim.command("open")
def open_slot(
    path: ClaimFile,
    key: options.Key,
    slot: Annotated[int, count("Number of the slot to show.", least=0)],
    output: Annotated[
        Path, option("Output path of the opened key.", "FILE", "--output", "-o")
    ],
    recipient: Annotated[
        str | None, option("Show a slot of this recipient's key.", "NAME")
    ] = None,
    recipients: options.Recipients = None,
    encrypt: options.Encrypt = False,
) -> None:
    """Write a key that shows one slot only, for an expert who checks a claim.

    Anybody who has it can find and remove the mark in this slot, and no other.
    """
    from keras_wm.claims.claim import Claim
    from keras_wm.claims.opening import open_claimed_slot

    if (recipient is None) != (recipients is None):
        raise typer.BadParameter("Expected --recipient and --recipients together.")
    check_unused(output)
    opened = open_claimed_slot(
        Claim.load(path), load_key(key), slot, recipient, read_names(recipients)
    )
    opened.save(output, new_passphrase() if encrypt else None)
    typer.echo(f"{output}: shows slot {slot} only, readable by you alone.")
    typer.echo(
        f"An expert can use it: keras-wm verify FILE --key {output}, and keras-wm "
        f"claim check {path} --opening {output}."
    )


def _claimed_layers(
    file: str,
    key: WatermarkKey,
    layers: list[str] | None,
    slots: int,
    reader: dict[str, Any],
) -> list[ClaimedLayer]:
    from keras_wm.claims.layers import check_marked, find_layers, search_layers
    from keras_wm.verification.standing import MARKED

    if layers:
        found = find_layers(file, dict(map(_name_and_slot, layers)), key, **reader)
        check_marked(file, found, key, MARKED, **reader)
        return found
    found = search_layers(file, key, slots, MARKED, **reader)
    if not found:
        raise ValueError(
            f"The mark of {key!r} is not in {file!r}, in {slots} slots of any kernel. "
            "Search more slots with --slots, or name the marked layers with --layer "
            "NAME:SLOT."
        )
    return found


def _name_and_slot(option: str) -> tuple[str, int]:
    """Returns the layer and the slot of an option such as `"block4_conv2:1"`."""
    name, separator, slot = option.rpartition(":")
    if not separator or not slot.isdecimal():
        return option, 0
    return name, int(slot)


def _report_stamps(path: Path, stamped: Claim) -> None:
    number = len(stamped.stamps)
    typer.echo(f"{path}: {number} time stamp{'s' if number > 1 else ''}.")
    typer.echo(
        f"Check the date: keras-wm claim check {path} --tsa-certificates PEM, with the "
        "authority's root certificate."
    )


def _describe(layer: ClaimedLayer) -> str:
    return f"{layer.name}, slot {layer.slot}, shape {layer.shape}"


def _stem(file: str) -> str:
    """Returns the name of a file without its folder and suffixes."""
    return file.rstrip("/").rpartition("/")[2].partition(".")[0] or "model"
