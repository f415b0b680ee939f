"""Recipes as files, and what follows from the budget."""

import pytest
from transformers import LlamaConfig

from mmtransmamba.apis.configs import config_folder
from mmtransmamba.apis.recipes.plan import make_plan
from mmtransmamba.apis.recipes.recipe import FOLDER, read_recipe
from mmtransmamba.apis.recipes.request import Request, rows_of, scaled_lr
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.convert import Conversion
from mmtransmamba.utils.choices import RECIPES

BASE = f"_base_ = '{config_folder()}/{FOLDER}/mmmamba.py'\n"


def test_the_recipes_are_the_files():
    files = {path.stem for path in (config_folder() / FOLDER).glob('*.py')}
    assert files == set(RECIPES) and list(RECIPES) == sorted(RECIPES)


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_names_its_source_and_what_exists(name):
    text = (config_folder() / FOLDER / f'{name}.py').read_text()
    assert text.startswith('# ') and 'arXiv:' in text
    recipe = read_recipe(name)
    for stage in recipe.stages:
        for term in stage.terms.values():
            MODELS.build(dict(term))
    conversion = Conversion(**recipe.convert, calibration='text.txt')
    assert conversion.mixer_type


class Text:
    """Text of any length."""

    block, tokens, held_out = 512, 10**9, 64

    def train(self, length):
        assert length >= 2


def planned(name, tokens=5_000_000, context=2048, width=2048, calibrated=False):
    config = LlamaConfig(max_position_embeddings=context, hidden_size=width)
    request = Request('teacher', 'data', 'out', name, tokens)
    return make_plan(request, read_recipe(name), Text(), config, calibrated)


def test_the_shares_are_those_of_the_papers():
    """Steps of 128, 128 and 64; 100M and 500M; 100M and 600M after calibration."""
    for name, shares in (
        ('mmmamba', [0.4, 0.4, 0.2]),
        ('matvlm', [1.0]),
        ('radlads', [1 / 6, 5 / 6]),
        ('calibrated', [1 / 7, 6 / 7]),
    ):
        plan = planned(name)
        whole = sum(stage.tokens for stage in plan.stages)
        found = [stage.tokens / whole for stage in plan.stages]
        assert found == pytest.approx(shares, rel=0.02)
        assert plan.tokens == pytest.approx(5_000_000, rel=0.01)


def test_calibration_is_a_part_of_the_budget_up_to_a_limit():
    small, large = (
        planned('calibrated', tokens, calibrated=True) for tokens in (10**6, 10**9)
    )
    assert small.calibration_work == pytest.approx(10**5, rel=0.02)
    assert large.calibration_steps == 300
    for plan, tokens in ((small, 10**6), (large, 10**9)):
        assert plan.tokens == pytest.approx(tokens, rel=0.01)


def test_a_curriculum_of_lengths_is_cut_at_the_context():
    plan = planned('radlads_long', context=8192)
    names = [stage.name for stage in plan.stages]
    assert names == ['align', 'kl', 'long-2048', 'long-4096', 'long-8192']
    assert 'context of the teacher, 8,192' in str(plan)
    for stage in plan.stages:
        assert stage.rows * stage.length in (16 * 512, 8192)
        assert stage.rows % stage.accumulate == 0
    assert [s.name for s in planned('radlads_long', context=1024).stages][2:] == [
        'long'
    ]


@pytest.mark.parametrize(
    ('tokens', 'rows'), [(1, 1), (61_000, 1), (5_000_000, 16), (500_000_000, 128)]
)
def test_the_batch_grows_with_the_root_of_the_budget(tokens, rows):
    assert rows_of(tokens, 512) == rows
    assert rows_of(10**13, 512) == 128


@pytest.mark.parametrize(
    ('lr', 'source', 'width', 'expected'),
    [
        (5e-5, 2048, 2048, 5e-5),
        (5e-5, 2048, 512, 2e-4),
        (5e-5, 2048, 4096, 2.5e-5),
        (1e-3, 2048, 64, 2e-3),
        (1e-2, 4096, 64, 1e-2),
    ],
)
def test_the_rate_follows_the_width_up_to_a_limit(lr, source, width, expected):
    assert scaled_lr(lr, source, width) == pytest.approx(expected)


def test_a_recipe_of_ones_own_inherits(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        BASE + '_first = _base_.stages[0]\nconvert = dict(ratio=0.5)\n'
        'schedule = dict(form="cosine")\n'
        'stages = [dict(_first, adapters=dict(rank=2), lengths=[8, 16],\n'
        '    optim_wrapper=dict(optimizer=dict(weight_decay=0.0)))]\n'
    )
    recipe = read_recipe(path)
    (stage,) = recipe.stages
    assert recipe.name == 'mine' and recipe.convert['ratio'] == 0.5
    assert recipe.convert['init'] == 'mimic'
    assert stage.name == 'stage1' and stage.lengths == (8, 16)
    assert stage.schedule == dict(warmup=0.1, decay=0.1, form='cosine')
    optimizer = stage.optim_wrapper['optimizer']
    assert optimizer == dict(type='AdamW', betas=(0.9, 0.999), weight_decay=0.0)
    assert stage.optim_wrapper['clip_grad'] == dict(max_norm=5.0)


STAGE = 'dict(name="a", share=1, lr=1e-3, trains=["ssm"], terms={}'


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('width = 1\n', 'has no convert'),
        (BASE + 'stags = []\n', 'stags is unknown; accepted: calibration'),
        (BASE + 'stages = []\n', 'needs stages with different names'),
        (BASE + f'stages = [{STAGE}), {STAGE})]\n', r"not \['a', 'a'\]"),
        (BASE + 'stages = [dict(name="a")]\n', 'stage 1 has no trains'),
        (BASE + 'stages = [1]\n', 'stage 1: 1 must be a dict'),
        (BASE + f'stages = [{STAGE}, rl=1)]\n', 'stage 1: rl is unknown'),
        (BASE + f'stages = [dict({STAGE}), lr=-1)]\n', 'lr=-1 must be positive'),
        (BASE + f'stages = [dict({STAGE}), share=0)]\n', 'share=0 must be positive'),
        (
            BASE + f'stages = [dict({STAGE}), trains=["smm"])]\n',
            "trains=.'smm'. must be",
        ),
        (BASE + f'stages = [dict({STAGE}), trains="ssm")]\n', "trains='ssm' must be"),
        (BASE + 'schedule = dict(warm=1)\n', 'schedule has warm'),
        (BASE + 'schedule = dict(form="cos")\n', "form='cos' must be one of linear"),
        (BASE + 'schedule = dict(end=2)\n', r'schedule.end=2 must be in \[0, 1\]'),
        (BASE + 'calibration = dict(shares=0.5)\n', 'calibration has shares; accepted'),
        (BASE + 'calibration = dict(share=1.5)\n', 'calibration.share=1.5 must be in'),
        (BASE + 'calibration = dict(steps=0.5)\n', 'calibration.steps=0.5 must be at'),
        (BASE + 'convert = dict(ratios=1)\n', 'convert has ratios; accepted: layers'),
        (BASE + 'convert = dict(seed=1)\n', 'convert has seed; accepted: layers'),
        *(
            (BASE + f'optim_wrapper = dict({key}=1)\n', f'optim_wrapper.{key} cannot')
            for key in ('type', 'dtype', 'accumulative_counts')
        ),
        (
            BASE + 'optim_wrapper = dict(optimizer=dict(lr=1))\n',
            'stage 1: optim_wrapper.optimizer.lr cannot be set: .* the rate is the',
        ),
        (
            BASE + 'optim_wrapper = dict(_delete_=True, clip_grad=None)\n',
            'optim_wrapper has no optimizer',
        ),
        *(
            (BASE + f'stages = [dict({STAGE}), name="{name}")]\n', f'the name {name!r}')
            for name in ('converted', 'student', 'a b', '', '../a')
        ),
        *(
            (BASE + f'stages = [dict({STAGE}), name="{name}")]\n', 'must have letters')
            for name in ('a*', 'a[1]')
        ),
        ('stages = [\n', 'cannot read the recipe'),
    ],
)
def test_a_mistake_in_a_recipe_is_named(tmp_path, text, words):
    path = tmp_path / 'mine.py'
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        read_recipe(path)
    assert 'mine.py' in str(error.value) and '\n' not in str(error.value)


def test_what_a_recipe_does_not_convert_is_the_default(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(BASE + 'convert = dict(_delete_=True, ratio=0.5)\n')
    request = Request('teacher', 'text.npz', 'out', str(path))
    given = request.conversion(read_recipe(path))
    assert given == dict(layers='evenly', init='mimic', ratio=0.5, seed=0)


def test_a_stage_of_one_step_needs_a_rate(tmp_path):
    path = tmp_path / 'mine.py'
    for end, trained in ((0.0, False), (0.5, True)):
        schedule = f'schedule=dict(warmup=0.0, decay=0.0, end={end})'
        path.write_text(f'{BASE}stages = [{STAGE}, {schedule})]')
        if trained:
            plan = planned(path, tokens=512)
            assert [stage.steps for stage in plan.stages] == [1]
            continue
        with pytest.raises(ValueError, match='stage a: of 512 tokens it gets a single'):
            planned(path, tokens=512)
        assert planned(path, tokens=1024).stages[0].steps == 2


def test_trainings_of_one_name_are_refused(tmp_path):
    path = tmp_path / 'mine.py'
    other = STAGE.replace('"a"', '"a-16"')
    path.write_text(f'{BASE}stages = [{STAGE}, lengths=[8, 16]), {other})]')
    with pytest.raises(ValueError, match='has two trainings a-16: one of a stage with'):
        planned(path)


@pytest.mark.parametrize('name', ['radlads', 'calibrated', 'matvlm'])
def test_fields_of_a_mixer_change_that_of_the_recipe(name):
    recipe = read_recipe(name)
    own = Conversion(**recipe.convert, calibration='text.txt')
    request = Request('teacher', 'data', 'out', name, mixer=dict(d_conv=2))
    spec = Conversion(**request.conversion(recipe), calibration='text.txt')
    assert spec.mixer_type == own.mixer_type
    assert spec.mixer_fields == {**own.mixer_fields, 'd_conv': 2}
    other = Request('teacher', 'data', 'out', name, mixer=dict(type='KDA', d_conv=2))
    spec = Conversion(**other.conversion(recipe), calibration='text.txt')
    assert (spec.mixer_type, spec.mixer_fields) == ('KDA', {'d_conv': 2})
