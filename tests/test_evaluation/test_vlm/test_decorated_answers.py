"""Answers in every decoration that models put around them."""

import pytest

from mmtransmamba.evaluation.vlm.answers import choose_letter, choose_option
from mmtransmamba.evaluation.vlm.yes_no import read_yes_no

OPTIONS = ('cat', 'dog', 'dark red dog', 'bird')
CHOICES = {
    'A': [
        '**A**',
        '\\boxed{A}',
        '"A"',
        '<answer>A</answer>',
        '(A)',
        'A.',
        'A:',
        '[A]',
        '$A$',
        'Option A is correct',
        'Answer: A',
        'Ａ',
        'Ａ．',
        '（Ａ）',
        'A。',
        'A：cat',
        'A\n',
        'A\r\nbecause',
        '\n\nA\n',
        '`A`',
        '**A.**',
        '**A. cat**',
        '**A**. cat',
        '**Answer:** A',
        '**Answer: A**',
        'The answer is **A**.',
        'The answer is: A',
        'the correct answer is option A',
        'The correct option is A.',
        'A because it purrs',
        '"A" because',
        '\\boxed{\\text{A}}',
        '$\\boxed{A}$',
        'The final answer is $\\boxed{A}$.',
        '<b>A</b>',
        'A) cat',
        'A - cat',
        'A – cat',
        'A is correct',
        'A is the correct answer',
        'I choose A',
        'I would choose option A.',
        '答案是A',
        '答案：A',
        '选项A正确',
        '“A”',
        '‘A’',
        "'A'",
        '«A»',
        '【A】',
        'Ⓐ',
        '🅰',
        '{A}',
        '<A>',
        '_A_',
        '__A__',
        '***A***',
        '~A~',
        '# A',
        '### Answer: A',
        '- A',
        '> A',
        '* A',
        'A,',
        'A;',
        'A!',
        'A?',
        'A...',
        'A…',
        'Answer A',
        'ANSWER: A',
        'answer:A',
        'Answer=A',
        'Answer -> A',
        'So the answer is A',
        'The answer is (A).',
        'The answer is [A].',
        'The answer should be A.',
        'Therefore, A is the right choice.',
        'It must be option A',
        'Option (A)',
        'option A',
        'Choice A',
        'Letter A',
        '<answer>\nA\n</answer>',
        '<think>maybe B or C</think>A',
        'hmm B?</think>\n\n**A**',
        '<answer>A. cat</answer>',
        'B and C are wrong. The answer is A.',
        'Not B, but A.',
        'a',
        'a.',
        '(a)',
        'a)',
        'A\tcat',
        'A|',
        '\\(A\\)',
        '\\[A\\]',
        '$$A$$',
        '\\mathrm{A}',
        '\\textbf{A}',
        'A\u200b',
        '\ufeffA',
        'A\xa0',
        'The answer is A because it purrs',
        'Answer: A (cat)',
        'A: because',
        'A (cat)',
        '"A."',
        '(A).',
        'A / cat',
        'option "A"',
        'Options B, C and D are incorrect; A is correct.',
        'The best answer is A) cat',
        'I think it is A.',
        'My answer is A',
        'A, since it purrs',
        'A cat',
        'a cat',
        'It is a cat.',
        '**a cat**',
        '"cat"',
        'the answer is a',
        'Neither B nor C is right, so A.',
        'B is not a dog, A is correct',
        'A, because B is wrong',
    ],
    'B': [
        'b',
        '(b) a horned one',
        'b. horned',
        'The answer is b.',
        'answer: (b)',
        "The answer's B",
    ],
    'C': [
        'The answer is C. Options A and B are wrong.',
        'C',
        '**C**',
        'The answer is C, not A.',
        'A is wrong, so the answer is C.',
        'B is wrong, the answer is C',
        'Options A, B and D are wrong. C is correct.',
        'Neither A nor B: C.',
        'C, because A is wrong',
        'Rather than A, I choose C.',
        "It can't be A or B. The answer is C",
        'The answer could be A, but the final answer is C.',
        'Between A and C, the correct answer is C.',
        'A dark red dog.',
        'The correct answer is C: dark red dog, while A is a cat.',
        "A isn't right; C is.",
        '\\boxed{A}\n\nWait.\n\\boxed{C}',
    ],
    None: [
        'B or C',
        '(A) or (B)',
        'A or B',
        'B/C',
        'The answer is A or B',
        'Either A or C',
        '\\boxed{A} or \\boxed{B}',
        'A, B and C are wrong',
        'a horse',
        '',
        'E',
        'A horse',
        'I see a horse',
        'The answer is a horse',
        'A big horse',
        '**A**, **B**',
        'I am not sure',
        'All of A, B, C, D',
        'A and B are both correct',
        "I'm sorry",
        'A & B',
        '<answer></answer>',
        'Both (A) and (B)',
        'The options are A, B, C and D',
    ],
}
YES_NO = {
    'yes': [
        'Yes',
        'YES',
        'yes!',
        '**Yes**',
        'Notably, yes',
        'The answer is yes',
        'Yes, there is no cat',
        'yes\n',
        '<answer>yes</answer>',
        'Ｙｅｓ',
        'Without a doubt, yes',
        'Answer: YES',
        'Yep',
        '"Yes."',
    ],
    'no': [
        'NO',
        '**No**',
        '"No"',
        'no!',
        'No\nthere is none',
        'The answer is no.',
        'Nope',
        '<answer>No</answer>',
        '\\boxed{No}',
        '\\boxed{\\text{No}}',
        'Ｎｏ',
        'Ｎｏ．',
        '（No）',
        'There is not a dog',
        "There isn't a dog",
        'No, yes is wrong',
        '`no`',
        '- No',
        '[No]',
        '$No$',
        'no.',
        'Answer: No',
        'Not really',
        'There are none.',
        'NO WAY',
        'The correct answer is **no**.',
        'The answer to the question is: No',
        'I do not see one',
        '“No”',
        '<b>no</b>',
        '**Answer:** No',
        '<think>yes yes</think>no',
        'no。',
        ' No',
        '_No_',
    ],
    None: [
        'maybe',
        '',
        'Nothing',
        'There is a dog',
        'Notably so',
        'yesterday',
        'Norway',
        'Perhaps yes, perhaps no',
        'knot',
    ],
}


def cases(table):
    return [(text, wanted) for wanted, texts in table.items() for text in texts]


@pytest.mark.parametrize('text, letter', cases(CHOICES))
def test_choice(text, letter):
    assert choose_option(text, OPTIONS) == letter


# Each with a letter in the middle.
FORMS = """
    {}|{}.|{}:|({})|[{}]|**{}**|"{}"|'{}'|“{}”|`{}`|${}$|$${}$$|\\boxed{{{}}}|<{}>|{{{}}}
    \\text{{{}}}|$\\boxed{{{}}}$|\\boxed{{\\text{{{}}}}}|<answer>{}</answer>|<b>{}</b>
    ***{}***|__{}__|**{}.**|**({})**|({}).|- {}|# {}|> {}|{})|{},|{}!|{}\t|Option {}
    Option {} is correct|Option {} is correct.|Answer: {}|**Answer**: {}|**Answer: {}**
    The answer is {}|The answer is {}.|The answer is ({}).|The answer is **{}**.
    The correct answer is {}.|the correct option is: {}|{} is the correct answer.
    {} because of the fur|{}. because|{} is right|I choose {}.|I would go with {}.
    Final answer: {}|So, it must be {}.|答案是{}|答案：{}。|选项{}正确
    （{}）|【{}】|「{}」
    The answer is {}, not F.|The answer is {}. Options F and G are wrong.
    G is wrong. The answer is {}.|Rather than F or G, {}.|Not F: {}
"""


@pytest.mark.parametrize('letter', 'AIB')
def test_every_letter_in_every_form(letter):
    """ "A" and "I" are words, but no worse letters than others."""
    options = [f'thing {n}' for n in range(10)]
    forms = [form for line in FORMS.strip().split('\n') for form in line.split('|')]
    assert len(forms) > 60
    texts = [form.strip(' ').format(letter) for form in forms]
    wide = [chr(ord(letter) - ord('A') + ord('Ａ')), chr(ord(letter) - 65 + 0x24B6)]
    texts += wide + [
        f'{wide[0]}．',
        f'\n\n{letter}\r\nAs one can see.',
        f'\ufeff{letter}',
    ]
    wrong = {t: choose_option(t, options) for t in texts}
    assert {t: found for t, found in wrong.items() if found != letter} == {}


def test_letters_of_options_without_a_text():
    assert choose_letter('**A**', 4) == 'A'
    assert choose_letter('E', 4) is None
    assert choose_letter('A or B', 4) is None


def test_a_marked_answer_counts_alone():
    assert choose_option('<think>B? or C?</think><answer>A</answer>', OPTIONS) == 'A'
    assert choose_option('C seems good.\n\\boxed{A}', OPTIONS) == 'A'
    # One that chooses nothing is passed over.
    assert choose_option('<answer>?</answer> The answer is B.', OPTIONS) == 'B'


@pytest.mark.parametrize('text, answer', cases(YES_NO))
def test_yes_or_no(text, answer):
    assert read_yes_no(text) == answer
