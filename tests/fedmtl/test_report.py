"""The report of a run: complete, self-contained, safe."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedmtl.errors import RunDirectoryError
from fedmtl.plots import PLOTS
from fedmtl.records import read_summary
from fedmtl.records.single_task import SINGLE_TASK, against_single_task
from fedmtl.report import write_report
from fedmtl.tasks import Task

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def directory(make_run: MakeRun) -> Path:
    tasks = [Task("digit", "classification", 10), Task("ink", "regression")]
    run = make_run("reported", tasks, clients=12, versions=40, convergence=True)
    (run / "experiment.toml").write_text('name = "<b>&reported"\n\n[devices]\nkind = "uniform"\nratio = 50\n')
    assert write_report(run) == run / "report.html"
    return run


@pytest.fixture(scope="module")
def page(directory: Path) -> str:
    return (directory / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Collects start tags, and checks that elements are closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.slow
def test_the_page_is_well_formed_and_needs_nothing_but_itself(page: str) -> None:
    tags = Tags(page)
    assert tags.open == []
    assert not {tag for tag, _ in tags.found} & {"script", "link", "iframe", "object"}
    references = [
        value for _, attributes in tags.found for name, value in attributes.items() if name in ("src", "href")
    ]
    assert references
    assert all(value is not None and value.startswith("data:image/png;base64,") for value in references)
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_holds_every_plot_as_it_was_drawn(page: str, directory: Path) -> None:
    inside = [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert inside == [(directory / "plots" / f"{plot.name}.png").read_bytes() for plot in PLOTS]


def test_the_page_says_over_which_evaluations_means_are(page: str) -> None:
    assert "Means are over versions 21 to 39, 7 evaluations." in page


@pytest.mark.slow
def test_a_page_holds_vectors_where_those_alone_are_asked_for_and_names_what_it_cannot_hold(make_run: MakeRun) -> None:
    run = make_run("vectors", clients=5, versions=6, typed=False, balanced=False, setting=False, kernels=False)
    text = 'name = "vectors"\n[records]\npictures = '
    (run / "experiment.toml").write_text(text + '["svg"]\n')
    page = write_report(run).read_text(encoding="utf-8")
    assert page.count('src="data:image/svg+xml;base64,') == len(list((run / "plots").iterdir())) == 3
    assert Tags(page).open == []
    shutil.rmtree(run / "plots")
    page = write_report(run, formats=["pdf"]).read_text(encoding="utf-8")
    assert "<img" not in page
    assert "plots/metrics.pdf: " in page
    (run / "experiment.toml").write_text(text + "[]\n")
    shutil.rmtree(run / "plots")
    write_report(run)  # asked for by hand: the usual pictures
    assert (run / "plots" / "metrics.png").is_file()


def test_the_page_says_how_the_run_ended_and_what_it_reached(page: str) -> None:
    for text in ("reported", "40 versions were made", "fedqs", "Updates rejected", "accuracy (higher is better)"):
        assert text in page


def test_the_configuration_is_shown_as_text(page: str) -> None:
    assert "name = &quot;&lt;b&gt;&amp;reported&quot;" in page
    assert "<b>" not in page


def test_a_run_without_configuration_is_refused_and_leaves_no_page(make_run: MakeRun) -> None:
    run = make_run("without", versions=12)
    (run / "experiment.toml").unlink()
    with pytest.raises(RunDirectoryError, match=r"experiment\.toml"):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.slow
def test_a_browser_opens_the_page_and_decodes_every_image(directory: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.fail("this test needs a browser: install Chromium, on Debian and Ubuntu with apt-get install chromium")
    # The page itself has no script; this one is added to a copy, to ask the browser what it made of the images.
    probe = (
        "<script>addEventListener('load', () => { const images = [...document.images];"
        "document.title = 'complete ' + images.filter(i => i.complete && i.naturalWidth === 1200).length"
        " + ' of ' + images.length; })</script></body>"
    )
    copy = tmp_path / "report.html"
    copy.write_text((directory / "report.html").read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", copy.as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert f"<title>complete {len(PLOTS)} of {len(PLOTS)}</title>" in page


def test_single_task_models_are_told_of_where_the_run_has_them(make_run: MakeRun) -> None:
    run = make_run("balanced", versions=12)
    summary = read_summary(run)
    assert "single-task" not in write_report(run, formats=()).read_text(encoding="utf-8")
    single_task = {task["name"]: {"value": task["mean_of_last"] / 2, "directory": ""} for task in summary["tasks"]}
    summary[SINGLE_TASK] = against_single_task(summary, single_task)
    page = write_report(run, summary, ()).read_text(encoding="utf-8")
    assert "<h2>Against single-task models</h2>" in page
    # Twice the accuracy is 100 % better, twice the error 100 % worse: two of each make nothing.
    assert page.count("-100.00 %") == page.count("+100.00 %") == 2
    assert "Delta-m: +0.00 % by metric, +0.00 % by task" in page


def test_a_single_task_value_of_nothing_is_a_problem_that_is_told(make_run: MakeRun) -> None:
    run = make_run("none", versions=12)
    summary = read_summary(run)
    single_task = {task["name"]: {"value": float(task["name"] != "ink"), "directory": ""} for task in summary["tasks"]}
    found = against_single_task(summary, single_task)
    assert found["delta_m"] is found["delta_m_by_task"] is found["tasks"]["ink"]["change"] is None
    assert found["tasks"]["digit"]["change"] is not None
    page = write_report(run, summary | {SINGLE_TASK: found}, ()).read_text(encoding="utf-8")
    assert "no delta-m: ink, mse: the baseline is 0.0" in page
