"""The site that `make docs` makes of these pages; what is done to them is in site/pages.py."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "site"))

from ddpm_ip import __version__

project = "ddpm-ip"
author = "The ddpm-ip authors"
copyright = "The ddpm-ip authors; Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "pages"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["site"]
source_url = os.environ.get("SOURCE_URL", "")  # such as https://HOST/OWNER/ddpm-ip/blob/main; see site/pages.py

myst_enable_extensions = ["deflist", "tasklist"]
myst_heading_anchors = 4  # the same as GitHub's

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"npt.ArrayLike": "numpy.typing.ArrayLike"}
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 88
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "ddpm-ip"
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
highlight_language = "none"  # of a block that names no language
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1a56a0", "color-brand-content": "#1a56a0"},
    "dark_css_variables": {"color-brand-primary": "#8ab8f0", "color-brand-content": "#8ab8f0"},
}
