"""Every tool starts fast, needs no installation, and reports errors in one line."""

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmtransmamba.utils import choices

ROOT = Path(__file__).resolve().parents[2]
TOOLS = sorted(
    path.relative_to(ROOT / 'tools').as_posix()
    for path in (ROOT / 'tools').rglob('*.py')
    if not path.name.startswith('_')
)
HEAVY = {'torch', 'mmengine', 'mmcv', 'mmpretrain', 'transformers', 'numpy', 'PIL'}
SECONDS = 5  # under the load of a whole test run; alone it takes a fraction of one


def start(*command, folder, **options):
    """Run Python as on a machine where the package is not installed."""
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


@pytest.mark.parametrize('name', TOOLS)
def test_help_comes_at_once(name, tmp_path):
    """Before anything that takes long to import."""
    script = ROOT / 'tools' / name
    code = (
        'import atexit, json, runpy, sys\n'
        f'sys.argv = [{str(script)!r}, "--help"]\n'
        f'sys.path[0] = {str(script.parent)!r}\n'
        'atexit.register(lambda: print(json.dumps(list(sys.modules)), file=sys.stderr))'
        f'\nrunpy.run_path({str(script)!r}, run_name="__main__")\n'
    )
    begin = time.perf_counter()
    done = start('-c', code, folder=tmp_path)
    seconds = time.perf_counter() - begin
    assert done.returncode == 0, done.stderr
    assert '--debug' in done.stdout and 'usage:' in done.stdout
    assert HEAVY & set(json.loads(done.stderr)) == set()
    assert seconds < SECONDS


@pytest.mark.parametrize('name', TOOLS)
def test_runs_from_a_checkout_and_names_an_unknown_option(name, tmp_path):
    # -S: without the site-packages, so without an installation of the package, too.
    done = start('-S', ROOT / 'tools' / name, '--no-such-option', folder=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(Path(name).name) and ': error: ' in line


@pytest.mark.parametrize('name', TOOLS)
def test_is_a_command_that_ends_in_one_line(name):
    tree = ast.parse((ROOT / 'tools' / name).read_text('utf-8'))
    (main,) = (
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == 'main'
    )
    (decorator,) = main.decorator_list
    assert decorator.func.id == 'tool'


def test_the_folders_share_one_start():
    forwards = sorted((ROOT / 'tools').glob('*/_tool.py'))
    assert [path.parent.name for path in forwards] == [
        *('analysis_tools', 'benchmarks', 'dataset_converters', 'studies')
    ]
    assert len({path.read_text() for path in forwards}) == 1


def test_offered_names_are_those_of_the_package():
    from mmtransmamba.evaluation.vlm import BENCHMARKS
    from mmtransmamba.registry import DECODER_MIXERS, ENCODER_MIXERS
    from mmtransmamba.utils import launch

    assert choices.VLM_BENCHMARKS == tuple(BENCHMARKS)
    DECODER_MIXERS.import_from_location()
    mixers = DECODER_MIXERS.module_dict.values()
    assert set(choices.INITS) == {init for mixer in mixers for init in mixer.inits}
    ENCODER_MIXERS.import_from_location()
    mixers = ENCODER_MIXERS.module_dict.values()
    inits = {init for mixer in mixers for init in mixer.inits}
    assert set(choices.ENCODER_INITS) == inits
    assert choices.LAUNCHERS == ('none', *launch._RANK_VARIABLES)


@pytest.mark.parametrize('name', TOOLS)
def test_outputs_are_tried_before_anything_else_happens(name):
    """By the option's type, which argparse applies to defaults that are text."""
    tree = ast.parse((ROOT / 'tools' / name).read_text('utf-8'))
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        if getattr(call.func, 'attr', '') != 'add_argument':
            continue
        first = getattr(call.args[0], 'value', None)
        if first not in ('--out', '--out-dir', '--work-dir', '--csv', '--plots'):
            continue
        given = {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert given.get('type') in ('out_file', 'out_folder'), first
        assert 'Path(' not in given.get('default', ''), first
