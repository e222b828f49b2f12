"""The commands as their users meet them: what they print, what they leave behind, and how they end.

Long because each command has its mistakes.
"""

import csv
import re
import shutil
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from simulations.cli.app import app
from simulations.cli.partition import _partition_table
from simulations.studies.file import study_file

ROOT = Path(__file__).resolve().parents[3]
SMALL = ["--set", "data.clients=12", "--set", "strategy.buffer_size=3", "--set", "stop.versions=4"]
PLAIN = [*SMALL, "--set", "records.pictures=[]"]
"""The same without pictures, which take longer to draw than it takes to run."""
TWO = ["--set", 'tasks.names=["digit", "ink"]']


def fedmtl(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small finished run."""
    return ended(tmp_path_factory.mktemp("runs") / "small", *SMALL, *TWO)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of one without pictures."""
    return ended(tmp_path_factory.mktemp("plain") / "small", *PLAIN)


def ended(directory: Path, *settings: str) -> Path:
    result = fedmtl("run", *settings, "--out", directory)
    assert result.exit_code == 0, result.output
    return directory


def assert_refused(arguments: Sequence[str | Path], directory: Path, *says: str) -> None:
    """The input is wrong: exit code 2, a plain message on standard error, and not a byte written."""
    before = sorted(path for path in directory.rglob("*"))
    result = fedmtl(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    for text in says:
        assert text in result.stderr
    assert "Traceback" not in result.output
    assert sorted(path for path in directory.rglob("*")) == before


@pytest.mark.slow
def test_a_run_leaves_everything_in_its_directory(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"experiment.toml", "summary.json", "report.html", "plots", "updates.parquet"} <= names


def test_a_run_prints_progress_the_last_metrics_and_where_the_report_is(here: Path) -> None:
    result = fedmtl("run", *PLAIN, "--seed", "3")
    assert result.exit_code == 0
    assert re.search(r"100% +version 4 +[\d,]+ s virtual +[\d,]+ updates/s", result.stdout)
    for task in ("digit", "parity", "ink", "asymmetry"):
        assert re.search(rf"^ +{task} +\w+ \(\w+ is better\) +\d\.\d{{4}}", result.stdout, re.MULTILINE)
    assert "4 versions were made" in result.stdout
    assert result.stdout.endswith("report: runs/fedqs-digits/report.html\n")
    assert "seed = 3" in (here / "runs/fedqs-digits/experiment.toml").read_text()


def test_the_written_experiment_is_complete_and_runs_again_to_the_same_tables(plain: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert fedmtl("run", plain / "experiment.toml", "--out", again).exit_code == 0
    for name in ("experiment.toml", "updates.parquet", "evaluations.parquet", "aggregations.parquet"):
        assert (again / name).read_bytes() == (plain / name).read_bytes(), name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "trainig.epochs=1"], "trainig is not a key (did you mean 'training'?); known: name, seed, data,"),
        (["--set", "training.epocs=1"], "training.epocs is not a key (did you mean 'epochs'?); known: epochs,"),
        (["--set", "training.epochs=two"], "training.epochs = 'two': should be a whole number"),
        (["--set", "training.epochs=0"], "training.epochs = 0: should be greater than 0"),
        (["--set", "strategy.name=fedq"], "strategy.name = 'fedq' is unknown (did you mean 'fedqs'?); known: fedqs,"),
        (
            ["--set", "strategy.bufer_size=3"],
            "strategy.bufer_size is not a key of 'fedqs' (did you mean 'buffer_size'?)",
        ),
        (["--set", "strategy.buffer_size=0"], "strategy.buffer_size = 0: should be greater than or equal to 1 (K, "),
        (["--set", "data.source=digit"], "data.source = 'digit' is unknown (did you mean 'digits'?)"),
        (["--set", "data.alpha=-1"], "data.alpha = -1: should be greater than 0"),
        (["--set", "data.clients=5000"], "data.clients"),
        (["--set", "model.name=mpl"], "model.name = 'mpl' is unknown (did you mean 'mlp'?)"),
        (["--set", "balancing.name=ntk"], "balancing.name = 'ntk' is unknown"),
        (["--set", "devices.kind=trace", "--set", "devices.file=absent.csv"], "absent.csv"),
        (["--set", "stop.target.task=digits", "--set", "stop.target.value=0.5"], "stop.target.task = 'digits'"),
        (["--set", 'tasks.names=["digit", "parety"]'], "parety"),
        (["--set", "engine.device=gpu"], "engine.device = 'gpu': torch cannot use it on this machine"),
        (["--set", "engine.device=cuda:64"], "engine.device = 'cuda:64': torch cannot use it on this machine"),
        (["--set", "engine.device=meta"], "engine.device = 'meta': torch cannot use it on this machine"),
        (["--set", "seed"], "--set seed: write section.key=value"),
        (["absent.toml"], "cannot read absent.toml: No such file or directory"),
        (["--resume", "absent"], "absent holds no run to resume"),
        (["--resume", "absent", "--seed", "1", "--set", "seed=2"], "leave out --seed"),
        (["--resume", "absent", "--preset", "fedqs-reference"], "leave out --preset"),
        (
            ["--preset", "fedqs-refrence"],
            "no preset 'fedqs-refrence' (did you mean 'fedqs-reference'?); known: ",
        ),
        (
            ["mine.toml", "--preset", "fedqs-reference"],
            "is an experiment by itself; leave out mine.toml",
        ),
        (
            ["--preset", "fedqs-reference", "--set", "strategy.name=fedbuff"],
            "preset fedqs-reference: strategy.updates is not a key of 'fedbuff'",
        ),
        (
            ["--set", "strategy.profile=ref"],
            "--set strategy.profile=ref: strategy.profile = 'ref' is no longer an option: leave it out. In a file that "
            "spells out every option, these say all, and 'paper' was the default; what 'ref' stood for is a preset, "
            "fedmtl run --preset fedqs-reference",
        ),
        (["--sed", "1"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_and_nothing_is_written(here: Path, arguments: list[str], says: str) -> None:
    assert_refused(["run", *arguments], here, says)


def test_a_mistake_in_a_file_names_the_file(here: Path) -> None:
    (here / "broken.toml").write_text("seed = 1\n\n[data\nclients = 3\n")
    assert_refused(["run", "broken.toml"], here, "broken.toml is not a valid TOML file", "line 3")
    (here / "wrong.toml").write_text("[strategy]\nbufer_size = 3\n\n[engine]\nworkers = 'inline'\n")
    assert_refused(["run", "wrong.toml"], here, "wrong.toml: strategy.bufer_size is not a key")
    assert_refused(
        ["run", "wrong.toml", "--set", "model.hiden=[3]"], here, "--set model.hiden=[3]: model.hiden is not a"
    )
    (here / "type.toml").write_text("[data]\nclients = 'many'\n")
    assert_refused(["run", "type.toml"], here, "type.toml: data.clients = 'many': should be a whole number")


def test_a_directory_that_holds_a_run_is_left_alone(finished: Path) -> None:
    assert_refused(["run", *SMALL, "--out", finished], finished, "already holds a run (finished)", "--overwrite")
    assert_refused(["run", "--resume", finished], finished, "is finished; there is nothing to resume")
    longer = ["run", "--resume", finished, "--set", "stop.versions=99"]
    assert_refused([*longer, "--set", "data.clients=3"], finished, "--set data.clients=3: a run that goes on computes")
    assert_refused([*longer, "--set", "stop.updates=1"], finished, "has got there already: 1 updates arrived")


def test_overwrite_replaces_a_run(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(plain, out)
    assert fedmtl("run", *PLAIN, "--seed", "1", "--out", out, "--overwrite").exit_code == 0
    assert (out / "updates.parquet").read_bytes() != (plain / "updates.parquet").read_bytes()


def test_what_is_no_directory_and_no_run_is_left_alone(here: Path) -> None:
    (here / "file").write_text("mine")
    assert_refused(["run", *SMALL, "--out", "file"], here, "file is a file, not a directory")
    (here / "full").mkdir()
    (here / "full" / "thesis.tex").write_text("mine")
    assert_refused(["run", *SMALL, "--out", "full"], here, "full is not empty and holds no run")
    assert_refused(["run", *SMALL, "--out", "full", "--overwrite"], here, "full is not empty and holds no run")


def test_strategies_are_listed_by_family_with_parts_defaults_and_paper() -> None:
    result = fedmtl("strategies")
    assert result.exit_code == 0
    families = ["synchronous", "asynchronous", "semi-asynchronous"]
    assert [line.strip() for line in result.stdout.splitlines() if line.strip() in families] == families
    assert re.search(
        r"^ +fedqs +FedQS: .* 2510\.07664 *\n +Buffered x Gradient\(.*\) x FedQSPolicy *\n +buffer_size 10, tick 1, ",
        result.stdout,
        re.MULTILINE,
    )
    for name in ("fedqs", "fedavg", "fedbuff", "fedasync"):
        assert re.search(rf"^ +{name} +\S", result.stdout, re.MULTILINE)


def test_a_strategy_is_shown_with_family_paper_parts_and_each_options_default_range_meaning_and_origin() -> None:
    result = fedmtl("strategies", "fedqs")
    assert result.exit_code == 0
    assert re.search(r"^family +semi-asynchronous *$", result.stdout, re.MULTILINE)
    assert re.search(r'^paper +"FedQS: Optimizing .*" \(arXiv 2510.07664\)', result.stdout, re.MULTILINE)
    assert re.search(
        r"^parts +Buffered x Gradient\(FedQSWeights\(Uniform\)\) x FedQSPolicy x ", result.stdout, re.MULTILINE
    )
    assert re.search(r"^ +buffer_size +10 +whole number, >= 1 +K, ", result.stdout, re.MULTILINE)
    assert re.search(r"^ +aggregation +\"gradient\" +'gradient' or 'model' .* paper", result.stdout, re.MULTILINE)


def test_an_unknown_strategy_is_told(here: Path) -> None:
    assert_refused(["strategies", "fedqss"], here, "'fedqss' is unknown (did you mean 'fedqs'?)")


def test_the_partition_is_shown_and_drawn(here: Path) -> None:
    result = fedmtl("partition", "--set", "data.clients=12", "--set", "data.alpha=0.1", "--clients", "3")
    assert result.exit_code == 0
    rows = re.findall(r"^ +(\d+|all) +([\d· ]+?) +(\d+) *$", result.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["0", "1", "2", "all"]
    for _, cells, total in rows:
        assert sum(int(cell) for cell in cells.split() if cell != "·") == int(total)
    assert "12 clients with " in result.stdout
    assert (here / "partition.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [120, 60, 40])
def test_numbers_of_a_partition_are_whole_at_any_width(width: int) -> None:
    console = Console(file=StringIO(), width=width)
    counts = np.full((30, 10), 123)
    console.print(_partition_table(counts, "digit", 2, console))
    text = console.file.getvalue()
    assert "…" not in text
    *_, every = [line.split() for line in text.splitlines() if line.strip().startswith("all")]
    assert every[-1] == "36900"
    assert every.count("3690") == text.count("3690 ") > 2
    assert ("..." in every) == (every.count("3690") < 10)


def test_a_partition_less_skewed_is_nearer_to_the_whole(here: Path) -> None:
    def distance(alpha: str) -> float:
        result = fedmtl("partition", "--set", "data.clients=12", "--set", f"data.alpha={alpha}")
        return float(re.findall(r"^ +digit +12 +(0\.\d+) \(", result.stdout, re.MULTILINE)[0])

    assert distance("100.0") < distance("0.1")


def test_a_statistic_without_meaning_is_a_dash_and_says_why(here: Path) -> None:
    result = fedmtl("partition", "--set", 'tasks.names=["ink"]', "--set", "data.clients=12", "--out", "t.csv")
    assert result.exit_code == 0
    assert "12 clients with " in result.stdout
    assert re.search(r"^ +ink +12 +- +- +- +0\.\d\d \(\d\.\d\d\) +0\.\d+ *$", result.stdout, re.MULTILINE)
    assert "- every task: no total variation distance, Jensen-Shannon divergence, effective number of classes: a " in (
        result.stdout
    )
    assert "classes on a client" not in result.stdout


def test_the_table_of_a_partition_holds_every_client(here: Path) -> None:
    settings = ["--set", "data.clients=12", "--set", "data.shift=rotation"]
    result = fedmtl("partition", *settings, "--clients", "2", "--out", "t.csv", "--out", "P.PNG")
    assert result.exit_code == 0
    assert "each client's features are shifted: images turned by -37.5 to 45 degrees" in result.stdout
    assert (here / "P.PNG").read_bytes().startswith(b"\x89PNG")
    assert not (here / "partition.png").exists()
    with (here / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["client"] for row in rows] == [str(client) for client in range(12)]
    assert max(float(row["rotation"]) for row in rows) == 45
    for row in rows:
        assert sum(int(row[f"digit={label}"]) for label in range(10)) == int(row["examples"])
        assert 0 <= float(row["digit/total_variation"]) <= 1
    assert "ink/total_variation" not in rows[0]
    # The printed mean over clients is that of the table.
    mean = np.mean([float(row["digit/jensen_shannon"]) for row in rows])
    assert re.search(rf"^ +digit +12 .* {mean:.2f} \(", result.stdout, re.MULTILINE)


def test_gradients_of_clients_are_compared_when_asked_for(here: Path) -> None:
    result = fedmtl("partition", "--set", "data.clients=6", "--gradients", "--out", "t.csv")
    assert result.exit_code == 0
    rows = re.findall(r"^ +([a-z ]+?) +6 +[\d.]+ +([\d.]+) +[\d.]+ *$", result.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == ["digit", "parity", "ink", "asymmetry", "all tasks"]
    assert all(float(b) > 1 for _, b in rows)
    alone = fedmtl("partition", "--set", "data.clients=1", "--gradients", "--out", "t.csv")
    assert "- every task: no B, sigma: its one client has no other to be compared with" in alone.stdout


def test_partition_refuses_what_it_cannot_write_before_it_reads_any_data(here: Path) -> None:
    assert_refused(
        ["partition", "--out", "t.csv", "--out", "picture.jpg"],
        here,
        "--out picture.jpg: give a name that ends in .png (heat map) or .csv (table)",
    )
    assert not list(here.iterdir())


def test_devices_are_shown(here: Path) -> None:
    result = fedmtl("devices", "--set", "devices.ratio=20")
    assert result.exit_code == 0
    assert re.search(r"clients +100\b", result.stdout)
    assert re.search(r"slowest / fastest +20\b", result.stdout)
    shown = re.findall(r"^ +[\d.]+ to [\d.]+ +(\d+)", result.stdout, re.MULTILINE)
    assert sum(map(int, shown)) == 100
    assert not list(here.iterdir())


@pytest.mark.slow
def test_a_report_is_made_anew(finished: Path) -> None:
    (finished / "report.html").unlink()
    result = fedmtl("report", finished)
    assert result.exit_code == 0
    assert (finished / "report.html").is_file()


@pytest.mark.slow
def test_a_report_makes_the_formats_that_are_asked_for(finished: Path) -> None:
    plots = finished / "plots"
    assert {path.suffix for path in plots.iterdir()} == {".png"}
    assert fedmtl("report", finished, "--format", "svg,pdf").exit_code == 0
    names = {path.stem for path in plots.iterdir()}
    assert {path.name for path in plots.iterdir()} == {f"{n}.{kind}" for n in names for kind in ("png", "svg", "pdf")}
    for path in (*plots.glob("*.svg"), *plots.glob("*.pdf")):
        path.unlink()


def test_an_unknown_format_and_an_unknown_ranking_are_refused(finished: Path, here: Path) -> None:
    assert_refused(["report", str(finished), "--format", "png,jpg"], here, "'jpg' is no format of pictures")
    assert_refused(["compare", str(finished), str(finished), "--by", "luck"], here, "mean, last, best, time")


@pytest.mark.slow
def test_a_run_makes_the_pictures_that_its_records_name_or_none(here: Path) -> None:
    small = [*TWO, "--set", "data.clients=4", "--set", "stop.versions=2", "--set", "strategy.buffer_size=2"]
    assert fedmtl("run", *small, "--set", 'records.pictures=["svg"]', "--out", "vectors").exit_code == 0
    assert {path.suffix for path in (here / "vectors/plots").iterdir()} == {".svg"}
    assert fedmtl("run", *small, "--set", "records.pictures=[]", "--out", "bare").exit_code == 0
    assert not (here / "bare/plots").exists()
    assert "<img" not in (here / "bare/report.html").read_text()
    assert_refused(["run", *small, "--set", 'records.pictures=["gif"]', "--out", "none"], here, "records.pictures")


def test_what_is_no_run_has_no_report(here: Path) -> None:
    assert_refused(["report", "absent"], here, "absent")
    (here / "empty").mkdir()
    assert_refused(["report", "empty"], here, "empty holds no finished run")


@pytest.mark.slow
def test_runs_are_compared(finished: Path, here: Path) -> None:
    assert fedmtl("run", *PLAIN, *TWO, "--seed", "1", "--out", "other").exit_code == 0
    result = fedmtl("compare", finished, "other", "--target", "digit=0.1")
    assert result.exit_code == 0
    assert re.search(r"^ +small +other *$", result.stdout, re.MULTILINE)
    assert "digit: time to 0.1" in result.stdout
    assert list((here / "comparison").glob("*.png"))


def test_a_comparison_that_cannot_be_made_is_refused(finished: Path, here: Path) -> None:
    assert_refused(["compare", finished], here, "two")
    assert_refused(["compare", finished, "absent"], here, "absent")
    assert_refused(["compare", finished, finished, "--target", "digit"], here, "write TASK=VALUE")
    assert_refused(["compare", finished, finished, "--target", "digit=nan"], here, "write TASK=VALUE")


def test_the_version_is_printed() -> None:
    result = fedmtl("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"fedmtl \d+\.\d+\.\d+\n", result.stdout)


@pytest.mark.slow
def test_baselines_are_trained_with_the_run_and_shown_beside_it(here: Path) -> None:
    result = fedmtl("run", *PLAIN, *TWO, "--baselines", "--out", "runs/both")
    assert result.exit_code == 0, result.output
    for place, task in enumerate(("digit", "ink"), start=1):
        assert f"single-task baseline {place} of 2: {task}" in result.stdout
        assert re.search(rf"^ +{task} .*\d\.\d{{4}} +[+-][\d.]+ %", result.stdout, re.MULTILINE)
    assert re.search(r"delta-m [+-][\d.]+ % by metric, [+-][\d.]+ % by task \(lower is better\)", result.stdout)
    assert "Against single-task models" in (here / "runs/both/report.html").read_text()
    again = fedmtl("run", *PLAIN, *TWO, "--set", "balancing.name=equal", "--baselines", "--out", "runs/equal")
    assert "single-task baseline" not in again.stdout
    assert "delta-m by metric" in fedmtl("compare", "runs/both", "runs/equal").stdout


def test_what_can_have_no_baselines_is_refused(here: Path) -> None:
    assert_refused(["run", *SMALL, "--set", 'tasks.names=["ink"]', "--baselines"], here, "one task, 'ink'")
    assert_refused(["run", "--resume", "x", "--baselines"], here, "leave out --baselines")


def test_presets_are_listed_and_printed_to_the_letter(here: Path) -> None:
    listed = fedmtl("presets")
    assert re.search(r"^ *fedqs-reference +FedQS with every fault of its authors' code", listed.stdout, re.MULTILINE)
    printed = fedmtl("presets", "fedqs-reference").stdout
    assert printed == (ROOT / "simulations/presets/fedqs-reference.toml").read_text()
    assert_refused(["presets", "fedqs"], here, "did you mean 'fedqs-reference'?")


def test_a_preset_is_run_and_looked_at_with_what_is_set_beside_it(here: Path) -> None:
    few = ["--preset", "fedqs-reference", "--set", "stop.versions=2", "--set", "model.name=linear", "--seed", "1"]
    assert fedmtl("run", *few, "--set", "records.pictures=[]").exit_code == 0
    text = (here / "runs/fedqs-reference/experiment.toml").read_text()
    for line in ('updates = "ref_overwrite"', 'tiny_clients = "ref_drop_last"', "versions = 2", "seed = 1"):
        assert line in text
    assert "20 clients with" in fedmtl("partition", *few).stdout
    assert "seconds of a plain order" in fedmtl("devices", *few).stdout
    own = fedmtl("presets", "fedqs-reference").stdout.replace("versions = 300", "versions = 1")
    (here / "own.toml").write_text(own.replace("lenet", "linear"))
    assert fedmtl("run", "own.toml", "--set", "records.pictures=[]", "--out", "runs/own").exit_code == 0


def test_what_was_meant_is_told_with_the_command_for_it(here: Path, finished: Path) -> None:
    assert_refused(["run", "fedqs-reference"], here, "is run with fedmtl run --preset fedqs-reference")
    assert_refused(["run", "quick"], here, "the study of that name is run with fedmtl study quick")
    assert_refused(["partition", "quick"], here, "the study of that name")
    assert_refused(["presets", "quick"], here, "quick is a study, not a preset: run it with fedmtl study quick")
    (here / "study.toml").write_text('[axes.strategy.FedQS.strategy]\nname = "fedqs"\n')
    assert_refused(["run", "study.toml"], here, "study.toml is a study, not an experiment: run it with fedmtl study")
    (here / "own.toml").write_text("seed = 1\n[data]\nclients = 3\n")
    assert_refused(["study", "own.toml"], here, "own.toml is an experiment, not a study: run it with fedmtl run")
    assert_refused(["run", finished], here, "is a directory; to go on with its run, use --resume")
    shutil.copytree(finished, here / "unfinished")
    (here / "unfinished/summary.json").unlink()
    for command in (["report"], ["compare", finished], ["ntk", "--run"]):
        assert_refused([*command, "unfinished"], here, "fedmtl run --resume unfinished")


def test_a_folder_that_is_called_like_a_study_that_ships_does_not_hide_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `strategies` does, in a checkout."""
    monkeypatch.chdir(here)
    (here / "strategies").mkdir()
    assert study_file(Path("strategies")).name == "strategies.toml"
    (here / "strategies.toml").write_text("")
    assert study_file(Path("strategies.toml")) == Path("strategies.toml")


def test_a_study_that_is_neither_a_file_nor_shipped_is_refused(here: Path) -> None:
    shipped = "those that ship with FedMTL: balancers, fedqs-reference, quick, strategies, task-weights"
    hint = "no file quik, and no study of that name (did you mean 'quick'?)"
    assert_refused(["study", "quik"], here, f"{hint}; {shipped}")
    assert_refused(["study", "absent.toml"], here, "cannot read absent.toml: No such file or directory")
