"""Results of a scan: of each file, and the report on all files."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from math import log10
from typing import Any

from keras_wm.scheme.detection import corrected, format_p
from keras_wm.verification.report import TextReport
from keras_wm.verification.standing import (
    PROVEN,
    UNUSED_VERDICT,
    Standing,
    explain,
    meets,
    rank,
)


@dataclass(frozen=True, slots=True)
class KeyResult:
    """The result of searching one file for one key.

    Attributes:
        owner: Owner that the key names.
        commitment: The key's commitment.
        certified: Whether the key is derived from a secret.
        layer: Name of the kernel with the smallest p-value, or `None` if no kernel
            can hold the message.
        log10_p: log10 of the p-value in that kernel, of one test: not corrected.
        ber: Bit error rate in that kernel; `None` if no kernel can hold the message.
        matches: Number of bits that are read correctly.
        bits: Number of bits T of the message.
        tried: Number of tests, one for each kernel and slot.
        note: Facts that a reader needs to judge the kernel; often empty.
        slot: Number of the slot that has the smallest p-value.
        standing: The standing of a finding of this key, see `Verification`.
        choices: Names of the free choices that make it private.
        unused: Reason why the model does not use the kernel, or an empty string. Such
            a result is not evidence, and is reported apart.
    """

    owner: str
    commitment: str
    certified: bool
    layer: str | None
    log10_p: float
    ber: float | None
    matches: int
    bits: int
    tried: int
    note: str = ""
    slot: int = 0
    standing: Standing = Standing.INDEPENDENT
    choices: tuple[str, ...] = ()
    unused: str = ""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> KeyResult:
        """Returns the result from the values in a record."""
        standing = Standing(values["standing"])
        choices = tuple(values["choices"])
        return cls(**{**values, "standing": standing, "choices": choices})


@dataclass(frozen=True, slots=True)
class FileResult:
    """The result of scanning one file.

    Attributes:
        file: Path or URL of the file.
        stamp: Fingerprint (size and modification time) of a local file. If it
            changes, a resumed scan reads the file again. Empty if not available.
        format: Format of the file. Empty if it could not be read.
        kernels: Number of its kernels.
        tests: Number of pairs of a kernel and a key that are counted as tests.
        keys: A `KeyResult` for each key, and a second one if the file has kernels that
            its model does not use. Empty if the file could not be read.
        error: Kind of the error if the file could not be read: `"ModelFileError"`,
            `"UnsafeFileError"`, `"UnsupportedFileError"` or `"LayerNotFoundError"`.
            Otherwise empty.
        message: Message of the error.
        named: Whether the user named this very file, and not a folder or a pattern
            that contains it. Only then does it count as unread if it is not a model.
    """

    file: str
    stamp: str = ""
    format: str = ""
    kernels: int = 0
    tests: int = 0
    keys: tuple[KeyResult, ...] = ()
    error: str = ""
    message: str = ""
    named: bool = False

    @property
    def is_other(self) -> bool:
        """True if the file is not a model, and was only found next to models."""
        return self.error == "UnsupportedFileError" and not self.named

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as plain Python values, which JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FileResult:
        """Returns the result from the values that `to_dict` returned."""
        keys = tuple(KeyResult.from_dict(key) for key in values["keys"])
        return cls(**{**values, "keys": keys})


@dataclass(frozen=True, slots=True)
class Match:
    """A mark that was found in a file.

    Attributes:
        file: Path or URL of the file.
        key: The `KeyResult` of the key.
        log10_p: log10 of the p-value, corrected for all tests of the scan.
    """

    file: str
    key: KeyResult
    log10_p: float

    @property
    def verdict(self) -> str:
        """`"proven"` (corrected p below 2**-64), `"marked"` or `"unused"`."""
        if self.key.unused:
            return "unused"
        return "proven" if self.log10_p < log10(PROVEN) else "marked"

    @property
    def explanation(self) -> str:
        """The reason why the finding is limited, as a sentence; often empty."""
        if self.key.unused:
            return f"unused: {UNUSED_VERDICT}."
        reason = explain(self.key.standing, self.log10_p, self.key.choices)
        return f"{self.verdict}, {self.key.standing}: {reason}." if reason else ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the match as plain Python values, which JSON can hold."""
        return {
            "file": self.file,
            "verdict": self.verdict,
            "standing": self.key.standing,
            **asdict(self.key),
            "log10_p": self.log10_p,
            "log10_p_uncorrected": self.key.log10_p,
        }


@dataclass(repr=False)
class ScanReport(TextReport):
    """Report of `scan`: the marks that were found, and what could not be read.

    It prints as text, and as a table in a notebook. It keeps of each file only what
    affects a verdict, so that a report on a million files fits into memory. All
    results are in the record of the scan.

    Attributes:
        keys: Number of keys that were looked for.
        alpha: Threshold of the corrected p-value below which a file is marked.
        files: Number of model files, whether they could be read or not.
        kernels: Number of their kernels.
        tests: Number of pairs of a kernel and a key that are counted as tests: those
            that were tested, and with a named layer those of the other layers. Each
            p-value is multiplied by it.
        formats: Number of files of each format.
        unread: The `FileResult`s of the files that could not be read.
        others: Number of files that were found next to models and are not models.
    """

    keys: int
    alpha: float
    files: int = 0
    kernels: int = 0
    tests: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    unread: list[FileResult] = field(default_factory=list)
    others: int = 0
    _candidates: list[tuple[str, KeyResult]] = field(default_factory=list)

    def add(self, result: FileResult) -> None:
        """Adds the result of a file."""
        if result.is_other:
            self.others += 1
            return
        self.files += 1
        if result.error:
            self.unread.append(result)
            return
        self.kernels += result.kernels
        self.tests += result.tests
        self.formats[result.format] += 1
        # The correction only increases a p-value, so the others are never a match.
        for key in result.keys:
            if key.log10_p < log10(self.alpha):
                self._candidates.append((result.file, key))

    @property
    def found(self) -> list[Match]:
        """The marks that were found, after correction.

        They are sorted by file, then by standing, then by p-value.
        """
        return [match for match in self._matches() if not match.key.unused]

    @property
    def unused(self) -> list[Match]:
        """The marks that were found in weights that the file's model does not use."""
        return [match for match in self._matches() if match.key.unused]

    def _matches(self) -> list[Match]:
        matches = [
            Match(file, key, corrected(key.log10_p, self.tests))
            for file, key in self._candidates
        ]
        return sorted(
            (match for match in matches if match.log10_p < log10(self.alpha)),
            key=lambda match: (
                match.file,
                rank(match.key.standing, match.log10_p, self.alpha),
            ),
        )

    def meets(self, required: str | None) -> bool:
        """Returns whether a mark was found, with a required standing.

        Args:
            required: A standing, as for `Verification.meets`, or `None` for any.
        """
        return any(
            meets(required, match.key.standing, match.log10_p) for match in self.found
        )

    @property
    def correction(self) -> str:
        """The factor of the p-values, and its reason, in one sentence."""
        if not self.tests:
            return "No kernel was found that can hold the message of a key."
        files_read = self.files - len(self.unread)
        return (
            f"Each p-value is multiplied by {self.tests:,}, the number of tests: "
            f"{_count(self.keys, 'key')} in {_count(self.kernels, 'kernel')} of "
            f"{_count(files_read, 'file')}, where a kernel can hold the key's message."
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values, which JSON can hold."""
        return {
            "found": [match.to_dict() for match in self.found],
            "unused": [match.to_dict() for match in self.unused],
            "files": self.files,
            "files_unread": len(self.unread),
            "files_other": self.others,
            "formats": dict(sorted(self.formats.items())),
            "keys": self.keys,
            "kernels": self.kernels,
            "tests": self.tests,
            "alpha": self.alpha,
            "correction": self.correction,
            "unread": [
                {"file": result.file, "error": result.error, "message": result.message}
                for result in sorted(self.unread, key=lambda result: result.file)
            ],
        }

    def rows(self) -> list[tuple[str, str]]:
        """Returns the report as pairs of a name and a value."""
        matches = [*self.found, *self.unused]
        explanations = dict.fromkeys(match.explanation for match in matches)
        marks = [
            f"{match.file}: {match.key.owner}, {match.verdict.upper()}, "
            f"{match.key.unused or match.key.standing}, "
            f"p {format_p(match.log10_p)}, in {match.key.layer}"
            for match in matches
        ]
        counts = f"{_count(self.files - len(self.unread), 'model file')} read"
        if self.unread:
            counts += f", {len(self.unread):,} could not be"
        if self.others:
            counts += f", {_count(self.others, 'other file')}"
        return [
            *(("found", mark) for mark in marks or ["No mark was found."]),
            *(("note", text) for text in explanations if text),
            ("files", f"{counts}."),
            ("p-values", self.correction),
        ]


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
