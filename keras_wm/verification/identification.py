"""Whose copy a model file is: the recipients whose marks are in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

from keras_wm.files import DEFAULT_LIMITS, Limits, Sandbox, select
from keras_wm.files.model_file import open_model
from keras_wm.scheme.detection import Detection, corrected, format_p
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.progress import progress_bar
from keras_wm.verification.search import Finding, search
from keras_wm.verification.verdict import MARKED
from keras_wm.verification.verification import check_alpha, check_key


@dataclass(frozen=True, eq=False)
class Trace:
    """What a model shows of one recipient's mark.

    Attributes:
        recipient: The recipient; an empty string is the owner herself.
        layer: The kernel that carries the message best, or `None` where no kernel
            can hold it.
        detection: The scores in that kernel, or `None`.
        log10_p: log10 of the p-value, corrected for all recipients and kernels.
    """

    recipient: str
    layer: str | None
    detection: Detection | None
    log10_p: float

    def to_dict(self) -> dict[str, Any]:
        """The figures, as plain Python values."""
        figures = self.detection.to_dict() if self.detection else {}
        return {
            "recipient": self.recipient,
            "log10_p": self.log10_p,
            "layer": self.layer,
            **figures,
        }


@dataclass(frozen=True)
class Identification:
    """Which recipients' marks were found in a model.

    Attributes:
        source: The file, or the name of the model.
        owner: Whom the key names.
        commitment: The commitment of the owner's key.
        own: What the model shows of the owner's own mark.
        traces: What it shows of each recipient's, strongest first.
        tests: How many pairs of a key and a kernel were tried; every p-value is
            multiplied by it.
        alpha: Named means a corrected p-value below this.
    """

    source: str
    owner: str
    commitment: str
    own: Trace
    traces: Sequence[Trace]
    tests: int
    alpha: float

    @property
    def named(self) -> list[Trace]:
        """The recipients whose marks are there, strongest first."""
        return [one for one in self.traces if one.log10_p < log10(self.alpha)]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain Python values that JSON can hold."""
        return {
            "source": self.source,
            "owner": self.owner,
            "commitment": self.commitment,
            "recipients_tried": len(self.traces),
            "tests": self.tests,
            "alpha": self.alpha,
            "named": [one.to_dict() for one in self.named],
            "strongest_other": self._other.to_dict() if self._other else None,
            "own_mark": self.own.to_dict(),
        }

    @property
    def _other(self) -> Trace | None:
        """The strongest trace of those that are not named."""
        others = self.traces[len(self.named) :]
        return others[0] if others else None

    def rows(self) -> list[tuple[str, str]]:
        """The report, as pairs of a name and a value."""
        names = ", ".join(one.recipient for one in self.named)
        rows = [
            ("recipients", names or "NONE FOUND"),
            ("model", self.source),
            ("owner", self.owner),
            ("commitment", self.commitment),
            ("tried", f"{len(self.traces):,} recipients, {self.tests:,} tests"),
        ]
        rows += [(one.recipient, _figures(one)) for one in self.named]
        if self._other:
            rows.append(("strongest other", f"p-value {format_p(self._other.log10_p)}"))
        return [*rows, ("own mark", _figures(self.own))]

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        return "\n".join(f"{name:>{width}}  {value}" for name, value in self.rows())


def identify(
    model: Any,
    key: WatermarkKey,
    recipients: Sequence[str],
    layer: str | None = None,
    alpha: float = MARKED,
    limits: Limits = DEFAULT_LIMITS,
    sandbox: bool | Sandbox = False,
    progress: bool = False,
) -> Identification:
    r"""Names the recipients whose marks are in a model.

    Every recipient's copy was marked with `key.for_recipient(name)`. Each of these
    keys has a projection of its own, so that an innocent recipient's scores are
    i.i.d. N(0, 1), whatever other marks there are. In the mean of c copies every
    mark is \(1/c\) as strong, and found as long as \(\sqrt{T} m / c\) is far above 6.

    Args:
        model: As for `verify`.
        key: The owner's `WatermarkKey`, not a recipient's.
        recipients: The names of all who may have had the copy.
        layer: The layer to look in. `None`, the default, tries every kernel that
            can hold the message.
        alpha: Named means a p-value below this, multiplied by the number of
            recipients and kernels tried. Defaults to 1e-9.
        limits: What a file may ask of this machine. Defaults to `Limits()`.
        sandbox: Whether a file is read in a process of its own. Defaults to `False`.
        progress: Whether to show a bar on a terminal or in a notebook.

    Returns:
        An `Identification`.

    Raises:
        ModelFileError: If the file cannot be read or is refused.
        LayerNotFoundError: If the layer is not found.
        ValueError: If no recipient is given or one twice, the key is a
            recipient's, or the named layer cannot hold the key's message.

    Example:

    ```python
    leak = keras_wm.identify("leaked.keras", key, ["customer-17", "customer-18"])
    print([trace.recipient for trace in leak.named])
    ```
    """
    check_key(key)
    check_alpha(alpha)
    _check_recipients(recipients)
    keys = [key, *(key.for_recipient(name) for name in recipients)]
    with open_model(model, limits, sandbox) as opened:
        kernels = opened.kernels
        if layer is not None:
            kernels = select(kernels, layer, opened.path)
        with progress_bar("recipients", progress) as show:
            findings = search(kernels, keys, limits, show)
        if layer is not None and not findings[0].tried:
            key.check_shape(kernels[0].shape)
    tests = sum(finding.tried for finding in findings)
    own, *traces = (
        _trace(name, finding, tests)
        for name, finding in zip(["", *recipients], findings, strict=True)
    )
    return Identification(
        source=opened.path,
        owner=key.owner,
        commitment=key.commitment,
        own=own,
        traces=sorted(traces, key=lambda trace: trace.log10_p),
        tests=tests,
        alpha=alpha,
    )


def _check_recipients(recipients: Sequence[str]) -> None:
    if isinstance(recipients, str) or not recipients:
        raise ValueError(
            "Expected a list of recipients' names, at least one. "
            f"Received: recipients={recipients!r}"
        )
    name, count = Counter(recipients).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"Expected each recipient once. Received {name!r} {count} times."
        )


def _trace(recipient: str, finding: Finding, tests: int) -> Trace:
    found = finding.detection
    return Trace(
        recipient,
        finding.kernel.name if finding.kernel else None,
        found,
        corrected(found.log10_p, tests) if found else 0.0,
    )


def _figures(trace: Trace) -> str:
    found = trace.detection
    if found is None:
        return "no kernel can hold the message"
    errors = found.bits - found.matches
    p = f"p-value {format_p(trace.log10_p)}"
    return f"{p}, {errors} of {found.bits} bit errors, in {trace.layer}"
