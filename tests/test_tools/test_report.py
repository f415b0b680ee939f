"""``tools/report.py`` on a run that ``tools/train.py`` has left."""


def test_the_page_of_a_real_run(trained, run_tool, tmp_path):
    out = tmp_path / 'page.html'
    done = run_tool('report.py', trained, '--out', out, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f'{out}\n'), done.stderr
    text = out.read_text('utf-8')
    for words in ('tiny_vit', 'accuracy/top1', 'VisionTransformer was trained for 1'):
        assert words in text
    assert text.count('<svg') >= 3


def test_a_folder_without_a_run_ends_in_one_line(run_tool, tmp_path):
    done = run_tool('report.py', tmp_path, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f'report.py: error: {tmp_path} holds no run: ')
    assert list(tmp_path.iterdir()) == []
