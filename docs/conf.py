"""Configuration of the documentation."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

import flwr.superlink.grid  # noqa: F401  autodoc imports with TYPE_CHECKING set, under which Flower's web parts break
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "FedMTL"
author = "the FedMTL authors"
copyright = f"2026, {author}"
release = version_of("fedmtl")
html_title = f"FedMTL {release}"

extensions = ["sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 2
html_theme = "furo"

apidoc_modules = [
    {
        "path": str(ROOT / package),
        "destination": f"api/{package}",
        "separate_modules": False,  # every page names all others, so that a page a module takes twice as long
        "module_first": True,
        "include_private": False,
        "automodule_options": {"members", "show-inheritance", "ignore-module-all"},
        "exclude_patterns": [str(ROOT / "simulations" / "cli" / "**")],
    }
    for package in ("fedmtl", "clients", "strategies", "simulations")
]
napoleon_google_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# Several classes have attributes of the same name; a bare name then leads to one of them.
suppress_warnings = ["ref.python"]


def keep_bars(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Let ``|x|`` in a docstring be mathematics, not a substitution, but in literal text, which is as it is anyway."""
    literal_from = None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip() and literal_from is not None and indent <= literal_from:
            literal_from = None
        if literal_from is None:
            parts = line.split("``")
            lines[number] = "``".join(part.replace("|", r"\|") if i % 2 == 0 else part for i, part in enumerate(parts))
            if line.rstrip().endswith("::"):
                literal_from = indent


def setup(app: Sphinx) -> None:
    """Write the page of options before the pages are read."""
    app.connect("autodoc-process-docstring", keep_bars)
    from tools.options_page import options_page

    (ROOT / "docs" / "options.md").write_text(options_page(), encoding="utf-8")
