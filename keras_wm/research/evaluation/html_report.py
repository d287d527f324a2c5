"""The requirements report as a self-contained HTML page."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from math import log10
from pathlib import Path
from typing import Any

from keras_wm._version import __version__
from keras_wm.plots import plot_evidence
from keras_wm.research.attacks.forging.forgery import core_years
from keras_wm.research.evaluation.evaluation import METHOD, AttackSummary, Evaluation
from keras_wm.research.evaluation.outcomes import MARKED_HOST
from keras_wm.scheme.detection import format_p
from keras_wm.utils.atomic import atomic_write
from keras_wm.verification.standing import PROVEN


@dataclass(frozen=True)
class Requirement:
    """A row of the papers' table of requirements.

    Attributes:
        name: Name of the requirement.
        meaning: The requirement in a sentence.
        result: The measured result in a sentence.
        figures: Measured values by name.
    """

    name: str
    meaning: str
    result: str
    figures: Sequence[tuple[str, str]] = ()


def write_report(
    evaluation: Evaluation, folder: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """Writes `evaluation.json` and the self-contained page `evaluation.html`.

    Args:
        evaluation: The requirements report.
        folder: Output folder. It is created if it does not exist.

    Returns:
        The paths of the two files.

    Raises:
        ImportError: If the extra `report` is not installed.
    """
    html = render_html(evaluation)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "evaluation.json", folder / "evaluation.html"
    texts = json.dumps(evaluation.to_dict(), indent=2) + "\n", html
    for path, text in zip(paths, texts, strict=True):
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def render_html(evaluation: Evaluation) -> str:
    """Returns the report as an HTML page that contains its figure."""
    hosts = {outcome.host for outcome in evaluation.outcomes}
    html: str = page_template().render(
        evaluation=evaluation,
        requirements=requirements(evaluation),
        attack_row=attack_row,
        percent=_percent,
        number=_number,
        fidelity=_fidelity(evaluation).result,
        efficiency=_efficiency(evaluation).result,
        figure=_figure(evaluation),
        unmarked=len(hosts - {MARKED_HOST}),
        method=METHOD,
        version=__version__,
    )
    return html


def page_template() -> Any:
    """Returns the Jinja template; raises ImportError without the extra `report`."""
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise ImportError(
            "Writing a report requires the package jinja2. "
            'Install it with: pip install "keras-wm[report]"'
        ) from error
    template = files(__package__).joinpath("page.html").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template)


def requirements(evaluation: Evaluation) -> list[Requirement]:
    """Returns the papers' table of requirements (Uchida et al. 2017, Table 1)."""
    rows = (_fidelity, _robustness, _capacity, _security, _efficiency)
    return [row(evaluation) for row in rows]


def _fidelity(evaluation: Evaluation) -> Requirement:
    fidelity = evaluation.fidelity
    figures = [
        ("test error, marked", _percent(fidelity.test_error)),
        ("test error, unmarked", _percent(fidelity.baseline_error)),
    ]
    result = "Not measured, because no data were given."
    if fidelity.test_error is not None:
        result = f"The test error of the marked network is {figures[0][1]}."
    if fidelity.difference is not None and fidelity.half_interval is not None:
        points = (
            f"{100 * fidelity.difference:+.2f} ± {100 * fidelity.half_interval:.2f} "
            "percentage points"
        )
        figures.append(("difference, 95 % interval", points))
        is_significant = abs(fidelity.difference) > fidelity.half_interval
        effect = "changes" if is_significant else "does not significantly change"
        result = f"The mark {effect} the test error: {points}."
    return Requirement(
        "Fidelity", "The mark does not reduce the network's accuracy.", result, figures
    )


def _robustness(evaluation: Evaluation) -> Requirement:
    counted = [summary for summary in evaluation.attack_summaries if summary.counted]
    removed = evaluation.removed
    names = ", ".join(summary.attack for summary in removed)
    selection = "need no data"
    if evaluation.fidelity.test_error is not None:
        points = f"{100 * evaluation.tolerance:g} percentage points"
        selection = f"add at most {points} of test error"
    figures = [("removed by", names or "none")]
    kept = [summary for summary in counted if not summary.removed]
    if kept:
        strongest = max(kept, key=lambda summary: summary.largest_log10_p or 0.0)
        p_value = format_p(strongest.largest_log10_p or 0.0)
        figures.append(
            ("largest p-value after the others", f"{p_value}, {strongest.attack}")
        )
    return Requirement(
        "Robustness",
        "The mark survives attacks that leave the network useful.",
        f"{len(removed)} of {len(counted)} attacks that {selection} remove the mark"
        f"{f': {names}' if names else ''}.",
        figures,
    )


def _capacity(evaluation: Evaluation) -> Requirement:
    capacity = evaluation.capacity
    return Requirement(
        "Capacity",
        "The mark can carry a message.",
        f"The layer carries {capacity.bits} bits with a mean margin of "
        f"{capacity.margin:.1f} standard deviations. At a margin of 4, it can hold "
        f"{capacity.unseen_bits} bits before the mark can be detected without the key.",
        [
            ("kernel", f"{capacity.size} x {capacity.count} weights"),
            ("capacity", f"{capacity.readable_bits:,} bits"),
            ("share of the kernel's norm", f"{100 * capacity.share:.0f} %"),
        ],
    )


def _security(evaluation: Evaluation) -> Requirement:
    security = evaluation.security
    years = partial(core_years, seconds=security.seconds_per_key)
    return Requirement(
        "Security",
        "Without the key, the mark cannot be read, forged or detected.",
        f"Of {security.wrong_keys} random keys, {security.wrong_keys_found} have their "
        "mark in the network. Finding such a key by trial would take one core "
        f"{years(evaluation.alpha):.2g} years for p < {evaluation.alpha:g}, and "
        f"{years(PROVEN):.2g} years for p < 2^-64.",
        [
            ("smallest p-value of a random key", format_p(security.smallest_log10_p)),
            ("commitment", evaluation.verification.commitment),
            *(
                (f"kernel statistic: {name}", _with_unmarked(*values))
                for name, values in security.statistics.items()
            ),
        ],
    )


def _efficiency(evaluation: Evaluation) -> Requirement:
    efficiency = evaluation.efficiency
    ratio, seconds = efficiency.step_ratio, efficiency.detection_seconds
    results = []
    if ratio is not None:
        results.append(
            f"With the mark, a training step takes {ratio:.3f} times as long."
        )
    if seconds is not None and efficiency.file_bytes is not None:
        size = f"{efficiency.file_bytes / 1e6:.2g} MB"
        results.append(f"Verifying the file of {size} takes {seconds:.2f} s.")
    results.append("Inference is not affected: the network has the same layers.")
    return Requirement(
        "Efficiency",
        "Embedding and verification take little time.",
        " ".join(results),
    )


def attack_row(summary: AttackSummary) -> tuple[str, str, str]:
    """Returns the texts of an attack's strengths, p-value and verdict."""
    log10_p = summary.largest_log10_p
    if summary.refused:
        verdict = f"does not apply: {summary.refused}"
    elif log10_p is None:
        verdict = "makes the network useless at every strength"
    elif summary.removed:
        verdict = "removes the mark"
    else:
        verdict = "does not remove the mark"
    first, last = summary.outcomes[0].strength, summary.outcomes[-1].strength
    strengths = f"{first:g}" if first == last else f"{first:g} to {last:g}"
    p_value = "-" if log10_p is None else format_p(log10_p)
    return strengths, p_value, verdict


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _with_unmarked(value: float, unmarked: float | None) -> str:
    return f"{value:.3g}" + ("" if unmarked is None else f" (unmarked {unmarked:.3g})")


def _figure(evaluation: Evaluation) -> str:
    """Draws accuracy against evidence as an SVG; empty if no attack applies."""
    families: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for summary in evaluation.attack_summaries:
        points = [
            (-outcome.log10_p, 1 - (outcome.test_error or 0.0))
            for outcome in summary.outcomes
            if not outcome.refused
        ]
        if points:
            families.setdefault(summary.family, {})[summary.attack] = points
    if not families:
        return ""
    error = evaluation.fidelity.test_error or 0.0
    figure = plot_evidence(
        families,
        start=(-evaluation.verification.log10_p, 1 - error),
        threshold=-log10(evaluation.alpha),
        useful_accuracy=1 - error - evaluation.tolerance,
    )
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    # Inside a page, an SVG must not have an XML header or document type.
    return stream.getvalue().partition("<svg")[2].join(("<svg", ""))
