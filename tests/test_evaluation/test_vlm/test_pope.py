import pytest

from mmtransmamba.evaluation.vlm import POPEMetric, VLMSample, load_pope, score
from mmtransmamba.evaluation.vlm.pope import says_yes


@pytest.mark.parametrize(
    ('text', 'yes'),
    [
        ('Yes', True),
        ('No', False),
        ('no, there is none', False),
        ('No.', False),
        ('There is not a dog', False),
        # Only the first sentence is read, and commas do not hide the word.
        ('Yes. There is no cat', True),
        ('No, it is a cat. Yes', False),
        ('Well,no', True),
        # Whole words in these three spellings only; all else is a yes.
        ('NO', True),
        ('Nothing', True),
        ('Notably so', True),
        ('none', True),
        ('maybe', True),
        ('', True),
    ],
)
def test_answer_rule(text, yes):
    assert says_yes(text) is yes


def sample(split, number, gold):
    return VLMSample(f'{split}/{number}', '?', gold, category=split)


def test_figures():
    golds = ['yes', 'yes', 'yes', 'no', 'no']
    said = ['Yes', 'Yes', 'No', 'Yes', 'No']
    found = score(
        POPEMetric(), [sample('popular', i, g) for i, g in enumerate(golds)], said
    )
    assert found == pytest.approx(
        {
            'pope/f1': 200 / 3,
            'pope/accuracy': 60,
            'pope/unread': 0,
            'pope/popular/f1': 200 / 3,
            'pope/popular/accuracy': 60,
            'pope/popular/precision': 200 / 3,
            'pope/popular/recall': 200 / 3,
            'pope/popular/yes_ratio': 60,
        }
    )


def test_mean_over_splits_of_different_size():
    samples = [sample('random', 0, 'yes')] + [sample('popular', i, 'yes') for i in 'ab']
    found = score(POPEMetric(), samples, ['Yes', 'No', 'No'])
    assert found['pope/f1'] == found['pope/accuracy'] == 50
    assert found['pope/popular/f1'] == found['pope/popular/precision'] == 0


def row(number, image, label):
    return dict(question_id=number, image=image, text='Is it?', label=label)


@pytest.fixture
def folder(tmp_path, write):
    for split in ('random', 'popular', 'adversarial'):
        rows = [row(1, f'{split}.jpg', 'yes'), row(2, f'{split}.jpg', 'no')]
        path = write(tmp_path / 'written.jsonl', rows)
        # As published: JSON lines in a file called .json.
        path.rename(tmp_path / f'coco_pope_{split}.json')
    return tmp_path


def test_official_files(folder):
    samples = load_pope(folder)
    assert len({s.question_id for s in samples}) == len(samples) == 6
    assert samples[1].gold == 'no'
    assert samples[2].category == 'popular'
    assert samples[2].images == ('popular.jpg',)
    assert samples[0].prompt.endswith('a single word or phrase.')


def test_prompts_of_other_questions(folder, write):
    prompts = [dict(question_id=1, image='x.jpg', text='Is it?', category='random')] * 2
    write(folder / 'questions.jsonl', prompts)
    message = 'the 2 prompts of the category "random" belong to none'
    with pytest.raises(ValueError, match=message):
        load_pope(folder)


def test_current_random_split_has_other_negatives(vlm_eval):
    """Without LLaVA's prompts the current 3000 lines are used."""
    from mmtransmamba.evaluation.vlm.files import read_rows

    official = read_rows(vlm_eval / 'pope' / 'coco_pope_random.json')
    assert len(official) == 3000
    with_prompts = load_pope(vlm_eval / 'pope')
    assert sum(s.category == 'random' for s in with_prompts) == 2910
