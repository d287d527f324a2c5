"""What a scan found."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from keras_wm.scheme.detection import corrected, format_p
from keras_wm.utils.text import printable
from keras_wm.verification.verdict import PROVEN


@dataclass(frozen=True, slots=True)
class KeyResult:
    """What one file says about one key.

    Attributes:
        owner: Whom the key names.
        commitment: The key's commitment.
        certified: Whether the key is derived from a secret.
        layer: The kernel that carries the message best, or `None` where no kernel
            can hold it.
        log10_p: log10 of the p-value in that kernel, of one test: not corrected.
        ber: The bit error rate in that kernel.
        matches: How many bits are read right.
        bits: T, the length of the message.
        tried: How many kernels were tried.
        note: What a reader has to know of the kernel.
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


@dataclass(frozen=True, slots=True)
class FileResult:
    """What a scan found in one file.

    Attributes:
        file: The path or URL.
        stamp: What changes when the file does; empty where that cannot be told.
        format: What kind of file it is; empty if it could not be read.
        kernels: How many kernels it has.
        tests: How many pairs of a kernel and a key were tried.
        keys: A `KeyResult` for each key whose message a kernel can hold.
        error: The kind of error if it could not be read, or an empty string:
            `"ModelFileError"`, `"UnsafeFileError"`, `"UnsupportedFileError"`,
            `"LayerNotFoundError"`.
        message: The error's message.
        named: Whether it is a failure that the file is no model: the user named it,
            not a folder that it is in.
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
        """Whether it is a file beside the models, of no interest to a scan."""
        return self.error == "UnsupportedFileError" and not self.named

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain Python values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FileResult:
        """The result that `to_dict` gave."""
        keys = tuple(KeyResult(**one) for one in values["keys"])
        return cls(**{**values, "keys": keys})


@dataclass(frozen=True, slots=True)
class Match:
    """A key whose mark is in a file."""

    file: str
    key: KeyResult
    log10_p: float

    @property
    def verdict(self) -> str:
        """`"proven"` (p below 2**-64) or `"marked"`."""
        return "proven" if self.log10_p < math.log10(PROVEN) else "marked"

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain Python values that JSON can hold."""
        return {
            "file": self.file,
            "verdict": self.verdict,
            **asdict(self.key),
            "log10_p": self.log10_p,
            "log10_p_uncorrected": self.key.log10_p,
        }


@dataclass
class ScanReport:
    """What a scan found in all files.

    Only what bears on a verdict is kept of each file, so that a report on a million
    of them fits in memory; the record of the scan has the rest.

    Attributes:
        keys: How many keys were looked for.
        alpha: Marked means a corrected p-value below this.
        files: How many files were read or could not be.
        kernels: How many kernels they have.
        tests: How many pairs of a kernel and a key were tried. Each p-value is
            multiplied by it.
        formats: How many files there were of each format.
        unread: The files that could not be read, each with its error.
        others: How many files beside the models are no models.
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
        """Takes the result of one more file."""
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
        # A p-value only grows by correction.
        for key in result.keys:
            if key.log10_p < math.log10(self.alpha):
                self._candidates.append((result.file, key))

    @property
    def found(self) -> list[Match]:
        """The marks that were found, after correction, in the order of the files."""
        matches = [
            Match(file, key, corrected(key.log10_p, self.tests))
            for file, key in self._candidates
        ]
        limit = math.log10(self.alpha)
        marked = [match for match in matches if match.log10_p < limit]
        return sorted(marked, key=lambda match: (match.file, match.log10_p))

    @property
    def correction(self) -> str:
        """By how much p-values were multiplied, and why."""
        if not self.tests:
            return "No kernel was found that can hold the message of a key."
        return (
            f"Each p-value is multiplied by {self.tests:,}, the number of tests: "
            f"{self.keys} {_plural('key', self.keys)} in {self.kernels:,} "
            f"{_plural('kernel', self.kernels)} of {self.files - len(self.unread):,} "
            f"{_plural('file', self.files - len(self.unread))}, "
            "where a kernel can hold the key's message."
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain Python values that JSON can hold."""
        return {
            "found": [match.to_dict() for match in self.found],
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
                {"file": one.file, "error": one.error, "message": one.message}
                for one in sorted(self.unread, key=lambda one: one.file)
            ],
        }

    def __repr__(self) -> str:
        lines = [
            f"{printable(match.file)}: {match.verdict.upper()} {match.key.owner}, "
            f"p {format_p(match.log10_p)}, in {match.key.layer}"
            for match in self.found
        ]
        lines = lines or ["No mark was found."]
        read = self.files - len(self.unread)
        counts = f"{read:,} {_plural('model file', read)} read"
        if self.unread:
            counts += f", {len(self.unread):,} could not be"
        if self.others:
            counts += f", {self.others:,} other {_plural('file', self.others)}"
        return "\n".join([*lines, f"{counts}.", self.correction])


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
