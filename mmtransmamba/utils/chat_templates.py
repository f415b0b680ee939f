"""LLaVA's conversations as chat templates, shared by data and models."""

from __future__ import annotations

import json

TEXT_OF = (
    '{%- macro text_of(content) -%}{% if content is string %}{{ content }}{% else %}'
    "{% for part in content %}{% if part['type'] == 'image' %}"
    "{{ image_token + '\\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    '{% endif %}{%- endmacro -%}'
)
"""A macro: the text of a message, which is a string or a list of parts."""

VICUNA_SYSTEM = (
    'A chat between a curious user and an artificial intelligence assistant. The '
    "assistant gives helpful, detailed, and polite answers to the user's questions."
)
LLAVA_NEXT_SYSTEM = (
    'You are a helpful language and vision assistant. You are able to understand the '
    'visual content that the user provides, and assist the user with a variety of '
    'tasks using natural language.'
)
"""The system text of LLaVA-NeXT with Llama 3."""


def _with_system(default: str) -> str:
    """The system text of a conversation, by default a given one."""
    return (
        TEXT_OF
        + "{% if messages[0]['role'] == 'system' %}"
        + "{{ text_of(messages[0]['content']) }}"
        + '{% else %}{{ '
        + json.dumps(default)
        + ' }}{% endif %}'
    )


LLAVA_V1 = (
    _with_system(VICUNA_SYSTEM) + "{{ ' ' }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'USER: ' + text_of(message['content']) + ' ' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT: ' }}"
    "{% generation %}{{ text_of(message['content']) }}{{ eos_token }}"
    '{% endgeneration %}{% endif %}{% endfor %}'
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""The conversation of Vicuna and LLaVA-1.5; needs the variable ``image_token``."""

LLAVA_MISTRAL = (
    TEXT_OF + "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}"
    "{{ '[INST] <<SYS>>\n' + text_of(messages[0]['content']) + '\n<</SYS>>\n\n' }}"
    "{% else %}{{ '[INST] ' }}{% endif %}{{ text_of(message['content']) + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' }}"
    "{% generation %}{{ text_of(message['content']) + ' ' + eos_token }}"
    '{% endgeneration %}{% endif %}{% endfor %}'
)
"""The conversation of LLaVA-1.6 with Mistral (``mistral_instruct``)."""


def llava_llama_3(system: str) -> str:
    """Llama 3's conversation, as LLaVA-NeXT and LLaVA-pp use it.

    Args:
        system: System text of a conversation without one.
    """

    def header(role: str) -> str:
        return f"{{{{ '<|start_header_id|>{role}<|end_header_id|>\n\n' }}}}"

    return (
        '{{ bos_token }}'
        + header('system')
        + _with_system(system)
        + '<|eot_id|>'
        + "{% for message in messages %}{% if message['role'] == 'user' %}"
        + header('user')
        + "{{ text_of(message['content']) + '<|eot_id|>' }}"
        + "{% elif message['role'] == 'assistant' %}"
        + header('assistant')
        + "{% generation %}{{ text_of(message['content']) + '<|eot_id|>' }}"
        + '{% endgeneration %}{% endif %}{% endfor %}'
        + '{% if add_generation_prompt %}'
        + header('assistant')
        + '{% endif %}'
    )


def chatml(system: str, between: str) -> str:
    """ChatML's conversation, as LLaVA with Yi or Qwen uses it.

    Args:
        system: System text of a conversation without one.
        between: Text after the end of each turn.
    """
    end = '<|im_end|>' + between
    return (
        "{{ '<|im_start|>system\n' }}"
        + _with_system(system)
        + '{{ '
        + json.dumps(end)
        + ' }}'
        + "{% for message in messages %}{% if message['role'] == 'user' %}"
        + "{{ '<|im_start|>user\n' + text_of(message['content']) + "
        + json.dumps(end)
        + " }}{% elif message['role'] == 'assistant' %}"
        + "{{ '<|im_start|>assistant\n' }}"
        + "{% generation %}{{ text_of(message['content']) + '<|im_end|>' }}"
        + '{% endgeneration %}{{ '
        + json.dumps(between)
        + ' }}{% endif %}{% endfor %}'
        + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def with_image_token(template: str, image_token: str) -> str:
    """A template that defines the image token itself, as a saved folder requires."""
    return f'{{%- set image_token = {json.dumps(image_token)} -%}}{template}'


def check_chat_template(template: str) -> None:
    """Refuse a chat template that is not a Jinja template.

    Raises:
        ValueError: The template is empty or does not parse; the message names the line.
    """
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import render_jinja_template

    if not template.strip():
        raise ValueError('The chat template is empty.')
    try:
        render_jinja_template([[dict(role='user', content='')]], chat_template=template)
    except TemplateSyntaxError as error:
        raise ValueError(
            f'The chat template does not parse, line {error.lineno}: {error.message}'
        ) from error
    except Exception:  # unsupported roles or missing variables: reported when used
        return
