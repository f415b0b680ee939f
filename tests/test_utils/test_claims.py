"""A folder's results have the same settings, or are not added to."""

import json

import pytest

from mmtransmamba.utils.claims import claim

SETTINGS = dict(seed=0, card='one', sizes=[1, 2], limit=None)


@pytest.fixture
def start(tmp_path):
    folder = tmp_path / 'runs' / 'first'

    def begin(**changes):
        settings = {k: v for k, v in (SETTINGS | changes).items() if v != 'absent'}
        claim(folder / 'settings.json', settings, '*.csv', 'tables')
        return folder

    return begin


def test_the_same_settings_go_on(start):
    folder = start()
    (folder / 'runs.csv').touch()
    assert start() == folder
    assert json.loads((folder / 'settings.json').read_text()) == SETTINGS


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(seed=1), 'seed: 0, now 1'),
        (dict(sizes=[2, 1]), r'sizes: \[1, 2\], now \[2, 1\]'),
        (dict(limit=3, card='two'), "card: 'one', now 'two'; limit: None, now 3"),
        (dict(steps=5), 'steps: None, now 5'),
        (dict(card='absent'), "card: 'one', now None"),
    ],
)
def test_others_are_refused_and_change_nothing(start, changes, message):
    (start() / 'runs.csv').touch()
    with pytest.raises(ValueError, match=f'has tables with other settings .{message}'):
        start(**changes)
    start()


def test_a_record_without_results_is_replaced(start):
    folder = start()
    (folder / 'notes.txt').touch()
    start(seed=1)
    (folder / 'runs.csv').touch()
    start(seed=1)


def test_results_of_nobody_are_not_added_to(start):
    folder = start()
    (folder / 'runs.csv').touch()
    (folder / 'settings.json').unlink()
    with pytest.raises(ValueError, match=r'has tables, but no settings\.json'):
        start()
