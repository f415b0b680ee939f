"""Settings of the documentation: sphinx-build docs docs/_build."""

import re
import shutil
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
myst_enable_extensions = ['amsmath', 'colon_fence', 'deflist', 'dollarmath']
myst_heading_anchors = 3
source_suffix = {'.md': 'markdown'}
exclude_patterns = ['_build']

html_theme = 'sphinx_rtd_theme'
html_theme_options = {'navigation_depth': 3}
copybutton_prompt_text = '$ '

# Pages link to READMEs of the source tree, which are not pages of the site: the site
# gets copies of them, as text.
_DOCS = Path(__file__).resolve().parent
_LINK = re.compile(r'\]\(((?:\.\./)+[^)#\s]+)\)')
_linked = set()
myst_url_schemes = {
    'http': None,
    'https': None,
    'mailto': None,
    'copy': 'source/{{path}}.txt',
    'copy-above': '../source/{{path}}.txt',
}


def _link_to_copies(app, name, source):
    page = _DOCS / f'{name}.md'

    def replace(match):
        target = (page.parent / match[1]).resolve()
        if _DOCS in target.parents or not target.is_file():
            return match[0]
        path = target.relative_to(_DOCS.parent).as_posix()
        _linked.add(path)
        return f'](copy{"-above" if "/" in name else ""}:{path})'

    source[0] = _LINK.sub(replace, source[0])


def _copy_linked(app, exception):
    for path in _linked if exception is None else ():
        copy = Path(app.outdir) / 'source' / f'{path}.txt'
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_DOCS.parent / path, copy)


def setup(app):
    app.connect('source-read', _link_to_copies)
    app.connect('build-finished', _copy_linked)
