"""Ten human answers: the normal form and the soft accuracy of VQA and TextVQA."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Deleted next to a space, otherwise replaced with one.
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_FULL_STOP = re.compile(r'\.(?!\d)')
_DIGITS = {'none': '0'} | {
    word: str(digit)
    for digit, word in enumerate(
        'zero one two three four five six seven eight nine ten'.split()
    )
}
_ARTICLES = ('a', 'an', 'the')
# Words often written without (one of) their apostrophes. If the result would be another
# word (she'll, we're, I'd, …), the official table leaves them unchanged.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't
    hadn't've hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've
    it'll let's ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've
    somebody'd somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
    we've weren't what'll what're what's what've when's where'd where's where've
    who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
    wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
_WITH_APOSTROPHE = {
    word[: m.start()] + word[m.end() :]: word
    for word in _CONTRACTIONS
    for m in re.finditer("'", word)
}


def split_words(text: str) -> str:
    """EvalAI's first step: no commas or question marks, ``'s`` as a separate word."""
    text = text.lower().replace(',', '').replace('?', '')
    return text.replace("'s", " 's").strip()


def normalise_answer(text: str) -> str:
    """The form in which the official VQA script compares answers.

    Lower case; punctuation deleted or replaced with a space; full stops only before a
    digit; number words up to ten as digits; no articles; contractions with their
    apostrophe.
    """
    text = re.sub(r'\s', ' ', text).strip()
    # With a thousands separator ("1,000"), all punctuation is deleted, not only the
    # comma.
    number = re.search(r'\d,+\d', text)
    cleaned = text
    for char in _PUNCTUATION:
        beside_space = f'{char} ' in text or f' {char}' in text
        cleaned = cleaned.replace(char, '' if beside_space or number else ' ')
    cleaned = _FULL_STOP.sub('', cleaned)
    words = [_DIGITS.get(word, word) for word in cleaned.lower().split()]
    kept = [word for word in words if word not in _ARTICLES]
    return ' '.join(_WITH_APOSTROPHE.get(word, word) for word in kept)


def soft_accuracy(answer: str, people: Sequence[str]) -> float:
    """Mean over annotators of min(1, n / 3), where n of the others gave this answer.

    Both sides are in normal form. An answer given by four or more of ten annotators is
    fully right.
    """
    matches = sum(answer == other for other in people)
    scores = [min(1.0, (matches - (answer == other)) / 3) for other in people]
    return sum(scores) / len(scores)
