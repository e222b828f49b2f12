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

extensions = ["sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"

apidoc_modules = [
    {
        "path": str(ROOT / package),
        "destination": f"api/{package}",
        "separate_modules": True,
        "module_first": True,
        "include_private": False,
        "automodule_options": {"members", "show-inheritance", "ignore-module-all"},
        "exclude_patterns": [str(ROOT / "fedmtl" / "cli" / "**")],
    }
    for package in ("fedmtl", "clients", "strategies", "simulations")
]
napoleon_google_docstring = False
napoleon_use_ivar = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# Several classes have attributes of the same name; a bare name then leads to one of them.
suppress_warnings = ["ref.python"]


def setup(app: Sphinx) -> None:
    """Write the page of options before the pages are read."""
    from tools.options_page import options_page

    (ROOT / "docs" / "options.md").write_text(options_page(), encoding="utf-8")
