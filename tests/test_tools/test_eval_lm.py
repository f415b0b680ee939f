"""Scores of the command line."""

from byte_tokenizer import OFFSET, write_tokenizer
from language_models import make_hybrid, make_teacher

from mmtransmamba.models.card import read_rows


def test_scores_are_added_to_the_cards_of_converted_models(run_tool, tmp_path):
    teacher = make_teacher(vocab_size=256 + OFFSET, max_position_embeddings=256)
    teacher.save_pretrained(tmp_path / 'teacher')
    make_hybrid(teacher).save_pretrained(tmp_path / 'hybrid')
    for name in ('teacher', 'hybrid'):
        write_tokenizer(tmp_path / name)
    options = ('--tasks', 'parity', '--limit', 2, '--lengths', 2, '--card')
    done = run_tool('eval_lm.py', 'teacher', 'hybrid', *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'added to hybrid/README.md' in done.stdout
    assert not (tmp_path / 'teacher' / 'README.md').exists()
    row = read_rows(tmp_path / 'hybrid')['parity, acc']
    assert row.endswith(' %, 2 questions') and '±' in row
    (line,) = (x for x in done.stdout.splitlines() if x.startswith('| parity | acc |'))
    assert row.removesuffix(' %, 2 questions') == line.split(' | ')[-1].removesuffix(
        ' |'
    )
