import pytest

from mmtransmamba.evaluation.vlm import MMMUMetric, VLMSample, load_mmmu, score
from mmtransmamba.evaluation.vlm.mmmu_parser import (
    normalise,
    open_is_right,
    parse_choice,
    parse_open,
)

OPTIONS = ('red wine', 'white wine', 'water', 'a lot of milk')


@pytest.mark.parametrize(
    ('text', 'letter'),
    [
        ('B', 'B'),
        ('B.', 'B'),
        ("'B'", 'B'),
        ('(B) white wine', 'B'),
        ('Answer: B', 'B'),
        # Of several candidates the last mention counts ...
        ('(A) or rather (C) but not (A) or else (B)', 'B'),
        ('A B C', 'C'),
        ('(A)(B)(A)', 'A'),
        # ... brackets before bare letters, letters before the options' texts.
        ('It is (A) and not B at all', 'A'),
        ('It is B because of the water in it', 'B'),
        # Texts are searched in answers of more than five words only.
        ('white wine', None),
        ('I am sure it is white wine', 'B'),
        ('First water and then perhaps some Red Wine', 'A'),
        # No space on both sides.
        ('B) white wine', None),
        ('E', None),
        ('', None),
    ],
)
def test_parse_choice(text, letter):
    assert parse_choice(text, OPTIONS) == letter


def test_normalise():
    assert normalise(' 1,234.567 ') == [1234.57]
    assert normalise('Trans') == ['trans']
    assert normalise('C') == [' c', 'c ']


@pytest.mark.parametrize(
    ('text', 'candidates'),
    [
        ('36 watts', ['36 watts', 36.0]),
        # The shortest tail after an indicator, and its numbers.
        ('So the answer is 5 apples', ['5 apples', 5.0]),
        # "=" only in the last line.
        ('x = 3\ny = 4', [4.0]),
        ('the result is 3\nthe result is 4', [3.0, 4.0]),
        ('1/4', ['1/4', 1.0, 4.0]),
        ('20,000,000', [20000000.0, 0.0]),
        # The official pattern for plain numbers finds parts of others.
        ('-1.5e3 m', ['-1.5e3 m', -1500.0, -1.0, 3.0]),
        # Nothing but punctuation follows: the whole text is taken.
        ('what it is :', ['what it is :']),
        ('.', ['']),
    ],
)
def test_parse_open(text, candidates):
    assert set(parse_open(text)) == set(candidates)


@pytest.mark.parametrize(
    ('text', 'gold', 'right'),
    [
        ('It is 12.966 cm', ['12.97'], True),
        ('It is 12.96 cm', ['12.97'], False),
        ('$7,243,000', ['7243000'], True),
        ('The answer is 3.43', ['24/7', '3.429'], True),
        ('The answer is 24/7', ['24/7', '3.429'], True),
        ('24', ['24/7', '3.429'], False),
        ('It is in Tampa', ['Tampa', 'Florida'], True),
        # A single letter must stand apart, at its start or its end.
        ('the letter b', ['B'], True),
        ('abc', ['B'], False),
        ('Transformation', ['trans'], True),
        # The number 4 is not found within 14.
        ('14', ['4'], False),
    ],
)
def test_open_answers(text, gold, right):
    assert open_is_right(parse_open(text), gold) is right


def choice(number, gold, subject='Music'):
    return VLMSample(f'v_{number}', '?', gold, options=OPTIONS, category=subject)


def test_figures():
    samples = [
        choice(1, 'B'),
        choice(2, 'A', 'Math'),
        VLMSample('v_3', '?', ['4'], category='Math'),
    ]
    found = score(MMMUMetric(), samples, ['B', 'B', '4'])
    assert found == pytest.approx(
        {
            'mmmu/accuracy': 200 / 3,
            'mmmu/guessed': 0,
            'mmmu/unread': 0,
            'mmmu/multiple_choice': 50,
            'mmmu/open': 100,
            'mmmu/Art and Design': 100,
            'mmmu/Science': 50,
            'mmmu/Music': 100,
            'mmmu/Math': 50,
        }
    )


def test_guesses_are_reproducible_and_fair():
    samples = [choice(n, 'ABCD'[n % 4]) for n in range(400)]
    found = [score(MMMUMetric(), samples, [''] * 400) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0]['mmmu/guessed'] == 100
    assert 15 < found[0]['mmmu/accuracy'] < 35
    assert score(MMMUMetric(seed=1), samples, [''] * 400) != found[0]


def test_rows_of_the_official_set(tmp_path, write):
    rows = [
        dict(id='dev_Math_1', question='?', options='[]', answer='1'),
        dict(
            id='validation_Art_Theory_12',
            question='See <image 1>.',
            options="['<image 2>', 'none']",
            answer='A',
        ),
        dict(
            id='validation_Math_15', question='?', options=[], answer="['24/7', '3.4']"
        ),
    ]
    write(tmp_path / 'dev_val.jsonl', rows)
    first, second = load_mmmu(tmp_path)
    assert first.images == (
        'validation_Art_Theory_12_1.png',
        'validation_Art_Theory_12_2.png',
    )
    assert (first.category, second.category) == ('Art_Theory', 'Math')
    assert '(A) <image 2>\n(B) none\n\nAnswer with' in first.prompt
    assert second.prompt.endswith(
        '?\n\nAnswer the question using a single word or phrase.'
    )
    assert second.gold == ['24/7', '3.4']
    gold = {'validation_Art_Theory_12': {'ground_truth': 'B'}}
    write(tmp_path / 'answer_dict_val.json', gold)
    assert [s.gold for s in load_mmmu(tmp_path)] == ['B', ['24/7', '3.4']]
