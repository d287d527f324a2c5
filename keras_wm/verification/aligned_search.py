"""Looking at a suspect's kernels as they are, aligned and reordered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_wm.alignment.aligner import Aligner
from keras_wm.alignment.layer_matching import MatchedWeights, match_layers
from keras_wm.alignment.reference import Reference, WeightName, read_all
from keras_wm.errors import AlignmentError, LayerNotFoundError
from keras_wm.files import Kernel, Limits, ModelFile, select
from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.search import Finding, best_of, check_work, fits, search

_AS_IT_IS = "as it is"
_ALIGNED = "aligned"
_REORDERED = "reordered"


@dataclass(frozen=True)
class Look:
    """What one way of looking at a model's kernels has found.

    Attributes:
        name: `"as it is"`, `"aligned"` or `"reordered"`.
        finding: What was found.
        undone: What was undone to the kernel that is the best, as numbers of
            channels (`"moved"`, `"flipped"`) and of neurons (`"added"`).
    """

    name: str
    finding: Finding
    undone: dict[str, int]

    def __str__(self) -> str:
        """What was found and undone, on a line."""
        kernel, detection = self.finding.kernel, self.finding.detection
        if kernel is None or detection is None:
            return "no kernel that can hold the message"
        errors = detection.bits - detection.matches
        found = f"{errors} of {detection.bits} bits wrong in {kernel.name}"
        if not self.undone:
            return found
        added = self.undone.get("added", 0)
        steps = [
            f"{self.undone['moved']} channels moved",
            f"{self.undone['flipped']} turned in sign",
            *(
                [f"{abs(added)} neurons {'more' if added > 0 else 'fewer'}"]
                * (added != 0)
            ),
        ]
        return f"{found}; undone: {', '.join(steps)}, all scaling"

    def to_dict(self) -> dict[str, Any]:
        """The figures, as plain Python values."""
        kernel, detection = self.finding.kernel, self.finding.detection
        figures = detection.to_dict() if detection else {}
        return {
            "layer": kernel.name if kernel else None,
            "kernels_tried": self.finding.tried,
            "log10_arrangements": self.finding.log10_arrangements,
            **figures,
            **self.undone,
        }


@dataclass(frozen=True)
class Looks:
    """Everything that was found in a model.

    Attributes:
        best: What is most surprising; all tries are counted in it.
        each: What each way of looking has found.
        remarks: Why one of them could not be gone.
    """

    best: Finding
    each: tuple[Look, ...]
    remarks: tuple[str, ...]


def look(
    suspect: ModelFile,
    key: WatermarkKey,
    layer: str | None,
    limits: Limits,
    reference: Reference | None,
    reordered: bool,
) -> Looks:
    """Looks for a key in a suspect's kernels, in all ways that are asked for.

    Args:
        suspect: The open model.
        key: The key.
        layer: The layer to look in, by the name that it has in the reference if there
            is one; `None` for all.
        limits: What the search may take.
        reference: The owner's network, to align the suspect with.
        reordered: Whether filters are put into the order that the key likes best.

    Returns:
        What was found.

    Raises:
        LayerNotFoundError: If the layer is not found.
        ModelFileError: If a weight cannot be read.
        UnsafeFileError: If the search would take too long.
    """
    remarks: list[str] = []
    kernels, named = suspect.kernels, layer is not None
    aligned: Look | None = None
    if reference is not None:
        try:
            answers = match_layers(reference, suspect)
            wanted = _wanted(reference, layer)
            aligned, refused = _aligned(reference, answers, wanted, key, limits)
        except AlignmentError as error:
            remarks.append(f"Not aligned with {reference.source}: {error}")
        else:
            remarks += [*_left_out(reference, answers), *refused]
            if layer is not None:
                found = [one[name] for one in answers for name in wanted if name in one]
                kernels = list({id(one): one for one in found}.values())
                layer = None
    if layer is not None:
        kernels = select(kernels, layer, suspect.path)
    looks = [Look(_AS_IT_IS, search(kernels, [key], limits)[0], {})]
    looks += [aligned] if aligned else []
    looks += [_reordered(kernels, key, limits)] if reordered else []
    best = best_of([one.finding for one in looks])
    if named and not best.tried:
        key.check_shape(kernels[0].shape)
    return Looks(best, tuple(looks), tuple(remarks))


def _left_out(reference: Reference, answers: Sequence[MatchedWeights]) -> list[str]:
    """A remark on the layers that no answer has a counterpart of, if there are any."""
    found = {layer for answer in answers for layer, _ in answer}
    missing = [layer for layer in reference.layers if layer not in found]
    if not missing:
        return []
    return [
        f"Aligned without {len(missing)} of the {len(reference.layers)} layers, which "
        f"have no counterpart: {', '.join(missing[:5])}."
    ]


def _wanted(reference: Reference, layer: str | None) -> list[WeightName]:
    """The owner's names of the kernels to look in."""
    kernels = reference.kernels
    if layer is not None:
        try:
            kernels = select(kernels, layer, reference.source)
        except LayerNotFoundError as error:
            # The suspect may have it: a layer whose channels are not followed.
            raise AlignmentError(str(error)) from None
    return [(one.layer, one.variable) for one in kernels]


def _aligned(
    reference: Reference,
    answers: Sequence[MatchedWeights],
    wanted: Sequence[WeightName],
    key: WatermarkKey,
    limits: Limits,
) -> tuple[Look, list[str]]:
    """Each kernel aligned by all others, for each pairing of the layers.

    Returns:
        What was found, and for each kernel that could not be aligned, why.

    Raises:
        AlignmentError: If none could.
    """
    tries = [
        (
            answer,
            [
                name
                for name in wanted
                if name in answer and fits(reference.weights[name], key)
            ],
        )
        for answer in answers
    ]
    check_work(
        [reference.weights[name] for _, names in tries for name in names], [key], limits
    )
    findings: list[tuple[Finding, dict[str, int]]] = []
    refused: dict[str, None] = {}
    for answer, names in tries:
        aligner = Aligner(reference.graph, reference.values, read_all(answer))
        for name in names:
            try:
                alignment = aligner.align_without(name)
                kernel = alignment.aligned(name)
            except AlignmentError as error:
                refused[str(error)] = None
                continue
            found = Finding(answer[name], detect(kernel, key), 1, 0)
            findings.append((found, alignment.correspondence.changes))
    if not findings:
        reasons = refused or ["No kernel that can hold the message has a counterpart."]
        raise AlignmentError(" ".join(reasons))
    best = best_of([found for found, _ in findings])
    undone = next(
        undone for found, undone in findings if found.detection is best.detection
    )
    return Look(_ALIGNED, best, undone), list(refused)


def _reordered(kernels: Sequence[Kernel], key: WatermarkKey, limits: Limits) -> Look:
    """Each kernel in the arrangements that the key likes best."""
    from keras_wm.alignment.filter_assignment import arrangements

    fitting = [one for one in kernels if fits(one, key)]
    check_work(fitting, [key], limits)
    findings = [Finding(None, None, 0, 0)]
    undone: dict[int, dict[str, int]] = {}
    for kernel in fitting:
        for one in arrangements(kernel.read(), key):
            detection = detect(one.kernel, key)
            findings.append(Finding(kernel, detection, 1, 0, one.log10_family))
            undone[id(detection)] = {"moved": one.moved, "flipped": one.flipped}
    best = best_of(findings)
    return Look(_REORDERED, best, undone.get(id(best.detection), {}))
