"""The study on converted encoders: rows that are there are not measured again."""

import pytest
from _convert_vit import FIELDS, RATIOS, Table


@pytest.mark.parametrize('ratio', RATIOS)
def test_a_row_is_found_again(ratio, tmp_path):
    row = dict.fromkeys(FIELDS['before'], 'a') | dict(ratio=ratio, kl=0.123456789)
    Table(tmp_path, 'before').add(**row)
    again = Table(tmp_path, 'before')
    assert again.has(ratio=ratio, mixer='a')
    assert not again.has(ratio=ratio, mixer='b')
    assert again.rows[0]['kl'] == '0.12346'
