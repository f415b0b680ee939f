"""Settings of the documentation: sphinx-build docs docs/_build."""

from pathlib import Path

_namespace = {}
exec(
    (Path(__file__).parent.parent / 'mmtransmamba' / 'version.py').read_text(),
    _namespace,
)

project = 'mmtransmamba'
copyright = 'the mmtransmamba authors'
release = version = _namespace['__version__']

extensions = ['myst_parser', 'sphinx_copybutton', 'sphinx.ext.mathjax']
myst_enable_extensions = ['amsmath', 'colon_fence', 'dollarmath']
myst_heading_anchors = 3
source_suffix = {'.md': 'markdown'}
exclude_patterns = ['_build']

html_theme = 'sphinx_rtd_theme'
html_theme_options = {'navigation_depth': 3}
copybutton_prompt_text = '$ '
