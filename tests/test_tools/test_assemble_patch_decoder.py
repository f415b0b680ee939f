"""The tool that puts a decoder-only vision-language model together."""

from pathlib import Path

from processes import run_script
from tiny_decoders import tiny_teacher
from tiny_vlms import tiny_tokenizer
from transformers import AutoModelForImageTextToText, AutoProcessor

import mmtransmamba.models.multimodal  # noqa: F401

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'assemble_patch_decoder.py'


def test_writes_a_folder_or_says_what_is_wrong(tmp_path):
    language, out = tmp_path / 'language', tmp_path / 'out'
    tiny_teacher(vocab_size=len(tiny_tokenizer())).save_pretrained(language)
    tiny_tokenizer().save_pretrained(language)
    template = tmp_path / 'chat.jinja'
    template.write_text('{{ messages }}')
    done = run_script(
        TOOL,
        language,
        out,
        *('--holistic', '2,0', '--image-size', 32, '--patch-size', 16),
        *('--chat-template', template, '--max-tiles', 3),
    )
    assert done.returncode == 0, done.stderr
    assert f'written to {out}' in done.stdout
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert model.config.num_holistic_layers == 2
    assert model.config.text_config.num_hidden_layers == 5
    processor = AutoProcessor.from_pretrained(out)
    assert processor.chat_template == '{{ messages }}'
    assert processor.max_tiles == 3
    again = run_script(TOOL, language, out)
    assert again.returncode == 1
    assert again.stderr.strip() == (
        f'assemble_patch_decoder.py: error: {out} exists; give another folder.'
    )
