"""One file, searched for many keys."""

from __future__ import annotations

from collections.abc import Sequence

from keras_wm.errors import ModelFileError
from keras_wm.files import Limits, Sandbox, select
from keras_wm.scanning.candidates import Candidate
from keras_wm.scanning.scan_report import FileResult, KeyResult
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.search import Finding, search


class Examiner:
    """Searches one file after the other, in a sandbox.

    Args:
        keys: What to look for.
        limits: What a file may ask of this machine.
        layer: The layer to look in, or `None` for all kernels.
    """

    def __init__(
        self, keys: Sequence[WatermarkKey], limits: Limits, layer: str | None
    ) -> None:
        self._keys = keys
        self._limits = limits
        self._layer = layer
        self._sandbox = Sandbox(limits)

    def examine(self, candidate: Candidate) -> FileResult:
        """Searches one file; what is wrong with it is part of the result."""
        stamp = candidate.stamp()
        try:
            if candidate.problem:
                raise ModelFileError(f"{candidate.path}: {candidate.problem}")
            with self._sandbox.open_model_file(candidate.path) as model_file:
                kernels = model_file.kernels
                if self._layer is not None:
                    kernels = select(kernels, self._layer, candidate.path)
                findings = search(kernels, self._keys, self._limits)
        except ModelFileError as error:
            return FileResult(
                candidate.path,
                stamp,
                error=type(error).__name__,
                message=str(error).removeprefix(f"{candidate.path}: "),
                named=candidate.named,
            )
        return FileResult(
            candidate.path,
            stamp,
            model_file.format,
            kernels=len(kernels),
            tests=sum(finding.tried for finding in findings),
            keys=tuple(map(_key_result, self._keys, findings)),
            named=candidate.named,
        )

    def stop(self) -> None:
        """Ends the sandbox."""
        self._sandbox.stop()


def _key_result(key: WatermarkKey, finding: Finding) -> KeyResult:
    kernel, detection = finding.kernel, finding.detection
    notes = [kernel.note] if kernel and kernel.note else []
    if detection and detection.problem:
        notes.append(detection.problem)
    return KeyResult(
        owner=key.owner,
        commitment=key.commitment,
        certified=key.certified,
        layer=kernel.name if kernel else None,
        log10_p=detection.log10_p if detection else 0.0,
        ber=detection.ber if detection else None,
        matches=detection.matches if detection else 0,
        bits=key.bits,
        tried=finding.tried,
        note="; ".join(notes),
    )
