"""scan(): many model files, many keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from keras_wm.files import DEFAULT_LIMITS, Limits
from keras_wm.scanning.candidates import Candidate, Source, find_candidates
from keras_wm.scanning.scan_report import FileResult, ScanReport
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.cores import usable_cores
from keras_wm.utils.progress import progress_bar
from keras_wm.utils.records import RecordFile
from keras_wm.verification.verdict import MARKED
from keras_wm.verification.verification import check_alpha, check_key

# Name of the format of a record, and its version.
_RECORD_FORMAT = {"keras_wm_scan": 1}

Examine = Callable[[Sequence[Candidate]], Iterator[FileResult]]


def scan(
    sources: Source | Iterable[Source],
    keys: WatermarkKey | Iterable[WatermarkKey],
    *,
    layer: str | None = None,
    alpha: float = MARKED,
    limits: Limits = DEFAULT_LIMITS,
    workers: int | None = None,
    client: Any = None,
    record: str | os.PathLike[str] | None = None,
    on_result: Callable[[FileResult], None] | None = None,
    progress: bool = False,
) -> ScanReport:
    """Looks for the marks of many keys in many model files.

    Each file is read in a sandbox: one that crashes, hangs or bloats its reader, that
    is damaged or of a kind that is not read, is listed and stops nothing. Every
    p-value is corrected for all tests of the scan.

    Args:
        sources: Paths, URLs or patterns such as `"models/**/*.keras"`; folders
            stand for all files in them.
        keys: The keys to look for.
        layer: The layer to look in. `None`, the default, tries every kernel that
            can hold a message.
        alpha: Marked means a corrected p-value below this. Defaults to 1e-9.
        limits: What a file may ask of the machine that reads it.
        workers: How many processes to use, by default one a core.
        client: A `dask.distributed.Client`, to scan on its cluster instead. The keys
            are sent to its workers, which have to reach the files. Needs the extra
            `dask`.
        record: A file of JSON lines for the result of each file. If it exists, the
            scan goes on where that record stops; files that changed are read again.
        on_result: Called with the result of each file as it comes.
        progress: Whether to show a bar on a terminal or in a notebook.

    Returns:
        A `ScanReport`.

    Raises:
        ValueError: If `record` is that of another scan, or a setting is wrong.
        TypeError: If `keys` holds something else than keys.

    Example:

    ```python
    report = keras_wm.scan("downloads/", [key_2024, key_2025])
    for match in report.found:
        print(match.file, match.key.owner, match.verdict)
    ```
    """
    keys = _checked_keys(keys)
    check_alpha(alpha)
    if workers is not None and workers < 1:
        raise ValueError(f"Expected at least one worker. Received: workers={workers!r}")
    report = ScanReport(len(keys), alpha)
    kept, known = None, {}
    if record is not None:
        kept = RecordFile(record, FileResult.from_dict, header(keys, layer, limits))
        known = {result.file: result for result in kept.results}
    candidates = find_candidates(sources)
    examine = _examiner(keys, layer, limits, workers, client)
    results = _results(candidates, known, examine)
    with progress_bar("scanning", progress) as show:
        for count, (result, is_new) in enumerate(results, 1):
            report.add(result)
            if kept is not None and is_new:
                kept.append(result.to_dict())
            if on_result is not None:
                on_result(result)
            show(count, max(count, len(candidates)))
    return report


def header(
    keys: Sequence[WatermarkKey], layer: str | None, limits: Limits
) -> dict[str, Any]:
    """What a scan is, as the first line of its record."""
    return {
        **_RECORD_FORMAT,
        "keys": [{"owner": key.owner, "commitment": key.commitment} for key in keys],
        "layer": layer,
        "limits": asdict(limits),
    }


def _examiner(
    keys: Sequence[WatermarkKey],
    layer: str | None,
    limits: Limits,
    workers: int | None,
    client: Any,
) -> Examine:
    """What examines files: processes of this machine, or a cluster."""
    if client is not None:
        from keras_wm.scanning.dask_workers import examine_on_cluster

        return lambda files: examine_on_cluster(files, keys, limits, layer, client)
    from keras_wm.scanning.local_workers import examine_locally

    most = workers or usable_cores()
    return lambda files: examine_locally(
        files, keys, limits, layer, min(most, len(files))
    )


def _results(
    candidates: Sequence[Candidate], known: dict[str, FileResult], examine: Examine
) -> Iterator[tuple[FileResult, bool]]:
    """All results, each with whether it is new."""
    paths = {candidate.path for candidate in candidates}
    while candidates:
        parts = {candidate.path: candidate.parts for candidate in candidates}
        left: list[Candidate] = []
        for result, is_new in _known_or_examined(candidates, known, examine):
            yield result, is_new
            if result.error:
                # An index that cannot be read must not hide what it lists.
                unread = [path for path in parts[result.file] if path not in paths]
                left += [Candidate(path, named=False) for path in unread]
                paths.update(unread)
        candidates = left


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


def _checked_keys(
    keys: WatermarkKey | Iterable[WatermarkKey],
) -> list[WatermarkKey]:
    if isinstance(keys, WatermarkKey):
        keys = [keys]
    # The same key twice would be corrected for twice.
    distinct = {}
    for key in keys:
        check_key(key)
        distinct[key.commitment] = key
    if not distinct:
        raise ValueError("Expected at least one key to look for. Received: none.")
    return list(distinct.values())
