"""Chat templates in the manner of well-known models, none with a generation tag."""

LLAMA_3 = (
    '{{- bos_token }}{%- if not date_string is defined %}'
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}'
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system = messages[0]['content'] | trim %}"
    '{%- set messages = messages[1:] %}'
    "{%- else %}{%- set system = '' %}{%- endif %}"
    '{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}'
    '{{- "Today Date: " + date_string + "\n\n" }}{{- system }}{{- "<|eot_id|>" }}'
    '{%- for message in messages %}'
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    '{%- if add_generation_prompt %}'
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Only the answer to the last question keeps an (empty) block of thoughts.
THINKING = (
    '{% for message in messages %}'
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    '{% if enable_thinking is defined and enable_thinking is false %}'
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
# The end of the text follows the last turn alone.
PHI_3 = (
    '{% for message in messages %}'
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    '{% endfor %}{% if add_generation_prompt %}'
    "{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
MISTRAL = (
    '{{ bos_token }}'
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if (message['role'] == 'user') != (loop.index0 is "
    "even) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    '{% for message in messages %}'
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim"
    " + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# As processors have them: parts of content, the images before the words.
LLAVA_HF = (
    '{% for message in messages %}'
    "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}"
    '{% endif %}'
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ part['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

# Template, special tokens it needs, what is learned of the answers 'A cat.', 'No. '.
CASES = {
    'llama_3': (
        LLAMA_3,
        ['<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>'],
        ['A cat.<|eot_id|>', 'No.<|eot_id|>'],
    ),
    'chatml': (
        CHATML,
        ['<|im_start|>', '<|im_end|>'],
        ['A cat.<|im_end|>', 'No. <|im_end|>'],
    ),
    'chatml_as_text': (CHATML, [], ['A cat.<|im_end|>', 'No. <|im_end|>']),
    'thinking': (
        THINKING,
        ['<|im_start|>', '<|im_end|>', '<think>', '</think>'],
        ['A cat.<|im_end|>', '<think>\n\n</think>\n\nNo. <|im_end|>'],
    ),
    'phi_3': (
        PHI_3,
        ['<|user|>', '<|assistant|>', '<|end|>'],
        ['A cat.<|end|>', 'No. <|end|>'],
    ),
    'mistral': (MISTRAL, ['[INST]', '[/INST]'], [' A cat.</s>', ' No. </s>']),
    'gemma': (
        GEMMA,
        ['<start_of_turn>', '<end_of_turn>'],
        ['A cat.<end_of_turn>', 'No.<end_of_turn>'],
    ),
    'llava_hf': (LLAVA_HF, [], [' A cat. ', ' No.  ']),
    'llava_v1': ('llava_v1', [], ['A cat.</s>', 'No. </s>']),
    'llava_plain': ('llava_plain', [], ['A cat.\n', 'No. \n']),
    'tag': (None, [], ['A cat.</s>', 'No. </s>']),
}
