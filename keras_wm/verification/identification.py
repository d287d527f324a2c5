"""identify: the recipients whose marks are in a leaked model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import log10
from typing import TYPE_CHECKING, Any

from keras_wm.files import (
    DEFAULT_LIMITS,
    Limits,
    ModelFile,
    ModelSource,
    Sandbox,
    open_model,
)
from keras_wm.scheme.detection import Detection, corrected, format_p
from keras_wm.scheme.key import WatermarkKey, check_key
from keras_wm.utils.progress import progress_bar
from keras_wm.verification.original import Original
from keras_wm.verification.report import TextReport
from keras_wm.verification.search import (
    checked_slots,
    kernels_to_search,
    search_slots,
    usage_notes,
)
from keras_wm.verification.search_result import SearchResult
from keras_wm.verification.standing import (
    MARKED,
    UNUSED_VERDICT,
    Standing,
    describe,
    meets,
)
from keras_wm.verification.verification import check_alpha, check_no_claim

if TYPE_CHECKING:
    from keras_wm.claims.claim import Claim
    from keras_wm.claims.dating import Certificates
    from keras_wm.verification.claimed import ClaimEvidence, Published

_NOTE = (
    "A recipient's mark informs the owner. It is not evidence against the recipient, "
    "because the owner can embed this mark, too."
)


@dataclass(frozen=True, eq=False)
class Trace:
    """The result of searching a model for one recipient's mark.

    Attributes:
        recipient: Name of the recipient; an empty string for the owner.
        layer: Name of the kernel with the smallest p-value, or `None` if no kernel
            can hold the message.
        detection: The `Detection` in that kernel, or `None`.
        log10_p: log10 of the p-value, corrected for all recipients and kernels.
        kernel_note: Steps from the stored arrays to what was tested, such as "change
            from the original". Empty if it is a kernel that is stored directly.
        unused: Reason why the model does not use the kernel; empty if it does.
    """

    recipient: str
    layer: str | None
    detection: Detection | None
    log10_p: float
    kernel_note: str = ""
    unused: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures as plain Python values."""
        names = ("recipient", "log10_p", "layer", "kernel_note")
        figures = self.detection.to_dict() if self.detection else {}
        return {name: getattr(self, name) for name in names} | figures

    def __str__(self) -> str:
        """The p-value and the bit errors, on one line."""
        if self.detection is None:
            return "no kernel can hold the message"
        errors = self.detection.bits - self.detection.matches
        note = f" ({self.kernel_note})" if self.kernel_note else ""
        text = (
            f"p-value {format_p(self.log10_p)}, {errors} of {self.detection.bits} bit "
            f"errors, in {self.layer}{note}"
        )
        return f"{text}; {self.unused}" if self.unused else text


@dataclass(frozen=True, repr=False)
class Identification(TextReport):
    """Report of `identify`: the recipients whose marks were found in a model.

    It prints as text, and as a table in a notebook.

    Attributes:
        source: Path or URL of the model file, or the name of the model in memory.
        owner: Owner that the key names.
        commitment: Commitment of the owner's key.
        own: The `Trace` of the owner's own mark.
        traces: The `Trace` of each recipient's mark, the smallest p-value first.
        tests: Number of pairs of a key and a kernel that are counted as tests. Every
            p-value is multiplied by it.
        alpha: Threshold of the corrected p-value below which a recipient is named.
        standing: The standing of the findings, see `Verification`.
        choices: Names of the free choices that the findings rest on.
        unused: The `Trace`s of recipients' marks that were found in weights that the
            model does not use. They name nobody.
        claim: The claim, and whether it counts; `None` if none was given.
        notes: Facts that a reader needs to judge the result.
    """

    source: str
    owner: str
    commitment: str
    own: Trace
    traces: Sequence[Trace]
    tests: int
    alpha: float
    standing: Standing = Standing.PRIVATE
    choices: frozenset[str] = frozenset({"recipient"})
    unused: Sequence[Trace] = ()
    claim: ClaimEvidence | None = None
    notes: Sequence[str] = (_NOTE,)

    @property
    def named(self) -> list[Trace]:
        """The traces of the identified recipients, the smallest p-value first."""
        return [trace for trace in self.traces if trace.log10_p < log10(self.alpha)]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values, which JSON can hold."""
        return {
            "named": [trace.to_dict() for trace in self.named],
            "standing": self.standing,
            "source": self.source,
            "owner": self.owner,
            "commitment": self.commitment,
            "recipients_tried": len(self.traces),
            "tests": self.tests,
            "alpha": self.alpha,
            "unused": [trace.to_dict() for trace in self.unused],
            "strongest_other": self._other.to_dict() if self._other else None,
            "own_mark": self.own.to_dict(),
            **({"claim": self.claim.to_dict()} if self.claim else {}),
            "notes": list(self.notes),
        }

    def meets(self, required: str | None) -> bool:
        """Returns whether a recipient was named, with a required standing.

        Args:
            required: A standing, as for `Verification.meets`, or `None` for any.
        """
        return any(
            meets(required, self.standing, trace.log10_p) for trace in self.named
        )

    @property
    def _other(self) -> Trace | None:
        """The trace with the smallest p-value among those that are not named."""
        others = self.traces[len(self.named) :]
        return others[0] if others else None

    def rows(self) -> list[tuple[str, str]]:
        """Returns the report as pairs of a name and a value."""
        names = ", ".join(trace.recipient for trace in self.named)
        if self.named:
            smallest = self.named[0].log10_p
            names += f" ({describe(self.standing, smallest, self.choices)})"
        elif self.unused:
            names = UNUSED_VERDICT.upper()
        rows = [
            ("recipients", names or "NONE FOUND"),
            ("model", self.source),
            ("owner", self.owner),
            ("commitment", self.commitment),
            *([("claim", str(self.claim))] if self.claim else []),
            ("tried", f"{len(self.traces):,} recipients, {self.tests:,} tests"),
        ]
        rows += [(trace.recipient, str(trace)) for trace in self.named]
        rows += [(trace.recipient, str(trace)) for trace in self.unused]
        if self._other:
            rows.append(("strongest other", f"p-value {format_p(self._other.log10_p)}"))
        rows.append(("own mark", str(self.own)))
        return [*rows, *(("note", note) for note in self.notes)]


def identify(
    model: ModelSource,
    key: WatermarkKey,
    recipients: Sequence[str],
    layer: str | None = None,
    alpha: float = MARKED,
    limits: Limits | None = None,
    sandbox: bool | Sandbox = False,
    progress: bool = False,
    slots: int | None = None,
    original: ModelSource | None = None,
    claim: Claim | str | os.PathLike[str] | None = None,
    published: Published | None = None,
    controls: Sequence[ModelSource] = (),
    tsa_certificates: Certificates | None = None,
) -> Identification:
    r"""Identifies the recipients whose marks are in a model.

    Every recipient's copy was marked with `key.for_recipient(name)`. Each of these
    keys has its own projection, so the scores of an innocent recipient are noise,
    whatever other marks the model carries. In the mean of c copies every mark is
    \(1/c\) as strong, and is found as long as \(\sqrt{T} m / c\) is far above 7, with
    T bits and the margin m. Other ways to combine the copies hardly make it weaker
    than that, unless they damage the network.

    With your `original`, the change from it is tested as well as the kernel itself.
    There the mark of each of many colluding recipients is found.

    Args:
        model: Model file, as its path or URL or as an open binary file, or a Keras
            model, as for `verify`.
        key: The owner's `WatermarkKey`, not a recipient's.
        recipients: Names of all recipients who may have leaked the model.
        layer: Name of the layer to search. `None` searches every kernel that can hold
            the message. Defaults to `None`.
        alpha: Threshold of the p-value, multiplied by the number of recipients and
            kernels tested, below which a recipient is named. Defaults to 1e-9.
        limits: `Limits` on the resources that reading the file and searching it can
            use. `None` uses the default limits. Defaults to `None`.
        sandbox: Whether to read the file in a child process, or the `Sandbox` to read
            it in. Defaults to `False`.
        progress: Whether to show a progress bar on a terminal or in a notebook.
            Defaults to `False`.
        slots: Number of slots in which each kernel is tested, as for `verify`.
            Defaults to `None`.
        original: Your own model that the copies were made from, in the same forms as
            `model`. Defaults to `None`.
        claim: The owner's `Claim`, or the path of its file. The findings are claimed if
            it counts and was made for exactly these recipients. Defaults to `None`.
        published: Day on which the model first appeared, as for `verify`.
        controls: Models that were public before the claim, as for `verify`.
        tsa_certificates: Root certificates of time-stamping authorities, as for
            `verify`.

    Returns:
        An `Identification`.

    Raises:
        ModelFileError: If the file cannot be read or is refused as unsafe.
        LayerNotFoundError: If the model has no layer of this name.
        ClaimError: If the file of the claim is not a claim, or `tsa_certificates`
            cannot be read.
        TypeError: If `model` or `key` has another type.
        ValueError: If there is no recipient, or one is listed twice; if the key is a
            recipient's; or if a named layer cannot hold the message.

    Example:

    ```python
    leak = keras_wm.identify("leaked.keras", key, ["customer-17", "customer-18"])
    print([trace.recipient for trace in leak.named])
    ```
    """
    check_key(key)
    check_alpha(alpha)
    slots = checked_slots(slots, [key])
    _check_recipients(recipients)
    keys = {"": key} | {name: key.for_recipient(name) for name in recipients}
    limits = limits or DEFAULT_LIMITS
    evidence = None
    choices = {"recipient"} | ({"original"} if original is not None else set())
    if claim is None:
        check_no_claim(published, controls, tsa_certificates)
    else:
        from keras_wm.verification.claimed import Control, examine_claim

        evidence = examine_claim(
            claim,
            key,
            published,
            tsa_certificates,
            {"original": original},
            limits,
            sandbox,
        ).with_recipients(key, recipients)
    source = None
    if original is not None:
        with open_model(original, limits, sandbox) as model_file:
            source = Original(model_file)
    search = partial(_search, keys=keys, slots=slots, limits=limits, source=source)
    with (
        open_model(model, limits, sandbox) as suspect,
        progress_bar("recipients", progress) as show,
    ):
        tests, traces, unused = search(suspect, layer, progress=show)
    if evidence is not None and not evidence.problem:
        tested = []
        for control in controls:
            with open_model(control, limits, sandbox) as model_file:
                _, (_, *named), set_apart = search(model_file, None)
            found = any(trace.log10_p < log10(alpha) for trace in named + set_apart)
            tested.append(Control(model_file.path, found))
        evidence = evidence.with_controls(tested)
    own, *others = traces
    is_claimed = evidence is not None and evidence.covers(choices)
    return Identification(
        source=suspect.path,
        owner=key.owner,
        commitment=key.commitment,
        own=own,
        traces=sorted(others, key=lambda trace: trace.log10_p),
        tests=tests,
        alpha=alpha,
        standing=Standing.CLAIMED if is_claimed else Standing.PRIVATE,
        choices=frozenset(choices),
        unused=[trace for trace in unused if trace.log10_p < log10(alpha)],
        claim=evidence,
        notes=(_NOTE, *usage_notes(suspect)),
    )


def _search(
    suspect: ModelFile,
    layer: str | None,
    keys: Mapping[str, WatermarkKey],
    slots: int,
    limits: Limits,
    source: Original | None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, list[Trace], list[Trace]]:
    """Searches a model for the owner's mark and those of recipients.

    `keys` has the owner's key first, and those of the recipients by their names.

    Returns:
        The number of tests that are counted; the trace of each key; and the traces of
        recipients' marks in weights that the model does not use.
    """
    own, *_ = members = list(keys.values())
    kernels = kernels_to_search(suspect, layer, own)
    everything = list(suspect.kernels)
    if source is not None:
        kernels += source.changes(kernels)
        everything += source.changes(everything)
    results = search_slots(kernels, members, slots, limits, progress, everything)
    tests = sum(result.counted for result in results)
    by_name = list(zip(keys, results, strict=True))
    traces = [_trace(name, result, tests) for name, result in by_name]
    unused = [
        _trace(name, result.unused, tests)
        for name, result in by_name[1:]
        if result.unused is not None
    ]
    return tests, traces, unused


def _trace(name: str, result: SearchResult, tests: int) -> Trace:
    log10_p = corrected(result.log10_p, tests)
    return Trace(
        name,
        result.layer,
        result.detection,
        log10_p,
        result.kernel_note,
        result.unused_note,
    )


def _check_recipients(recipients: Sequence[str]) -> None:
    """Raises ValueError unless there is a recipient, and each is listed once."""
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
