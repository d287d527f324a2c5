"""Saving a marked model without any trace of its key or of this package."""

from __future__ import annotations

import os
import sys
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from keras_wm.embedding.marked_layers import (
    check_is_model,
    find_marked_layers,
    replace_penalties,
    set_attribute,
    sublayers,
)
from keras_wm.embedding.regularizer import WatermarkRegularizer
from keras_wm.files import Limits, ModelSource
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.arguments import check_choice
from keras_wm.utils.atomic import atomic_write, check_folder
from keras_wm.verification.standing import MARKED
from keras_wm.verification.verification import verify

if TYPE_CHECKING:
    from keras_wm.claims.claim import Claim
    from keras_wm.files.keras_model import KerasModel
    from keras_wm.verification.result import Verification

# The owner's model is trusted, however large it is.
NO_LIMITS = Limits(search_entries=sys.maxsize)
# Bytes that are searched for traces at once.
_BLOCK = 2**24


def publish(
    model: KerasModel,
    path: str | os.PathLike[str],
    include_optimizer: bool = False,
    overwrite: bool = True,
    claim: str | os.PathLike[str] | None = None,
    *,
    missing: Literal["refuse", "warn"] = "refuse",
    key: WatermarkKey | None = None,
    checkpoint: ModelSource | None = None,
    recipients: Sequence[str] = (),
    predecessor: Claim | str | None = None,
) -> Path:
    """Saves a model without any trace of keras_wm.

    The file contains the architecture, the exact weights (the mark is in them) and the
    host network's own regularizers. Keras loads it without keras_wm. It contains
    neither the key nor its commitment nor the name of a class of keras_wm. It is
    searched for the latter two before it is moved to its path.

    The marks are verified in the written file as `keras_wm.verify` does it. Keras
    does not save every layer: one that a model holds in a place that Keras does not
    search is missing in the file, and with it the mark.

    The model in memory is left unchanged, and its marks are still trained afterwards.
    If writing fails, an existing file is left unchanged too.

    Args:
        model: A Keras model, marked or not.
        path: Output path, ending in `.keras`, `.h5` or `.weights.h5`.
        include_optimizer: Whether to save the training configuration and the
            optimizer's state too. That state contains gradients of the penalty.
            Defaults to `False`.
        overwrite: Whether to replace an existing file. Defaults to `True`, as in
            `model.save`.
        claim: Output path of a `keras_wm.Claim` for the model, which names its marked
            layers and their slots. Keep it, and have its digest dated before anybody
            sees the model. It is never overwritten. `None` writes no claim. Defaults to
            `None`.
        missing: The reaction to a mark that the model in memory carries and the file
            does not: `"refuse"` raises an error and writes nothing, `"warn"` warns and
            writes the file. Defaults to `"refuse"`.
        key: The key to claim, if the model carries the marks of several keys or was
            loaded without its key. Only for a claim.
        checkpoint: The network as it was before it was marked: a model file, as for
            `verify`. Only for a claim.
        recipients: Names of all recipients whose copies are marked with keys from
            `key.for_recipient`. Only for a claim.
        predecessor: The claim for an earlier version of the model, or its digest. Only
            for a claim.

    Returns:
        The path.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If the path has another suffix, if the file would still mention the
            mark, or if a mark is missing in it. Nothing is written then.
        ClaimError: If the model does not carry the mark of one key. Nothing is written
            then.
        FileExistsError: If the file exists and `overwrite` is `False`, or if the claim
            exists.

    Example:

    ```python
    model.fit(x, y, epochs=20, callbacks=[keras_wm.BitErrorRate()])
    keras_wm.publish(model, "public.keras", claim="public.claim")
    keras_wm.verify("public.keras", key)
    ```
    """
    check_is_model(model)
    check_choice("missing", missing, ("refuse", "warn"))
    target = Path(path)
    if target.suffix not in (".keras", ".h5"):
        raise ValueError(
            "Expected a path ending in '.keras', '.h5' or '.weights.h5'. "
            f"Received: {str(target)!r}"
        )
    marks = [marked.regularizer for marked in find_marked_layers(model)]
    names = {WatermarkRegularizer.__name__, *(mark.commitment for mark in marks)}
    facts: dict[str, Any] = {
        "key": key,
        "checkpoint": checkpoint,
        "recipients": recipients,
        "predecessor": predecessor,
    }
    _check_claim(claim, facts)
    with ExitStack() as undo:
        with atomic_write(target, overwrite) as temporary:
            _save_without_marks(model, temporary, include_optimizer)
            _check_for_traces(temporary, target, sorted(names))
            _check_marks(model, temporary, target, missing)
            if claim is not None:
                # Imported late, because most models are published without a claim.
                from keras_wm.embedding.claiming import claim_for

                written = claim_for(model, temporary, **facts).save(claim)
                undo.callback(written.unlink)
        # The model is at its path now, so the claim stays.
        undo.pop_all()
    return target


def _check_claim(claim: str | os.PathLike[str] | None, facts: dict[str, Any]) -> None:
    """Raises an error if the claim cannot be written, before the model is saved."""
    given = [name for name, value in facts.items() if value]
    if claim is None and given:
        raise ValueError(
            f"Expected claim=PATH with {given[0]}=, which only a claim contains. "
            "Received: claim=None"
        )
    if claim is not None:
        check_folder(Path(claim))
        if Path(claim).exists():
            raise FileExistsError(
                f"{os.fspath(claim)!r} exists already, and a claim is never "
                "overwritten. Choose another name."
            )


def _save_without_marks(model: Any, path: Path, include_optimizer: bool) -> None:
    """Saves a model, whose marks and, if required, optimizer are removed meanwhile."""
    with replace_penalties(model, lambda mark: mark.regularizer) as undo:
        # Keras ignores `include_optimizer=False` for `.keras` and for nested models.
        for layer in () if include_optimizer else sublayers(model):
            if getattr(layer, "compiled", False):
                set_attribute(layer, "optimizer", None, undo)
                set_attribute(layer, "compiled", False, undo)
        if path.name.endswith(".weights.h5"):
            model.save_weights(path)
        else:
            model.save(path, include_optimizer=include_optimizer)


def _check_for_traces(written: Path, target: Path, names: list[str]) -> None:
    """Raises ValueError if a written file contains one of the names."""
    traces = [name.encode() for name in names]
    for name, content in _contents(written):
        for trace in _traces_in(content, traces):
            raise ValueError(
                f"{str(target)!r} is not written, because its {name} would still "
                f"mention {trace.decode()!r}. A layer holds the regularizer in a place "
                "that keras_wm does not know. Remove it from that layer's get_config, "
                "or use keras_wm.attach."
            )


def _search_own_mark(model: ModelSource, key: WatermarkKey) -> Verification:
    """Verifies the owner's own model, as if in all slots up to that of the key.

    Only the slot of the key is searched, because a whole network has many. The others
    are counted, as `verify` counts them and the test of all slots together.
    """
    tests = 2 * (key.slot + 1) if key.slot else 1
    return verify(model, key, alpha=MARKED / tests, limits=NO_LIMITS, slots=1)


def _check_marks(model: Any, written: Path, target: Path, missing: str) -> None:
    """Verifies the marks of a model in the file that it was saved to.

    Args:
        model: The marked Keras model.
        written: The file.
        target: The path that the file is for.
        missing: `"refuse"` or `"warn"`, for a mark that the file does not have.

    Raises:
        ValueError: If a mark that the model has is missing in the file, unless
            `missing` is `"warn"`.
    """
    layers: dict[WatermarkKey, list[str]] = {}
    for marked in find_marked_layers(model):
        if marked.regularizer.key is not None:
            layers.setdefault(marked.regularizer.key, []).append(marked.name)
    for key, names in layers.items():
        found = _search_own_mark(written, key)
        if found.marked:
            continue
        if not _search_own_mark(model, key).marked:
            warnings.warn(
                f"{str(target)!r} is written without a mark that can be proven: the "
                f"mark on {', '.join(map(repr, names))} is not complete in the model "
                f"(bit error rate {found.ber:.2g}). Train it with "
                "keras_wm.BitErrorRate() among the callbacks, and publish the weights "
                "of an epoch with a bit error rate of 0.",
                stacklevel=4,
            )
            continue
        message = (
            f"The mark on {', '.join(map(repr, names))} is in the model in memory, but "
            f"is not in the file {str(target)!r} (verdict {found.verdict!r}). Keras "
            "probably does not save this layer: keep each layer in an attribute, or in "
            "a list that is not inside another list."
        )
        if missing == "refuse":
            raise ValueError(
                f"{message} Nothing is written. To write the file without the mark, "
                'use missing="warn".'
            )
        warnings.warn(message, stacklevel=4)


def _contents(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields the members of an archive, or the whole file, with their names."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    yield name, member
    else:
        with path.open("rb") as file:
            yield "content", file


def _traces_in(content: IO[bytes], traces: list[bytes]) -> Iterator[bytes]:
    """Yields the traces in a stream of any size, which is read in blocks."""
    overlap = b""
    while block := content.read(_BLOCK):
        window = overlap + block
        yield from (trace for trace in traces if trace in window)
        # A trace can begin in one block and end in the next.
        overlap = window[-max(map(len, traces)) :]
