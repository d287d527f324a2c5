"""The commands of self-learning Monte Carlo: sample, train, scale, study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_wm.cli.app import app, silent_import

if TYPE_CHECKING:
    from keras_wm.slmc.double_exchange import DoubleExchange

slmc = typer.Typer(
    help="Self-learning Monte Carlo of the double-exchange model, the scientific host.",
    no_args_is_help=True,
)
app.add_typer(slmc, name="slmc")

SizeOption = Annotated[str, typer.Option(help="L, or Lx x Ly as in 6x8.")]
BetaOption = Annotated[
    float, typer.Option(help="1 / T, with T in the unit of t, J and mu.")
]
MuOption = Annotated[float, typer.Option(help="The chemical potential.")]
CouplingOption = Annotated[
    float, typer.Option("--coupling", "-J", help="J, between spins and electrons.")
]
HoppingOption = Annotated[float, typer.Option("--hopping", "-t", help="t.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of all that is random.")]
ShellsOption = Annotated[
    int | None,
    typer.Option(min=1, help="How many shells of neighbours are seen; else all."),
]
BlocksOption = Annotated[int, typer.Option(min=0, help="L, blocks of attention.")]
HeadsOption = Annotated[
    int, typer.Option(min=1, help="How many attentions a block adds up.")
]
ChainsOption = Annotated[int, typer.Option(min=1, help="How many chains.")]
SweepsOption = Annotated[int, typer.Option(min=1, help="Sweeps that make a proposal.")]
ProposalsOption = Annotated[
    int, typer.Option(min=1, help="Proposals of each chain between two fits.")
]
EpochsOption = Annotated[int, typer.Option(min=1, help="Of each fit.")]
RateOption = Annotated[float, typer.Option(help="The largest learning rate of a fit.")]


@slmc.command()
def sample(
    size: SizeOption = "6",
    beta: BetaOption = 20.0,
    mu: MuOption = 0.0,
    coupling: CouplingOption = 1.0,
    hopping: HoppingOption = 1.0,
    by: Annotated[
        str, typer.Option(help="metropolis, linear, or a file of an effective model.")
    ] = "linear",
    chains: ChainsOption = 64,
    steps: Annotated[
        int, typer.Option(min=1, help="Sweeps of metropolis, else proposals.")
    ] = 500,
    thermalise: Annotated[int, typer.Option(min=0, help="Steps before.")] = 100,
    sweeps: SweepsOption = 10,
    spins: Annotated[bool, typer.Option(help="Keep all spins, to train by.")] = False,
    seed: SeedOption = 0,
    out: Annotated[
        Path, typer.Option(help="A checkpoint; a run that was stopped goes on there.")
    ] = Path("slmc.npz"),
) -> None:
    """Sample the exact model, and measure magnetisations, energy and acceptance."""
    from rich.console import Console

    with silent_import():
        from keras_wm.cli.slmc_sampling import run_sampling
        from keras_wm.slmc.samplers.by_name import sampler_by

    model = _model(size, beta, mu, coupling, hopping)
    chosen = sampler_by(by, model, chains, sweeps, seed, out)
    run_sampling(chosen, steps, thermalise, out, spins, Console())


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
        typer.Option(
            help="What `sample --spins` kept, instead of --chains and --proposals."
        ),
    ] = None,
    seed: SeedOption = 0,
    out: Annotated[Path, typer.Option(help="Where the model goes.")] = Path(
        "effective.keras"
    ),
) -> None:
    """Train an effective model block by block, while sampling or from samples."""
    from rich.console import Console

    with silent_import():
        from keras_wm.cli.slmc_training import run_training
        from keras_wm.slmc.learning.online import Schedule

    model = _model(size, beta, mu, coupling, hopping)
    schedule = Schedule(chains, proposals, epochs=epochs, learning_rate=learning_rate)
    run_training(model, shells, blocks, heads, schedule, seed, samples, out, Console())


@slmc.command()
def scale(
    size: SizeOption = "6",
    beta: BetaOption = 20.0,
    mu: MuOption = 0.0,
    coupling: CouplingOption = 1.0,
    hopping: HoppingOption = 1.0,
    shells: ShellsOption = 6,
    blocks: BlocksOption = 4,
    seeds: Annotated[int, typer.Option(min=1, help="How many trainings.")] = 3,
    heads: HeadsOption = 1,
    chains: ChainsOption = 256,
    proposals: ProposalsOption = 20,
    epochs: EpochsOption = 60,
    learning_rate: RateOption = 1e-2,
    out: Annotated[Path, typer.Option(help="Where points and a picture go.")] = Path(
        "slmc_scaling"
    ),
) -> None:
    """Tell how what an effective model misses falls with its number of parameters."""
    from rich.console import Console

    with silent_import():
        from keras_wm.cli.slmc_training import run_scaling
        from keras_wm.slmc.learning.online import Schedule

    model = _model(size, beta, mu, coupling, hopping)
    schedule = Schedule(chains, proposals, epochs=epochs, learning_rate=learning_rate)
    run_scaling(model, shells, blocks, heads, seeds, schedule, out, Console())


@slmc.command()
def study(
    records: Annotated[
        Path,
        typer.Argument(help="Results file (JSON lines); completed parts are skipped."),
    ] = Path("slmc.jsonl"),
    fast: Annotated[bool, typer.Option(help="A minute of it, to see it run.")] = False,
) -> None:
    """Do what notebooks/self_learning_monte_carlo.ipynb shows; goes on after a stop."""
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
            f"Expected a lattice's size, such as 6, or 6x8. Received: --size {size!r}"
        )
    lattice = square_lattice(*map(int, sides))
    return DoubleExchange(lattice, beta, mu, coupling, hopping)
