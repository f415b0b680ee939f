"""Chat templates that are none are refused before they are written anywhere."""

import pytest

from mmtransmamba.models.folders import assemble_llava, write_patch_decoder
from mmtransmamba.utils.chat_templates import LLAVA_V1, check_chat_template

BROKEN = ['{% for m in messages %}', '{{ messages[0] ', 'a\n{% endif %}', '{% foo %}']


@pytest.mark.parametrize('template', BROKEN)
def test_a_template_that_does_not_parse_is_refused(template, tmp_path):
    for refuse in (
        lambda: check_chat_template(template),
        lambda: assemble_llava(tmp_path, tmp_path, chat_template=template),
        lambda: write_patch_decoder(tmp_path, tmp_path / 'out', template),
    ):
        with pytest.raises(ValueError, match=r'does not parse, line \d: '):
            refuse()


def test_an_empty_template_is_refused():
    with pytest.raises(ValueError, match='is empty'):
        check_chat_template(' \n')


@pytest.mark.parametrize(
    'template',
    [
        LLAVA_V1,
        "{{ raise_exception('roles must alternate') }}",
        '{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}'
        '{% endfor %}',
    ],
)
def test_templates_that_parse_are_taken(template):
    check_chat_template(template)
