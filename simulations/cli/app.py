"""The commands: their arguments, what they print and how they end.

Exit codes: 0 done, 1 a fault of the program (or what was asked for could not be printed), 2 the user's input was wrong,
130 interrupted (a run can be resumed).
Whatever is costly to import is imported by the command that needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmtl.errors import UserError
from simulations.cli.group import INTERRUPTED, Command, Commands

app = typer.Typer(
    cls=Commands,
    help="Simulate federated learning in virtual time, and study what the server's strategy makes of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ExperimentFile = Annotated[
    Path | None, typer.Argument(metavar="[EXPERIMENT.toml]", help="The experiment; the main job if not given.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set a key of the experiment; repeatable."),
]
Preset = Annotated[
    str | None, typer.Option(metavar="NAME", help="An experiment that ships with FedMTL, instead of a file.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of every random draw.")]
RunDirectories = Annotated[list[Path], typer.Argument(metavar="DIR DIR ...", help="Directories of finished runs.")]


@app.callback(invoke_without_command=True)
def whole(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    """Options of the whole command."""
    if version:
        from importlib import metadata

        try:
            typer.echo(f"fedmtl {metadata.version('fedmtl')}")
        except metadata.PackageNotFoundError:
            raise UserError("fedmtl runs from its sources and is not installed; make setup installs it") from None
        raise typer.Exit


@app.command(cls=Command, help="Run an experiment, or go on with one.")
def run(
    experiment: ExperimentFile = None,
    preset: Preset = None,
    assignments: Assignments = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's directory; records.dir/name.")] = None,
    seed: Seed = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Go on with the run in DIR; --set stop.versions=N gives it another end."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that is already there.")] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Compare with single-task models, trained first where none are kept.")
    ] = False,
) -> None:
    """Run an experiment, or go on with one."""
    from simulations.cli.experiments import Wanted
    from simulations.cli.run import resume_run, start_run

    wanted = Wanted(experiment, preset, assignments or [], seed)
    if resume is None:
        done = start_run(wanted, out, overwrite=overwrite, baselines=baselines)
    else:
        alone = {**wanted.given, "--set": None, "--out": out, "--overwrite": overwrite, "--baselines": baselines}
        if extra := [name for name, value in alone.items() if value not in (None, False)]:
            raise UserError(f"--resume {resume} goes on with the run as it was set up; leave out {', '.join(extra)}")
        done = resume_run(resume, assignments or [])
    if not done:
        raise typer.Exit(INTERRUPTED)


@app.command(cls=Command, help="List the strategies, or the options of one.")
def strategies(name: Annotated[str | None, typer.Argument(help="A strategy.")] = None) -> None:
    """List the strategies, or the options of one."""
    from simulations.cli.show import show_strategies, show_strategy

    if name is None:
        show_strategies()
    else:
        show_strategy(name)


@app.command(cls=Command, help="List the sections of an experiment, the keys of one, or the options of what it names.")
def options(
    section: Annotated[str | None, typer.Argument(help="A section, such as training.")] = None,
    name: Annotated[str | None, typer.Argument(help="What a key of it names, such as dirichlet in data.")] = None,
) -> None:
    """List the sections of an experiment, the keys of one, or the options of what it names."""
    from simulations.cli.options import show_options
    from simulations.cli.show import show_strategy
    from strategies.recipes.catalogue import STRATEGIES

    if section == "strategy" and name in STRATEGIES:
        show_strategy(name)
    else:
        show_options(section, name)


@app.command(cls=Command, help="List the experiments that ship with FedMTL, or print one.")
def presets(name: Annotated[str | None, typer.Argument(help="A preset.")] = None) -> None:
    """List the presets, or print the file of one."""
    from simulations.cli.show import show_preset, show_presets

    if name is None:
        show_presets()
    else:
        show_preset(name)


@app.command(cls=Command, help="Show how the data are spread over the clients.")
def partition(
    experiment: ExperimentFile = None,
    preset: Preset = None,
    assignments: Assignments = None,
    seed: Seed = None,
    clients: Annotated[int, typer.Option(min=1, help="How many clients to list.")] = 20,
    gradients: Annotated[
        bool, typer.Option("--gradients", help="How much the clients' gradients differ at the first model, too.")
    ] = False,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Write the heat map (.png), or the table (.csv); repeatable. [default: partition.png]",
        ),
    ] = None,
) -> None:
    """Show how the data are spread over the clients."""
    from simulations.cli.experiments import Wanted
    from simulations.cli.partition import show_partition

    wanted = Wanted(experiment, preset, assignments or [], seed)
    show_partition(wanted, clients, out or [Path("partition.png")], gradients=gradients)


@app.command(cls=Command, help="Show how fast an experiment's devices are.")
def devices(
    experiment: ExperimentFile = None, preset: Preset = None, assignments: Assignments = None, seed: Seed = None
) -> None:
    """Show how fast an experiment's devices are."""
    from simulations.cli.experiments import Wanted
    from simulations.cli.show import show_devices

    show_devices(Wanted(experiment, preset, assignments or [], seed))


@app.command(cls=Command, help="Draw a finished run's plots and report anew.")
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a finished run.")],
    formats: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="FORMAT,...", help="png, svg or pdf, or several of them; records.pictures of the run."
        ),
    ] = None,
) -> None:
    """Draw a finished run's plots and report anew."""
    from simulations.cli.results import show_report

    show_report(directory, formats)


@app.command(cls=Command, help="Compare finished runs of the same tasks, side by side.")
def compare(
    directories: RunDirectories,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target", metavar="TASK=VALUE", help="A value of a task's metric to compare the time to; repeatable."
        ),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="MEAN|LAST|BEST|TIME", help="What runs are ranked by.", case_sensitive=False)
    ] = "mean",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the plots are written.")] = Path("comparison"),
) -> None:
    """Compare finished runs of the same tasks, side by side."""
    from simulations.cli.results import show_comparison

    show_comparison(directories, targets or [], by, out)


@app.command(cls=Command, help="Run a study: experiments along axes, in parallel; then its table and plots.")
def study(
    file: Annotated[
        Path, typer.Argument(metavar="STUDY.toml", help="The study; or the name of one that ships with FedMTL: quick.")
    ],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where it is kept; studies/NAME.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Experiments at a time; one for each core.")] = None,
) -> None:
    """Run a study's missing experiments, then write its table and plots."""
    from simulations.cli.study import start_study

    if not start_study(file, out, workers):
        raise typer.Exit(1)


@app.command(cls=Command, help="Measure the tangent kernels of an experiment's model, or of a finished run's.")
def ntk(
    experiment: ExperimentFile = None,
    preset: Preset = None,
    assignments: Assignments = None,
    seed: Seed = None,
    run: Annotated[Path | None, typer.Option("--run", metavar="DIR", help="The model of the run in DIR.")] = None,
    examples: Annotated[int, typer.Option(min=2, help="Examples to measure at.")] = 256,
    clients: Annotated[int, typer.Option(min=1, help="Clients to look at one by one.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the descent to predict and to measure.")] = 300,
    rate: Annotated[float | None, typer.Option(help="Its rate; 0.05 over a task's curvature.")] = None,
    heads: Annotated[bool, typer.Option(help="Kernels of all parameters, not of the shared ones alone.")] = False,
    memory: Annotated[int, typer.Option(min=1, metavar="MIB", help="Memory for a kernel.")] = 1024,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where plots and tables go; ntk or RUN/ntk.")] = None,
) -> None:
    """Measure the tangent kernels of an experiment's model, or of a finished run's."""
    from fedmtl.ntk.instrument import Settings
    from simulations.cli.experiments import Wanted
    from simulations.cli.ntk import show_kernels

    settings = Settings(examples, clients, steps, rate, "all" if heads else "shared", memory << 20)
    show_kernels(Wanted(experiment, preset, assignments or [], seed), run, out, settings)
