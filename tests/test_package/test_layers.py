"""Which part of the package may import which."""

import ast

import pytest

ORDER = {
    'compat': set(),
    'ops': set(),
    'utils': {'ops'},
    'datasets': {'utils'},
    'models': {'ops', 'utils'},
    'visualization': {'utils'},
    'evaluation': {'utils', 'visualization'},
    'transfer': {'models', 'ops', 'utils'},
    'engine': {'models', 'transfer', 'utils', 'visualization'},
    'apis': {
        'datasets',
        'engine',
        'evaluation',
        'models',
        'ops',
        'transfer',
        'utils',
        'visualization',
    },
}
"""What each part may import besides itself, compat and what belongs to none."""


def imported_by(path, root):
    """Modules that a file imports, at its top or within a function."""
    package = ('mmtransmamba', *path.relative_to(root).parent.parts)
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = '.'.join([*above, *filter(None, [node.module])])
            yield from (f'{module}.{name.name}' for name in node.names)


@pytest.mark.parametrize('part', ORDER)
def test_imports_go_one_way(part, repo_dir):
    root = repo_dir / 'mmtransmamba'
    wrong = set()
    for path in (root / part).rglob('*.py'):
        for module in imported_by(path, root):
            first, _, rest = module.partition('.')
            other = rest.partition('.')[0]
            allowed = {part, 'compat'} | ORDER[part]
            if first == 'mmtransmamba' and other in ORDER.keys() - allowed:
                wrong.add((path.relative_to(root).as_posix(), module))
    assert wrong == set()


def test_every_part_has_its_place(repo_dir):
    root = repo_dir / 'mmtransmamba'
    assert {path.parent.name for path in root.glob('*/__init__.py')} == set(ORDER)


ROOMS = {
    'backbones': {'mixers'},
    'mixers': set(),
    'language': {'mixers'},
    'vision': {'language'},
    'multimodal': {'language', 'vision'},
    'folders': {'language', 'multimodal', 'vision'},
    'teachers': {'folders'},
    'retrieval': {'backbones', 'folders', 'mixers', 'teachers'},
    'trainable': {'folders', 'language', 'multimodal', 'teachers', 'vision'},
}
"""What each room of the models may import besides itself and what is in none."""


@pytest.mark.parametrize('room', ROOMS)
def test_rooms_of_the_models_import_one_way(room, repo_dir):
    root = repo_dir / 'mmtransmamba'
    wrong = set()
    for path in (root / 'models' / room).rglob('*.py'):
        for module in imported_by(path, root):
            if not module.startswith('mmtransmamba.models.'):
                continue
            other = module.split('.')[2]
            if other in ROOMS.keys() - ROOMS[room] - {room}:
                wrong.add((path.relative_to(root).as_posix(), module))
    assert wrong == set()


def test_every_room_of_the_models_has_its_place(repo_dir):
    rooms = (repo_dir / 'mmtransmamba' / 'models').glob('*/__init__.py')
    assert {path.parent.name for path in rooms} == set(ROOMS)


PRIVATE = {
    '_accumulative_counts',
    '_channel_conversion',
    '_enable_normalize',
    '_get_active_ddp_module',
    '_inner_count',
    '_load_state_dict_pre_hooks',
    '_resume',
}
"""Names that PyTorch and mmengine do not make public."""


def test_private_names_of_libraries_are_read_in_one_place(repo_dir):
    root = repo_dir / 'mmtransmamba'
    found = set()
    for path in root.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text('utf-8'))):
            name = getattr(node, 'attr', getattr(node, 'value', None))
            if isinstance(name, str) and name in PRIVATE:
                found.add((path.relative_to(root).as_posix(), name))
    assert {name for _, name in found} == PRIVATE
    assert {path for path, _ in found} == {'compat/private.py'}
