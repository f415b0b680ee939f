"""The names of all configs follow the rule of docs/configs.md."""

import re
from collections import Counter

import pytest
from config_runs import CONFIG_DIR, ROOT

LEAVES = sorted(
    path.relative_to(CONFIG_DIR)
    for path in CONFIG_DIR.rglob('*.py')
    if '_base_' not in path.parts
)
WORD = '[a-z0-9]+(?:[.-][a-z0-9]+)*'
SUBJECT = f'{WORD}(?:_{WORD})?'
STAGE = '(?:_(?:stage[1-3]|pretrain|finetune|continued))?'
FORMS = {
    'recipe': rf'{WORD}{STAGE}_(?:{WORD}-)?\d+xb\d+_{SUBJECT}',
    'table': rf'table\d+_{WORD}_{SUBJECT}',
    'example': '[a-z0-9]+(?:_[a-z0-9]+)*',
}
EXAMPLES = ('quickstart', 'stories260k', 'easy_vqa')
# Examples that stand beside the recipes they show.
EXCEPTIONS = {
    'multimodal/reasoning/shapes_teacher.py': 'example',
    'multimodal/reasoning/shapes_hybrid.py': 'example',
}


def form_of(path) -> str:
    if path.as_posix() in EXCEPTIONS:
        return EXCEPTIONS[path.as_posix()]
    if set(EXAMPLES) & set(path.parts):
        return 'example'
    return 'table' if path.parent.name == 'ablations' else 'recipe'


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.as_posix())
def test_a_name_has_the_form_of_its_folder(path):
    assert re.fullmatch(FORMS[form_of(path)], path.stem)


def test_exceptions_are_needed():
    for name, form in EXCEPTIONS.items():
        path = CONFIG_DIR / name
        assert path.is_file()
        others = [f for key, f in FORMS.items() if key != form]
        assert not any(re.fullmatch(other, path.stem) for other in others)


def test_no_two_configs_share_a_work_dir():
    """It has the name of the config."""
    names = [path.stem for path in LEAVES]
    names += [path.stem for path in ROOT.glob('projects/*/configs/*.py')]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_the_documentation_shows_each_form():
    text = (ROOT / 'docs' / 'configs.md').read_text(encoding='utf-8')
    shown = re.findall(r'^\|.*\| `([^`]+)\.py` \|$', text, flags=re.MULTILINE)
    paths = {path.stem: path for path in LEAVES}
    assert [form_of(paths[name]) for name in shown] == list(FORMS)
