"""What is copied beside a model's weights."""

from fnmatch import fnmatch

from mmtransmamba.models.folders.companions import copy_companions
from mmtransmamba.transfer.convert.writer import _OWN

FILES = (
    *('tokenizer.json', 'chat_template.jinja', 'generation_config.json'),
    *(
        'additional_chat_templates/tool_use.jinja',
        'additional_chat_templates/rag.jinja',
    ),
    *('preprocessor_config.json', 'video_preprocessor_config.json', 'merges.txt'),
)
OTHERS = ('model.safetensors', 'config.json', 'additional_chat_templates/notes.txt')


def test_every_template_and_processor_is_copied_and_nothing_is_replaced(tmp_path):
    source, target = tmp_path / 'source', tmp_path / 'target'
    for name in (*FILES, *OTHERS):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    target.mkdir()
    (target / 'tokenizer.json').write_text('its own')
    copy_companions(source, target)
    found = {str(p.relative_to(target)) for p in target.rglob('*') if p.is_file()}
    assert found == set(FILES)
    assert (target / 'tokenizer.json').read_text() == 'its own'
    for name in FILES[1:]:
        assert (target / name).read_text() == name
    # A conversion that was interrupted may leave any of them.
    for path in target.iterdir():
        assert any(fnmatch(path.name, pattern) for pattern in _OWN), path.name
