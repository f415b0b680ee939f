"""Parts of responses in four sections, and the answers in them."""

import pytest

from mmtransmamba.utils.reasoning_text import (
    SECTIONS,
    STOP,
    TAGS,
    Section,
    extract_answer,
    join_sections,
    parse_response,
)

WHOLE = join_sections('a plan', 'a cat, 2 < 3', 'first\n\nthen', 'B')


def test_the_tags_are_those_of_the_paper():
    assert SECTIONS == ('SUMMARY', 'CAPTION', 'REASONING', 'CONCLUSION')
    assert TAGS[:2] == ('<SUMMARY>', '</SUMMARY>') and len(set(TAGS)) == 8
    assert STOP == '</CONCLUSION>' and WHOLE.endswith(STOP)


def test_a_whole_response():
    response = parse_response(f'\n{WHOLE}  \n')
    assert response.sections == (
        Section('SUMMARY', 'a plan', True),
        Section('CAPTION', 'a cat, 2 < 3', True),
        Section('REASONING', 'first\n\nthen', True),
        Section('CONCLUSION', 'B', True),
    )
    assert response.well_formed and response.in_order
    assert not response.truncated and not response.missing
    assert response.outside == response.stray_tags == response.duplicates == ()


@pytest.mark.parametrize(
    'text, fault',
    [
        (f'Sure. {WHOLE}', 'outside'),
        (f'{WHOLE} I hope this helps.', 'outside'),
        (WHOLE.replace('</CAPTION>', ''), None),
        (WHOLE.replace('<CAPTION>', '').replace('</CAPTION>', ''), 'missing'),
        (f'{WHOLE}\n{WHOLE}', 'duplicates'),
        (f'{WHOLE}</SUMMARY>', 'stray_tags'),
        (WHOLE.replace('a plan', ' '), None),
        (WHOLE.removesuffix('</CONCLUSION>'), 'truncated'),
        (WHOLE.lower(), 'outside'),
        ('', 'missing'),
    ],
)
def test_one_fault_is_enough(text, fault):
    response = parse_response(text)
    assert not response.well_formed
    if fault:
        assert getattr(response, fault)


def test_order_and_repetition():
    swapped = join_sections('s', 'c', 'r', 'B').split('\n\n')
    swapped[1], swapped[2] = swapped[2], swapped[1]
    response = parse_response(' '.join(swapped))
    assert not response.in_order and not response.well_formed and not response.missing
    again = parse_response(f'{WHOLE}<SUMMARY>more</SUMMARY>')
    assert again.in_order and again.duplicates == ('SUMMARY',)
    assert not again.well_formed


def test_a_section_ends_at_the_next_tag_of_any_kind():
    text = '<SUMMARY>one <CAPTION>two</SUMMARY> three</CAPTION>'
    response = parse_response(text)
    assert response.sections == (
        Section('SUMMARY', 'one', False),
        Section('CAPTION', 'two', False),
    )
    assert response.stray_tags == ('</SUMMARY>', '</CAPTION>')
    assert response.outside == ('three',)
    assert not response.truncated and not response.has('CAPTION')


@pytest.mark.parametrize(
    'end, truncated, last',
    [
        ('<REASONING> one', True, 'one'),
        ('<REASONING>', True, ''),
        ('<REASONING> one </REASO', True, 'one'),
        ('<REASONING> one <', True, 'one'),
        # A sign of comparison, and what is the beginning of no tag.
        ('<REASONING> one < ', True, 'one <'),
        ('<REASONING> one <b', True, 'one <b'),
        ('<REASONING> one </REASONING>', False, 'one'),
        ('<REASONING> one </REASONING> <CON', True, 'one'),
    ],
)
def test_where_generation_ran_out(end, truncated, last):
    response = parse_response(f'<SUMMARY>a</SUMMARY><CAPTION>b</CAPTION>{end}')
    assert response.truncated is truncated
    assert response.sections[-1].text == last
    assert response.outside == ()


@pytest.mark.parametrize(
    'text, answer, source',
    [
        (WHOLE, 'B', 'conclusion'),
        ('<CONCLUSION>\n two\nlines </CONCLUSION>', 'two\nlines', 'conclusion'),
        # Generation stops at the first one.
        ('<CONCLUSION>A</CONCLUSION><CONCLUSION>B</CONCLUSION>', 'A', 'conclusion'),
        ('<CONCLUSION> </CONCLUSION><CONCLUSION>B</CONCLUSION>', 'B', 'conclusion'),
        ('<CONCLUSION>A<CONCLUSION>B</CONCLUSION>', 'B', 'conclusion'),
        ('<REASONING>r</REASONING><CONCLUSION> 12', '12', 'unclosed'),
        ('<CONCLUSION> 12 </CONCLU', '12', 'unclosed'),
        ('<CONCLUSION>12</REASONING>', '12', 'unclosed'),
        ('<CONCLUSION>A<SUMMARY>s</SUMMARY><CONCLUSION>B', 'B', 'unclosed'),
        ('<SUMMARY>s</SUMMARY><REASONING>The answer is B.', '', 'none'),
        ('<CONCLUSION></CONCLUSION>', '', 'none'),
        ('<CONCLUSION>', '', 'none'),
        ('The answer is B.', '', 'none'),
        ('', '', 'none'),
    ],
)
def test_the_answer(text, answer, source):
    found = extract_answer(text)
    assert (found.text, found.source) == (answer, source)


def test_all_of_a_text_without_tags_may_be_the_answer():
    found = extract_answer(' Two cats. ', untagged='text')
    assert (found.text, found.source) == ('Two cats.', 'text')
    for tagged in ('<SUMMARY>two', 'two</SUMMARY>', '  '):
        assert extract_answer(tagged, untagged='text').source == 'none'
    assert extract_answer(WHOLE, untagged='text').text == 'B'
    with pytest.raises(ValueError, match="untagged='all'"):
        extract_answer('', untagged='all')
