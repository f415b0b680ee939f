"""Which part of the package may import which."""

import ast

import pytest

ORDER = {
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
"""What each part may import besides itself and what belongs to none."""


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
            if first == 'mmtransmamba' and other in ORDER.keys() - ORDER[part] - {part}:
                wrong.add((path.relative_to(root).as_posix(), module))
    assert wrong == set()


def test_every_part_has_its_place(repo_dir):
    root = repo_dir / 'mmtransmamba'
    assert {path.parent.name for path in root.glob('*/__init__.py')} == set(ORDER)
