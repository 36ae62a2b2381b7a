"""Sphinx configuration: `make docs`."""

import ldlcam

project = "ldlcam"
author = "The ldlcam developers"
version = release = ldlcam.__version__
copyright = author

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
# Docstrings put code into single backticks.
default_role = "code"

myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"ldlcam {version}"
