"""The model in lmms-eval: its own interface if it is installed, else one like it."""

import abc
import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image
from tiny_vlms import save_tiny_llava

import mmtransmamba
from mmtransmamba.apis import VisionLanguageChat
from mmtransmamba.apis.lmms import manifest

MODEL = 'mmtransmamba.apis.lmms.model'
RED, BLUE = (Image.new('RGB', (20, 30), colour) for colour in ('red', 'blue'))


def fake_package():
    """The model interface of lmms-eval 0.7, as far as it is used."""

    class CacheHook:
        def add_partial(self, attr, req, res):
            pass

    class lmms(abc.ABC):
        is_simple = True

        def __init__(self):
            self._rank, self._world_size = 0, 1
            self.cache_hook = CacheHook()
            self.task_dict = {}

        @abc.abstractmethod
        def loglikelihood(self, requests):
            pass

        @abc.abstractmethod
        def generate_until(self, requests):
            pass

        @abc.abstractmethod
        def generate_until_multi_round(self, requests):
            pass

        @classmethod
        def create_from_arg_string(cls, arg_string, additional_config=None):
            pairs = (pair.split('=', 1) for pair in arg_string.split(',') if pair)
            more = {k: v for k, v in (additional_config or {}).items() if v is not None}
            return cls(**dict(pairs), **more)

        rank = property(lambda self: self._rank)
        world_size = property(lambda self: self._world_size)

        def clean(self):
            self.task_dict = None

    @dataclass(frozen=True)
    class ModelManifest:
        model_id: str
        simple_class_path: str | None = None
        chat_class_path: str | None = None
        aliases: tuple[str, ...] = ()

    modules = {
        name: ModuleType(name)
        for name in (
            'lmms_eval',
            'lmms_eval.api',
            'lmms_eval.api.model',
            'lmms_eval.models',
            'lmms_eval.models.registry_v2',
        )
    }
    modules['lmms_eval.api.model'].lmms = lmms
    modules['lmms_eval.models.registry_v2'].ModelManifest = ModelManifest
    return modules


@pytest.fixture(params=['fake', 'installed'])
def lmms_eval(request, monkeypatch):
    """The package, or what stands for it."""
    if request.param == 'installed':
        pytest.importorskip(
            'lmms_eval.models',
            reason='lmms-eval is not installed',
            exc_type=ImportError,
        )
    else:
        for name in [n for n in sys.modules if n.split('.')[0] == 'lmms_eval']:
            monkeypatch.delitem(sys.modules, name)
        for name, module in fake_package().items():
            monkeypatch.setitem(sys.modules, name, module)
    # Each interface has a class of its own.
    monkeypatch.delitem(sys.modules, MODEL, raising=False)
    yield importlib.import_module('lmms_eval')
    sys.modules.pop(MODEL, None)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return save_tiny_llava(tmp_path_factory.mktemp('llava'))


@pytest.fixture
def make(lmms_eval, folder):
    """The model that lmms-eval makes of a string of arguments."""
    module, name = manifest().chat_class_path.rsplit('.', 1)
    cls = getattr(importlib.import_module(module), name)

    def build(args='', **more):
        options = dict(batch_size=1, max_batch_size=None, device='cpu') | more
        return cls.create_from_arg_string(f'pretrained={folder}{args}', options)

    return build


DOCS = [
    [dict(type='image', url=RED), dict(type='text', text='Hi <image>')],
    'What is it?',
    [
        dict(type='image', url=RED),
        dict(type='image', url=BLUE),
        dict(type='text', text='What are these?'),
    ],
    [dict(type='image', url=BLUE), dict(type='text', text='Hi')],
]
PROMPTS = ['Hi ', 'What is it?', 'What are these?', 'Hi']
IMAGES = [[RED], [], [RED, BLUE], [BLUE]]


def to_messages(doc):
    return [dict(role='user', content=doc)]


def requests(model, *settings):
    """One for each of the documents; settings are repeated."""
    model.task_dict['task'] = dict(test=DOCS)
    return [
        SimpleNamespace(
            args=(
                'context',
                to_messages,
                settings[i % len(settings)],
                i,
                'task',
                'test',
            )
        )
        for i in range(len(DOCS))
    ]


@pytest.fixture
def chat(folder):
    return VisionLanguageChat(folder, device='cpu')


def test_manifest(lmms_eval):
    found = manifest()
    assert found.model_id == 'mmtransmamba'
    assert found.chat_class_path == f'{MODEL}.MMTransMamba'


def test_found_by_the_registry():
    pytest.importorskip(
        'lmms_eval.models', reason='lmms-eval is not installed', exc_type=ImportError
    )
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    registry = ModelRegistryV2()
    for found in registry._coerce_payload_to_manifests(manifest):
        registry.register_manifest(found)
    cls = registry.get_model_class('mmtransmamba')
    assert cls.__name__ == 'MMTransMamba'


def test_nothing_else_imports_it():
    """It is imported by the model's module alone, and by the manifest when called."""
    root = Path(mmtransmamba.__file__).parent
    at_once = [
        path.relative_to(root).as_posix()
        for path in root.rglob('*.py')
        if re.search('^(from|import) lmms_eval', path.read_text('utf-8'), re.MULTILINE)
    ]
    assert at_once == ['apis/lmms/model.py']
    source = (root / 'apis' / '__init__.py').read_text('utf-8')
    assert 'lmms' not in source


@pytest.mark.parametrize('size', [1, '3'])
def test_answers(make, chat, size):
    model = make(batch_size=size)
    assert not model.is_simple and (model.rank, model.world_size) == (0, 1)
    short, long = dict(max_new_tokens=3), dict(max_new_tokens=6, until=['\n\n'])
    answers = model.generate_until(requests(model, short, long))
    wanted = [
        chat.answer([p], [i], max_new_tokens=n)[0]
        for p, i, n in zip(PROMPTS, IMAGES, [3, 6, 3, 6], strict=True)
    ]
    assert answers == wanted


def test_answers_are_cached(make):
    model, kept = make(), []
    model.cache_hook = SimpleNamespace(add_partial=lambda *args: kept.append(args))
    answers = model.generate_until(requests(model, dict(max_new_tokens=3)))
    assert [text for *_, text in kept] == answers
    assert kept[0][:2] == ('generate_until', ('context', dict(max_new_tokens=3)))


def test_until(make, chat):
    text = chat.answer(['What is it?'], max_new_tokens=9)[0]
    end = text[3:5]
    model = make()
    settings = dict(max_new_tokens=9, until=[end], image_aspect_ratio='pad')
    answer = model.generate_until(requests(model, settings))[1]
    assert answer == text.partition(end)[0]


def test_settings_of_a_task(make):
    model = make()
    asked = dict(max_gen_toks=5, until='\n\n', image_aspect_ratio='pad', top_p=None)
    assert model._settings(asked) == dict(temperature=0, max_new_tokens=5, top_p=None)
    assert model._settings({})['max_new_tokens'] == 1024


def test_reasoning_head(make):
    """The short answers of a task do not shorten the reasoning."""
    model = make(',head=reasoning')
    asked = dict(max_new_tokens=5, until=['.'], temperature=0)
    assert model._settings(asked) == dict(temperature=0)
    assert model.chat.head.generation['max_new_tokens'] == 2048


def test_clean(make):
    model = make()
    model.clean()
    assert model.chat is None and hasattr(model, 'task_dict')


def test_processes(make, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')
    model = make()
    assert (model.rank, model.world_size) == (1, 2)
    model.clean()
    assert model.device.type == 'cpu'


def test_refusals(make):
    model = make()
    with pytest.raises(NotImplementedError, match='has no log-likelihoods'):
        model.loglikelihood([])
    with pytest.raises(NotImplementedError, match='does not answer in rounds'):
        model.generate_until_multi_round([])
    with pytest.raises(ValueError, match="batch_size must be a number, got 'auto'"):
        make(batch_size='auto')
    with pytest.raises(ValueError, match="head must be one of .* got 'x'"):
        make(',head=x')
    convert = sys.modules[MODEL].to_conversation
    with pytest.raises(ValueError, match="content of the type 'video'"):
        convert([dict(role='user', content=[dict(type='video', url='x.mp4')])])


def test_conversation_of_several_turns(make):
    """As few-shot tasks have them."""
    make()
    talk = sys.modules[MODEL].to_conversation(
        [
            dict(role='system', content='Be brief.'),
            dict(role='user', content=DOCS[0]),
            dict(role='assistant', content='Ho'),
            dict(role='user', content=DOCS[3]),
        ]
    )
    assert [turn.role for turn in talk.turns] == [
        'system',
        'user',
        'assistant',
        'user',
    ]
    assert talk.turns[3].text == '<image>\nHi'
    assert talk.images == [RED, BLUE]
