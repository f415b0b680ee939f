import pytest

from mmtransmamba.evaluation.vlm import MMEMetric, VLMSample, load_mme, score
from mmtransmamba.evaluation.vlm.mme import COGNITION, PERCEPTION, yes_or_no


@pytest.mark.parametrize(
    ('text', 'answer'),
    [
        ('Yes', 'yes'),
        ('no', 'no'),
        ('Yes, it is.', 'yes'),
        ('No.', 'no'),
        # The first four characters decide, whatever word they are part of.
        ('Noah', 'no'),
        (' "Yes"', 'yes'),
        ('It is: yes', 'other'),
        ('Church', 'other'),
        ('', 'other'),
    ],
)
def test_answer_rule(text, answer):
    assert yes_or_no(text) == answer


def pairs(category, images=2):
    return [
        VLMSample(
            f'{category}/{i}.jpg', q, gold, (f'{category}/{i}.jpg',), category=category
        )
        for i in range(images)
        for q, gold in (('a?', 'yes'), ('b?', 'no'))
    ]


def everything():
    return [s for category in PERCEPTION + COGNITION for s in pairs(category)]


def test_both_answers_of_an_image_must_be_right():
    samples = everything()
    texts = ['Yes' if s.gold == 'yes' else 'No' for s in samples]
    assert score(MMEMetric(), samples, texts)['mme/perception'] == 2000
    texts[1] = 'Yes'
    found = score(MMEMetric(), samples, texts)
    # 3 of 4 answers, 1 of 2 images.
    assert found['mme/existence'] == 75 + 50
    assert found['mme/perception'] == 1925
    assert found['mme/cognition'] == 800


def test_always_yes_gets_no_plus():
    samples = everything()
    found = score(MMEMetric(), samples, ['yes'] * len(samples))
    assert (found['mme/perception'], found['mme/cognition']) == (500, 200)


def test_an_image_with_one_question():
    samples = everything()[1:]
    with pytest.raises(ValueError, match=r'both questions of every image; .*existence'):
        score(MMEMetric(), samples, ['yes'] * len(samples))


@pytest.fixture
def folder(tmp_path, write):
    for category in PERCEPTION + COGNITION:
        lines = [
            f'1.jpg\tIs {category}  a? Please answer yes or no.\tYes',
            f'1.jpg\tIs {category}  b? Please answer yes or no.\tNo',
        ]
        write(tmp_path / 'Your_Results' / f'{category}.txt', '\n'.join(lines) + '\n')
    return tmp_path


def test_official_files(folder):
    samples = load_mme(folder)
    assert len(samples) == 28
    assert samples[1].gold == 'no'
    assert samples[1].images == ('existence/1.jpg',)
    assert samples[1].prompt == 'Is existence  b? Please answer yes or no.'


def test_llavas_prompts(folder, write):
    rows = [
        dict(
            question_id='count/images/1.png',
            image='count/images/1.png',
            text=f'Is count {x}?\nAnswer shortly.',
            category='count',
        )
        for x in 'ba'
    ]
    write(folder / 'llava_mme.jsonl', rows)
    samples = load_mme(folder)
    assert [s.gold for s in samples] == ['no', 'yes']
    assert samples[0].prompt == 'Is count b?\nAnswer shortly.'
    rows[0]['text'] = 'Is it?'
    write(folder / 'llava_mme.jsonl', rows)
    with pytest.raises(ValueError, match='record 1 is not a question of MME'):
        load_mme(folder)


def test_malformed_line(folder, write):
    write(folder / 'Your_Results' / 'OCR.txt', '1.jpg\tIs it?\tmaybe\n')
    with pytest.raises(ValueError, match=r'OCR\.txt, line 1: expected image, question'):
        load_mme(folder)


def test_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'has no CATEGORY\.txt'):
        load_mme(tmp_path)
