"""A section about a claim for the card of a published model."""

from __future__ import annotations

from keras_wm.claims.claim import Claim
from keras_wm.claims.dating import Certificates, check_stamps
from keras_wm.utils.text import printable

_MARKUP = r"\`*_{}[]<>()#+!|&~$"


def model_card(claim: Claim, tsa_certificates: Certificates | None = None) -> str:
    """Returns a section in Markdown. It does not say where the mark is.

    Args:
        claim: The `Claim`.
        tsa_certificates: Root certificates of the authorities that dated the claim, as
            for `dated`. `None` leaves the date out. Defaults to `None`.

    Raises:
        ClaimError: If certificates are given and the claim is not dated.
    """
    rows = [
        ("Owner", _text(claim.owner)),
        ("Claim", f"`{claim.digest}`"),
        ("Commitment of the key", f"`{claim.commitment}`"),
    ]
    if claim.model.file is not None:
        rows.append(("SHA-256 of the file", f"`{claim.model.file}`"))
    if tsa_certificates:
        dating = check_stamps(claim, tsa_certificates)
        date = f"{dating.date:%Y-%m-%d %H:%M:%S} UTC, by {_text(dating.authority)}"
        rows.append(("Date of the claim", date))
    if claim.predecessor is not None:
        rows.append(("Claim for the earlier version", f"`{claim.predecessor}`"))
    when = "after" if claim.released else "before"
    lines = [
        "## Ownership",
        "",
        "The weights of this model carry a watermark of their owner, embedded with "
        f"keras_wm. The claim was made {when} the model was published. Its digest "
        "reveals nothing about the mark.",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        "The owner keeps the claim. Anybody who sees it can check it with `pip install "
        '"keras-wm[claims]"` and:',
        "",
        "```sh",
        "keras-wm claim check CLAIM --tsa-certificates PEM --model FILE",
        "```",
    ]
    return "\n".join(lines)


def _text(text: str) -> str:
    """Returns text that Markdown shows as it is."""
    return "".join(
        f"\\{character}" if character in _MARKUP else character
        for character in printable(text, 1000)
    )
