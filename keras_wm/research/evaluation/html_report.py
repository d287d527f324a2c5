"""The requirements report as one page that needs no other file."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from math import log10
from typing import TYPE_CHECKING, Any

from keras_wm._version import __version__
from keras_wm.plots import plot_evidence
from keras_wm.research.attacks.forging import years_of_search
from keras_wm.research.evaluation.evaluation import (
    MARKED_HOST,
    METHOD,
    Evaluation,
    Modification,
    Resistance,
)
from keras_wm.scheme.detection import format_p
from keras_wm.verification.result import PROVEN

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Requirement:
    """A line of the papers' table of requirements.

    Attributes:
        name: What is required.
        meaning: What that means.
        answer: What was measured, in a sentence.
        figures: The numbers behind it, named.
    """

    name: str
    meaning: str
    answer: str
    figures: list[tuple[str, str]]


def page(evaluation: Evaluation) -> str:
    """The report as HTML, with its figure inside.

    Raises:
        ImportError: If the extra `report` is missing.
    """
    require_jinja2()
    from jinja2 import Environment

    template = files(__package__).joinpath("page.html").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text: str = environment.from_string(template).render(
        evaluation=evaluation,
        requirements=list(requirements(evaluation)),
        lines=attack_lines(evaluation),
        modifications=[_cells(one) for one in evaluation.modifications()],
        imperceptibility=_imperceptibility(evaluation),
        figure=_svg(_figure(evaluation)),
        unmarked=len({one.host for one in evaluation.outcomes} - {MARKED_HOST}),
        method=METHOD,
        version=__version__,
    )
    return text


def require_jinja2() -> None:
    """Says which extra is missing, if it is.

    Raises:
        ImportError: If the extra `report` is missing.
    """
    try:
        importlib.import_module("jinja2")
    except ImportError as error:
        raise ImportError(
            "A report is written by the package jinja2. "
            'Install it with: pip install "keras-wm[report]"'
        ) from error


def requirements(evaluation: Evaluation) -> Iterator[Requirement]:
    """The papers' table of requirements (Uchida et al. 2017, Table 1), filled in."""
    yield _fidelity(evaluation)
    yield _robustness(evaluation)
    yield _capacity(evaluation)
    yield _security(evaluation)
    yield _efficiency(evaluation)


def _fidelity(evaluation: Evaluation) -> Requirement:
    found = evaluation.fidelity
    figures = [
        ("test error, marked", _percent(found.test_error)),
        ("test error, unmarked", _percent(found.baseline_error)),
    ]
    answer = "Not measured: neither data nor an unmarked twin were given."
    if found.test_error is not None:
        answer = f"The marked network gets {_percent(found.test_error)} wrong."
    if found.difference is not None and found.half_interval is not None:
        points = f"{100 * found.difference:+.2f} ± {100 * found.half_interval:.2f}"
        figures.append(("difference, 95 %", f"{points} points"))
        costs = abs(found.difference) > found.half_interval
        answer = (
            f"The mark {'costs' if costs else 'costs nothing that shows'}: {points}"
        )
        answer += " points of test error."
    return Requirement(
        "Fidelity", "The host works as well as without the mark.", answer, figures
    )


def _robustness(evaluation: Evaluation) -> Requirement:
    tried = [one for one in evaluation.resistances if one.counted]
    removed = evaluation.removed
    answer = (
        f"{len(removed)} of {len(tried)} attacks that leave the network within "
        f"{100 * evaluation.tolerance:g} points of its test error remove the mark"
    )
    names = ", ".join(one.attack for one in removed)
    weakest = [one for one in tried if one not in removed]
    figures = [("removed by", names or "none")]
    if weakest:
        least = max(weakest, key=lambda one: one.weakest or 0.0)
        figures.append(
            (
                "least evidence left otherwise",
                f"{format_p(least.weakest or 0.0)}, by {least.attack}",
            )
        )
    return Requirement(
        "Robustness",
        "The mark outlives what is done to the network.",
        f"{answer}{f': {names}' if names else ''}.",
        figures,
    )


def _capacity(evaluation: Evaluation) -> Requirement:
    found = evaluation.capacity
    return Requirement(
        "Capacity",
        "The mark can carry a message of some length.",
        f"{found.bits} bits are in the layer, each {found.margin:.1f} standard "
        f"deviations clear on the average; {found.unseen} fit unseen at 4.",
        [
            ("kernel", f"{found.size} x {found.count} weights"),
            ("bits that can be read", f"{found.holds:,}"),
            ("share of the kernel's norm", f"{100 * found.share:.0f} %"),
        ],
    )


def _security(evaluation: Evaluation) -> Requirement:
    found = evaluation.security
    years, proof_years = (
        years_of_search(p, found.seconds_a_key) for p in (evaluation.alpha, PROVEN)
    )
    return Requirement(
        "Security",
        "Without the key the mark is not read, forged or seen.",
        f"Of {found.wrong_keys} wrong keys, {found.wrong_keys_found} find a mark. To "
        f"find one that does by trying takes one core {years:.2g} "
        f"years for p < {evaluation.alpha:g}, and {proof_years:.2g} for p < 2^-64.",
        [
            ("smallest p of a wrong key", format_p(found.smallest_log10_p)),
            ("commitment", evaluation.verification.commitment),
            *(
                (f"seen from outside: {name}", _beside(*values))
                for name, values in found.statistics.items()
            ),
        ],
    )


def _efficiency(evaluation: Evaluation) -> Requirement:
    found = evaluation.efficiency
    ratio = "not measured" if found.step_ratio is None else f"{found.step_ratio:.3f}"
    seconds = found.detection_seconds
    detection = "not measured" if seconds is None else f"{seconds:.2f} s"
    size = "" if found.file_bytes is None else f" of {found.file_bytes / 1e6:.1f} MB"
    return Requirement(
        "Efficiency",
        "Embedding and detecting take little time.",
        f"A training step with the mark over one without: {ratio}. To find it in the "
        f"file{size}: {detection}. At inference the mark costs nothing: the network is "
        "the same.",
        [],
    )


def attack_lines(evaluation: Evaluation) -> list[dict[str, Any]]:
    """How the mark stood each attack, as texts."""
    return [_line(evaluation, one) for one in evaluation.resistances]


def _line(evaluation: Evaluation, one: Resistance) -> dict[str, Any]:
    weakest = one.weakest
    if one.refused:
        verdict = f"cannot be done: {one.refused}"
    elif weakest is None:
        verdict = "destroys the network at every strength"
    elif one in evaluation.removed:
        verdict = "removes the mark"
    else:
        verdict = "does not remove it"
    return {
        "family": one.family,
        "attack": one.attack,
        "title": one.title,
        "strengths": f"{one.strengths[0].strength:g} to {one.strengths[-1].strength:g}",
        "unit": one.unit,
        "evidence": "" if weakest is None else format_p(weakest),
        "removed": one in evaluation.removed,
        "verdict": verdict,
    }


def _cells(one: Modification) -> list[str]:
    rate = one.symbol_error_rate
    return [
        one.attack,
        f"{one.strength:g}",
        _percent(one.test_error),
        "-" if rate is None else f"{rate:.3f}",
        f"{one.false_negatives:g}",
        "-" if one.false_positives is None else f"{one.false_positives:g}",
    ]


def _imperceptibility(evaluation: Evaluation) -> str:
    return _fidelity(evaluation).answer


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _beside(value: float, unmarked: float | None) -> str:
    return f"{value:.3g}" + ("" if unmarked is None else f" (unmarked {unmarked:.3g})")


def _figure(evaluation: Evaluation) -> Figure:
    families: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for one in evaluation.resistances:
        points = [
            (-outcome.log10_p, 1 - (outcome.test_error or 0.0))
            for outcome in one.strengths
            if not outcome.refused
        ]
        if points:
            families.setdefault(one.family, {})[one.attack] = points
    error = evaluation.fidelity.test_error or 0.0
    return plot_evidence(
        families,
        start=(-evaluation.verification.log10_p, 1 - error),
        found=-log10(evaluation.alpha),
        worth=1 - error - evaluation.tolerance,
    )


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    # What stands before the tag, such as a document type, has no place in a page.
    return stream.getvalue().partition("<svg")[2].join(("<svg", ""))
