"""Searches one file after another for many keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from keras_wm.errors import ModelFileError
from keras_wm.files import Limits, Sandbox, select
from keras_wm.scanning.candidates import Candidate
from keras_wm.scanning.scan_report import FileResult, KeyResult
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.search import search_slots
from keras_wm.verification.search_result import SearchResult
from keras_wm.verification.standing import Standing, free_choices

# Name of the format of a scan's record, and its version.
_RECORD_FORMAT = {"keras_wm_scan": 2}


@dataclass(frozen=True)
class ScanSettings:
    """Settings of a scan that its results depend on.

    Attributes:
        keys: Keys to look for.
        layer: Name of the layer to search, or `None` to search all kernels.
        limits: Limits on the resources that reading and searching a file can use.
        slots: Number of slots of each key.
    """

    keys: Sequence[WatermarkKey]
    layer: str | None
    limits: Limits
    slots: int = 1

    def header(self) -> dict[str, Any]:
        """Returns the first line of the scan's record. It contains no secret."""
        names = ("owner", "commitment", "slot")
        keys = [{name: getattr(key, name) for name in names} for key in self.keys]
        return _RECORD_FORMAT | {
            "keys": keys,
            "layer": self.layer,
            "limits": asdict(self.limits),
            "slots": self.slots,
        }


class Examiner:
    """Searches files one by one, and reads them in a sandbox.

    Args:
        settings: Settings of the scan.
    """

    def __init__(self, settings: ScanSettings) -> None:
        self._settings = settings
        self._sandbox = Sandbox(settings.limits)

    def examine(self, candidate: Candidate) -> FileResult:
        """Searches a file. If that fails, the result contains the error."""
        stamp = candidate.stamp()
        keys, layer = self._settings.keys, self._settings.layer
        slots = self._settings.slots
        try:
            if candidate.problem:
                raise ModelFileError(f"{candidate.path}: {candidate.problem}")
            with self._sandbox.open_model_file(candidate.path) as model_file:
                everything = model_file.kernels
                kernels = select(everything, layer, candidate.path)
                results = search_slots(
                    kernels, keys, slots, self._settings.limits, among=everything
                )
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
            kernels=len(everything),
            tests=sum(result.counted for result in results),
            keys=tuple(
                key_result
                for key, result in zip(keys, results, strict=True)
                for key_result in _key_results(key, result, model_file.has_config)
            ),
            named=candidate.named,
        )

    def stop(self) -> None:
        """Ends the sandbox."""
        self._sandbox.stop()


def _key_results(
    key: WatermarkKey, result: SearchResult, has_config: bool
) -> list[KeyResult]:
    """Returns the results in used kernels and, if there are any, in unused ones."""
    unused = [] if result.unused is None else [result.unused]
    return [_key_result(key, part, has_config) for part in (result, *unused)]


def _key_result(key: WatermarkKey, result: SearchResult, has_config: bool) -> KeyResult:
    choices = free_choices(key)
    detection = result.detection
    notes = [result.kernel_note, detection.problem if detection else ""]
    notes += [] if has_config else ["file without a config"]
    return KeyResult(
        owner=key.owner,
        commitment=key.commitment,
        certified=key.certified,
        layer=result.layer,
        slot=result.slot,
        log10_p=detection.log10_p if detection else 0.0,
        ber=detection.ber if detection else None,
        matches=detection.matches if detection else 0,
        bits=key.bits,
        tried=result.tried,
        note="; ".join(note for note in notes if note),
        standing=Standing.PRIVATE if choices else Standing.INDEPENDENT,
        choices=tuple(sorted(choices)),
        unused=result.unused_note,
    )
