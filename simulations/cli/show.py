"""``fedmtl strategies``, ``presets`` and ``devices``: what an experiment is made of, before it runs."""

from __future__ import annotations

import sys

import numpy as np
from rich import box
from rich.table import Table

from fedmtl.components import choose, options_of, summary_of
from fedmtl.errors import UserError
from simulations.cli.console import new_console
from simulations.cli.experiments import Wanted
from simulations.cli.options import in_toml, option_table, words
from simulations.devices import describe
from simulations.presets import preset_file, presets
from simulations.studies.shipped import shipped_studies
from strategies.recipes.catalogue import STRATEGIES, Recipe, builder
from strategies.recipes.custom import KINDS, custom, own_sections
from strategies.recipes.papers import FAMILIES, composition, method_of

_MAIN = 4


def show_strategies() -> None:
    """What each strategy is, its parts and its main defaults, by family."""
    methods = {name: method_of(recipe) for name, recipe in STRATEGIES.items()}
    table = Table(box=box.SIMPLE_HEAD)
    for header in ("name", "what it is, parts, defaults", "paper, arXiv"):
        table.add_column(header, no_wrap=header == "name")
    for family in FAMILIES:
        names = [name for name, found in methods.items() if found.family == family]
        if names:
            table.add_row(family, style="bold")
        for name in names:
            recipe = STRATEGIES[name]
            table.add_row(
                f" {name}",
                "\n".join(filter(None, (words(summary_of(recipe)), composition(recipe()), _main_defaults(recipe)))),
                methods[name].arxiv or ("not on arXiv" if methods[name].paper else "ours"),
                end_section=name == names[-1],
            )
    console = new_console()
    console.print(table)
    console.print("fedmtl strategies NAME shows the options of a strategy.")


def _main_defaults(recipe: Recipe) -> str:
    """The first few numbers among the options: recipes name the important ones first."""
    numbers = [
        f"{option.name} {option.default:g}"
        for option in options_of(recipe)
        if isinstance(option.default, int | float) and not isinstance(option.default, bool)
    ]
    return ", ".join(numbers[:_MAIN]) + (", ..." if len(numbers) > _MAIN else "")


def show_strategy(name: str) -> None:
    """The method and the options of one strategy."""
    recipe = choose(STRATEGIES, name, "strategy.name")
    method = method_of(recipe)
    strategy = recipe()
    console = new_console()
    console.print(words(summary_of(recipe)))
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_row("family", method.family)
    facts.add_row("paper", method.citation)
    facts.add_row("parts", f"{composition(strategy)} x the tasks' weights of [balancing]")
    if strategy.no_rule:
        facts.add_row("aggregator", f"the mean alone: {strategy.no_rule}")
    console.print(facts)
    console.print(f"Set with --set strategy.KEY=VALUE, or below [strategy] beside name = {name!r}.")
    console.print(option_table(options_of(recipe if strategy.no_rule else builder(name))))
    if recipe is custom:
        console.print(_parts_table())


def _parts_table() -> Table:
    """The parts that free compositions are made of."""
    table = Table(box=box.SIMPLE_HEAD)
    for header in ("part", "name", "what it is", "parts inside", "keys with defaults and what is allowed"):
        table.add_column(header, no_wrap=header in ("part", "name"))
    for kind, (builders, _) in KINDS.items():
        for name, build in builders.items():
            keys = (f"{option.name} = {in_toml(option.default)} ({option.allowed})" for option in options_of(build))
            inside = ", ".join(own_sections(kind, build))
            first, last = name == next(iter(builders)), name == list(builders)[-1]
            part = kind.__name__.removeprefix("Client").lower() if first else ""
            table.add_row(part, name, words(summary_of(build)), inside, "\n".join(keys), end_section=last)
    return table


def show_presets() -> None:
    """What each preset is, in one line."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("name", no_wrap=True)
    table.add_column("what it is")
    for name, line in presets().items():
        table.add_row(name, line)
    console = new_console()
    console.print(table)
    console.print("fedmtl presets NAME prints one, fedmtl run --preset NAME runs it.")


def show_preset(name: str) -> None:
    """The file of a preset, to the letter."""
    if name not in presets() and name in shipped_studies():
        raise UserError(f"{name} is a study, not a preset: run it with fedmtl study {name}")
    sys.stdout.write(preset_file(name).read_text(encoding="utf-8"))


def show_devices(wanted: Wanted) -> None:
    """How long the devices take for an order of a median client."""
    experiment = wanted.load()
    settings, sizes = experiment.settings, experiment.data.shards.sizes
    steps = int(np.median([settings.local_steps(size) for size in sizes.tolist()]))
    summary = describe(experiment.devices, steps)

    console = new_console()
    # What a balancer or a policy does beside that is charged on top (simulations/work.py).
    console.print(f"seconds of a plain order of {steps} steps, without transfer and jitter:")
    facts = Table(box=box.SIMPLE_HEAD, show_header=False)
    for fact in summary.rows:
        facts.add_row(*fact)
    console.print(facts)
    most = max(part.clients for part in summary.histogram)
    bins = Table("seconds", "clients", "", box=box.SIMPLE_HEAD)
    for part in summary.histogram:
        bins.add_row(f"{part.low:.4g} to {part.high:.4g}", str(part.clients), "█" * round(40 * part.clients / most))
    console.print(bins)
    if summary.groups:
        groups = Table("device", "clients", "seconds", box=box.SIMPLE_HEAD)
        for group in summary.groups:
            groups.add_row(group.label, str(group.clients), f"{group.seconds:.4g}")
        console.print(groups)
