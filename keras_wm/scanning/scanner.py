"""scan: searches many model files for many keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from keras_wm.files import DEFAULT_LIMITS, Limits
from keras_wm.scanning.candidates import Candidate, Source, find_candidates
from keras_wm.scanning.examiner import ScanSettings
from keras_wm.scanning.scan_report import FileResult, ScanReport
from keras_wm.scheme.key import WatermarkKey, check_key
from keras_wm.utils.cores import usable_cores
from keras_wm.utils.progress import progress_bar
from keras_wm.utils.records import RecordFile
from keras_wm.verification.search import checked_slots
from keras_wm.verification.standing import MARKED
from keras_wm.verification.verification import check_alpha

# Searches files, and yields the result of each one when it is finished.
Examine = Callable[[Sequence[Candidate]], Iterator[FileResult]]


def scan(
    sources: Source | Iterable[Source],
    keys: WatermarkKey | Iterable[WatermarkKey],
    *,
    layer: str | None = None,
    slots: int = 1,
    alpha: float = MARKED,
    limits: Limits | None = None,
    workers: int | None = None,
    client: Any = None,
    record: str | os.PathLike[str] | None = None,
    on_result: Callable[[FileResult], None] | None = None,
    progress: bool = False,
) -> ScanReport:
    """Searches many model files for the marks of many keys.

    Each file is read in a sandbox. A file that is damaged or not supported, or that
    crashes, hangs or bloats its reader, is listed in the report, and the scan
    continues. Every p-value is corrected for all tests of the scan.

    Args:
        sources: Paths, URLs, or patterns such as `"models/**/*.keras"`. A folder
            stands for all files in it.
        keys: The `WatermarkKey`, or several, to look for.
        layer: Name of the layer to search. `None` searches every kernel that can hold
            a message. Defaults to `None`.
        slots: Number of slots in which each kernel is tested, see
            `WatermarkKey.in_slot`. Each counts as a test. Defaults to 1.
        alpha: Threshold of the corrected p-value below which a file counts as marked.
            Defaults to 1e-9.
        limits: `Limits` on the resources that reading and searching each file can
            use. `None` uses the default limits. Defaults to `None`.
        workers: Number of processes; one per core if `None`. Defaults to `None`.
        client: A `dask.distributed.Client`, to scan on its cluster instead. The keys
            are sent to its workers, which must be able to reach the files. Needs the
            extra `dask`. Defaults to `None`.
        record: Path of a file to which the result of each file is appended as a JSON
            line. If it exists, an interrupted scan resumes: only files that are new
            or changed are read. Defaults to `None`.
        on_result: Called with the `FileResult` of each file when it is finished.
            Defaults to `None`.
        progress: Whether to show a progress bar on a terminal or in a notebook.
            Defaults to `False`.

    Returns:
        A `ScanReport`.

    Raises:
        FileNotFoundError: If the folder of `record` does not exist.
        TypeError: If a key has another type.
        ValueError: If there is no key, if `record` holds the results of another scan,
            or if `alpha` or `workers` is out of range.

    Example:

    ```python
    report = keras_wm.scan("downloads/", [key_2024, key_2025])
    for match in report.found:
        print(match.file, match.key.owner, match.verdict)
    ```
    """
    checked_slots(slots)
    settings = ScanSettings(
        _distinct_keys(keys), layer, limits or DEFAULT_LIMITS, slots
    )
    check_alpha(alpha)
    if workers is not None and workers < 1:
        raise ValueError(f"Expected at least one worker. Received: workers={workers!r}")
    records, known = None, {}
    if record is not None:
        records = RecordFile(record, FileResult.from_dict, settings.header())
        known = {result.file: result for result in records.results}
    candidates = find_candidates(sources)
    results = _results(candidates, known, _examiner_of(settings, workers, client))
    report = ScanReport(len(settings.keys), alpha)
    with progress_bar("scanning", progress) as show:
        for count, (result, is_new) in enumerate(results, 1):
            report.add(result)
            if records is not None and is_new:
                records.append(result.to_dict())
            if on_result is not None:
                on_result(result)
            show(count, max(count, len(candidates)))
    return report


def _examiner_of(settings: ScanSettings, workers: int | None, client: Any) -> Examine:
    # Imported late: a scan needs only one of them.
    if client is not None:
        from keras_wm.scanning.dask_workers import examine_on_cluster

        return partial(examine_on_cluster, settings, client)
    from keras_wm.scanning.local_workers import examine_here

    return partial(examine_here, settings, workers or usable_cores())


def _results(
    candidates: Sequence[Candidate], known: dict[str, FileResult], examine: Examine
) -> Iterator[tuple[FileResult, bool]]:
    """Yields the result of each file, and whether it is new.

    `known` holds the results of an earlier run, by the file.
    """
    paths = {candidate.path for candidate in candidates}
    while candidates:
        parts = {candidate.path: candidate.parts for candidate in candidates}
        unread_parts: list[Candidate] = []
        for result, is_new in _known_or_examined(candidates, known, examine):
            yield result, is_new
            if result.error:
                # An index that cannot be read must not hide the files that it lists.
                unread = [path for path in parts[result.file] if path not in paths]
                unread_parts += [Candidate(path, named=False) for path in unread]
                paths.update(unread)
        candidates = unread_parts


def _known_or_examined(
    candidates: Sequence[Candidate], known: dict[str, FileResult], examine: Examine
) -> Iterator[tuple[FileResult, bool]]:
    new = []
    for candidate in candidates:
        result = known.get(candidate.path)
        if result is not None and result.stamp == candidate.stamp():
            yield result, False
        else:
            new.append(candidate)
    for result in examine(new):
        yield result, True


def _distinct_keys(keys: WatermarkKey | Iterable[WatermarkKey]) -> list[WatermarkKey]:
    """Returns the keys without duplicates, which would be corrected for twice.

    Raises:
        TypeError: If a key has another type.
        ValueError: If there is no key.
    """
    keys = [keys] if isinstance(keys, WatermarkKey) else list(keys)
    for key in keys:
        check_key(key)
    if not keys:
        raise ValueError("Expected at least one key to look for. Received: none.")
    return list(dict.fromkeys(keys))
