"""The commands of self-learning Monte Carlo: sample, train, scale and study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_wm.cli.app import silent_import
from keras_wm.cli.options import argument, count, option

if TYPE_CHECKING:
    from keras_wm.slmc.double_exchange import DoubleExchange

slmc = typer.Typer(
    help="Self-learning Monte Carlo of the double-exchange model.", no_args_is_help=True
)

SizeOption = Annotated[
    str, option("Sites per side: L, or Lx x Ly such as 6x8.", "L|LxL")
]
BetaOption = Annotated[
    float, option("Inverse temperature 1/T, with T in the unit of t, J and mu.")
]
MuOption = Annotated[float, option("Chemical potential mu.")]
CouplingOption = Annotated[
    float, option("Coupling J of spins and electrons.", None, "--coupling", "-J")
]
HoppingOption = Annotated[
    float, option("Hopping amplitude t.", None, "--hopping", "-t")
]
SeedOption = Annotated[int, count("Random seed.", least=0)]
ShellsOption = Annotated[
    int, count("Number of shells of neighbours that the effective model sees.")
]
BlocksOption = Annotated[int, count("Number of attention blocks, L.", least=0)]
HeadsOption = Annotated[int, count("Number of attention heads per block.")]
ChainsOption = Annotated[int, count("Number of Markov chains.")]
SweepsOption = Annotated[int, count("Sweeps of the effective model per proposal.")]
ProposalsOption = Annotated[int, count("Proposals per chain between two fits.")]
EpochsOption = Annotated[int, count("Number of epochs of each fit.")]
RateOption = Annotated[float, option("Largest learning rate of a fit.")]


@slmc.command()
def sample(
    size: SizeOption = "6",
    beta: BetaOption = 20.0,
    mu: MuOption = 0.0,
    coupling: CouplingOption = 1.0,
    hopping: HoppingOption = 1.0,
    by: Annotated[
        str,
        option(
            "Source of the proposals: metropolis, linear, or a file of an "
            "effective model.",
            "NAME|FILE",
        ),
    ] = "linear",
    chains: ChainsOption = 64,
    steps: Annotated[
        int, count("Number of measured proposals (with metropolis: sweeps).")
    ] = 500,
    thermalise: Annotated[
        int, count("Number of thermalisation steps, which are discarded.", least=0)
    ] = 100,
    sweeps: SweepsOption = 10,
    spins: Annotated[
        bool, option("Store spin configurations (needed by `train --samples`).")
    ] = False,
    seed: SeedOption = 0,
    out: Annotated[
        Path, option("Output file. An interrupted run resumes from it.", "FILE")
    ] = Path("slmc.npz"),
) -> None:
    """Sample the exact model, and measure magnetisations, energy and acceptance."""
    with silent_import():
        from keras_wm.cli.slmc_sampling import make_sampler, run_sampling

    model = _model(size, beta, mu, coupling, hopping)
    sampler = make_sampler(by, model, chains, sweeps, seed, out)
    run_sampling(sampler, steps, thermalise, out, spins)


@slmc.command()
def train(
    size: SizeOption = "6",
    beta: BetaOption = 20.0,
    mu: MuOption = 0.0,
    coupling: CouplingOption = 1.0,
    hopping: HoppingOption = 1.0,
    shells: ShellsOption = 6,
    blocks: BlocksOption = 2,
    heads: HeadsOption = 1,
    chains: ChainsOption = 256,
    proposals: ProposalsOption = 20,
    epochs: EpochsOption = 60,
    learning_rate: RateOption = 1e-2,
    samples: Annotated[
        Path | None,
        option(
            "File of `sample --spins` to train on, instead of sampling with "
            "--chains and --proposals.",
            "FILE",
        ),
    ] = None,
    seed: SeedOption = 0,
    out: Annotated[Path, option("Output file of the model.", "FILE")] = Path(
        "effective.keras"
    ),
) -> None:
    """Train an effective model block by block, online or on stored samples."""
    with silent_import():
        from keras_wm.cli.slmc_training import run_training
        from keras_wm.slmc.learning.online import Schedule

    model = _model(size, beta, mu, coupling, hopping)
    schedule = Schedule(chains, proposals, epochs=epochs, learning_rate=learning_rate)
    run_training(model, shells, blocks, heads, schedule, seed, samples, out)


@slmc.command()
def scale(
    size: SizeOption = "6",
    beta: BetaOption = 20.0,
    mu: MuOption = 0.0,
    coupling: CouplingOption = 1.0,
    hopping: HoppingOption = 1.0,
    shells: ShellsOption = 6,
    blocks: BlocksOption = 4,
    seeds: Annotated[int, count("Number of trainings.")] = 3,
    heads: HeadsOption = 1,
    chains: ChainsOption = 256,
    proposals: ProposalsOption = 20,
    epochs: EpochsOption = 60,
    learning_rate: RateOption = 1e-2,
    out: Annotated[
        Path, option("Output folder. An interrupted run resumes from it.", "FOLDER")
    ] = Path("slmc_scaling"),
) -> None:
    """Measure and plot how the error of effective models decreases with their size."""
    with silent_import():
        from keras_wm.cli.slmc_training import run_scaling
        from keras_wm.slmc.learning.online import Schedule

    model = _model(size, beta, mu, coupling, hopping)
    schedule = Schedule(chains, proposals, epochs=epochs, learning_rate=learning_rate)
    run_scaling(model, shells, blocks, heads, seeds, schedule, out)


@slmc.command()
def study(
    records: Annotated[
        Path,
        argument("Results file (JSON lines); completed parts are skipped.", "FILE"),
    ] = Path("slmc.jsonl"),
    fast: Annotated[bool, option("Run a small version that takes a minute.")] = False,
) -> None:
    """Compute the results that notebooks/self_learning_monte_carlo.ipynb shows."""
    from rich.console import Console

    with silent_import():
        from keras_wm.research.experiments.studies.slmc import FAST, Study, run_study

    run_study(FAST if fast else Study(), records, Console())


def _model(
    size: str, beta: float, mu: float, coupling: float, hopping: float
) -> DoubleExchange:
    from keras_wm.slmc.double_exchange import DoubleExchange
    from keras_wm.slmc.lattice import square_lattice

    sides = size.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise ValueError(
            "Expected the size of a lattice, such as 6 or 6x8. "
            f"Received: --size {size!r}"
        )
    lattice = square_lattice(*map(int, sides))
    return DoubleExchange(lattice, beta, mu, coupling, hopping)
