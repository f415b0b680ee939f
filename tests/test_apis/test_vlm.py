"""Answers of vision-language models: in batches, streamed, in conversations."""

import copy
import time
from threading import active_count

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from tiny_patch_decoders import patch_processor, tiny_patch_decoder
from tiny_vlms import save_tiny_llava, tiny_llava, tiny_processor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    StoppingCriteriaList,
)

from mmtransmamba.apis import VisionLanguageChat
from mmtransmamba.apis.loading import load
from mmtransmamba.apis.vlm import conversation_of, sampling_settings
from mmtransmamba.apis.vlm_streaming import until_stop
from mmtransmamba.datasets.conversations import (
    IMAGE,
    BadSampleError,
    Conversation,
    ConversationEncoder,
    Turn,
)
from mmtransmamba.models.checkpoint import CheckpointError
from mmtransmamba.models.multimodal import AnswerHead
from mmtransmamba.models.trainable import VisionLanguageModel
from mmtransmamba.registry import MODELS
from mmtransmamba.transfer.convert import convert

RED = Image.new('RGB', (20, 30), 'red')
BLUE = Image.new('RGB', (32, 16), 'blue')
PROMPTS = ['Hi', 'What is in these two images?', 'No image at all', '<image> here']
IMAGES = [RED, [RED, BLUE], None, [BLUE]]


def hybrid_llava():
    """LLaVA whose language model is half Mamba."""
    llava = tiny_llava()
    torch.manual_seed(0)
    lm, _ = convert(LlamaForCausalLM(llava.config.text_config), layers=[1, 2])
    fields = dict(llava.config.to_dict(), text_config=lm.config.to_dict())
    hybrid = LlavaForConditionalGeneration(LlavaConfig(**fields)).eval()
    hybrid.generation_config = copy.deepcopy(llava.generation_config)
    return hybrid


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Folders of the Transformer, of a hybrid, and of a decoder-only one."""
    root = tmp_path_factory.mktemp('models')
    save_tiny_llava(root / 'llava')
    save_tiny_llava(root / 'hybrid')
    hybrid_llava().save_pretrained(root / 'hybrid')
    tiny_patch_decoder('attention first').save_pretrained(root / 'decoder-only')
    patch_processor().save_pretrained(root / 'decoder-only')
    return root


@pytest.fixture(scope='module')
def chat(folders):
    return VisionLanguageChat(folders / 'llava', device='cpu')


@pytest.mark.parametrize('name', ['llava', 'hybrid', 'decoder-only'])
def test_batch_one_by_one_and_stream_agree(folders, name):
    chat = VisionLanguageChat(folders / name, device='cpu')
    together = chat.generate(PROMPTS, IMAGES, max_new_tokens=12)
    assert len(set(together)) == len(PROMPTS)
    for prompt, image, text in zip(PROMPTS, IMAGES, together, strict=True):
        assert chat.generate([prompt], [image], max_new_tokens=12) == [text]
        assert ''.join(chat.stream(prompt, image, max_new_tokens=12)) == text
    answers = chat.answer(PROMPTS, IMAGES, max_new_tokens=12)
    assert answers == [text.strip() for text in together]


def test_a_stream_stops_by_the_callers_criterion_too(chat):
    def short(ids, scores, **_):
        return torch.full((len(ids),), ids.shape[1] >= start + 3)

    how = dict(max_new_tokens=12, stopping_criteria=StoppingCriteriaList([short]))
    start = len(chat.encoder.encode_prompt(conversation_of('Hi'))['input_ids'])
    (text,) = chat.generate(['Hi'], **how)
    assert text != chat.generate(['Hi'], max_new_tokens=12)[0]
    assert ''.join(chat.stream('Hi', **how)) == text


def test_hybrid_is_one(folders):
    chat = VisionLanguageChat(folders / 'hybrid', device='cpu', dtype='bfloat16')
    assert chat.model.config.text_config.mamba_layers == [1, 2]
    kinds = {p.dtype for n, p in chat.model.named_parameters() if n.endswith('A_log')}
    assert kinds == {torch.float32}
    assert chat.model.lm_head.weight.dtype == torch.bfloat16
    assert len(chat.answer(['Hi'], [RED], max_new_tokens=2)) == 1


def test_what_transformers_says(chat):
    """The text is that of ``generate`` on the processor's own inputs."""
    inputs = tiny_processor()(
        text='<s>USER: <image>\nHi ASSISTANT: ',
        images=RED,
        add_special_tokens=False,
        return_tensors='pt',
    )
    model = chat.model
    ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    new = ids[0, inputs['input_ids'].shape[1] :]
    text = chat.processor.tokenizer.decode(new, skip_special_tokens=True)
    assert chat.generate(['Hi'], [RED], max_new_tokens=12) == [text]


def test_image_matters(chat):
    red, blue = chat.answer(['Hi', 'Hi'], [RED, BLUE], max_new_tokens=12)
    assert red != blue


def test_image_files_and_bytes(chat, tmp_path):
    RED.save(tmp_path / 'red.png')
    content = (tmp_path / 'red.png').read_bytes()
    images = [RED, str(tmp_path / 'red.png'), tmp_path / 'red.png', content]
    answers = chat.answer(['Hi'] * 4, images, max_new_tokens=8)
    assert len(set(answers)) == 1


def test_conversation(chat):
    """Earlier turns and their images are part of the prompt."""
    turns = [
        Turn('user', '<image>\nHi'),
        Turn('assistant', 'Ho'),
        Turn('user', 'And <image>?'),
    ]
    talk = Conversation(turns, [RED, BLUE])
    (text,) = chat.generate([talk], max_new_tokens=12)
    assert text != chat.generate(['And <image>?'], [BLUE], max_new_tokens=12)[0]
    assert ''.join(chat.stream(talk, max_new_tokens=12)) == text
    with pytest.raises(ValueError, match='has its own images'):
        chat.stream(talk, RED)


def test_places_of_images():
    assert conversation_of('Hi', [RED, BLUE]).turns[0].text == '<image>\n<image>\nHi'
    assert conversation_of('A <image>', RED).turns[0].text == 'A <image>'
    assert conversation_of('Hi').images == []


def test_temperature():
    greedy = dict(temperature=None, top_p=None, top_k=None, do_sample=False)
    assert sampling_settings(dict(temperature=0, top_p=0.9)) == greedy
    assert sampling_settings(dict(temperature=0.5)) == dict(
        temperature=0.5, do_sample=True
    )
    assert sampling_settings(dict(max_new_tokens=3)) == dict(max_new_tokens=3)
    assert sampling_settings(dict(do_sample=True)) == dict(
        do_sample=True, temperature=1.0
    )
    warm = AnswerHead(do_sample=True, temperature=0.2)
    assert sampling_settings(dict(do_sample=True), 0.2)['temperature'] == 0.2
    assert sampling_settings(dict(do_sample=True, temperature=3), 0.2) == dict(
        do_sample=True, temperature=3
    )
    chat = VisionLanguageChat.__new__(VisionLanguageChat)
    chat.head = warm
    assert chat._head(dict(do_sample=True)).generation['temperature'] == 0.2


def test_sampling_draws(chat):
    torch.manual_seed(0)
    texts = chat.generate(['Hi'] * 4, max_new_tokens=12, temperature=5.0)
    assert len(set(texts)) > 1


def test_greedy_whatever_the_folder_says(folders, chat):
    model = tiny_llava()
    model.generation_config.update(do_sample=True, temperature=5.0)
    other = VisionLanguageChat(model, folders / 'llava', device='cpu')
    wanted = chat.generate(PROMPTS, IMAGES, max_new_tokens=8)
    assert other.generate(PROMPTS, IMAGES, max_new_tokens=8) == wanted


def test_head_finds_the_answer(folders):
    """The text ends with the stop string, which the answer has not."""
    plain = VisionLanguageChat(folders / 'llava', device='cpu')
    (text,) = plain.generate(['Hi'], [RED], max_new_tokens=12)
    stop = text[4:6]
    head = dict(type='AnswerHead', max_new_tokens=12, stop_strings=(stop,))
    chat = VisionLanguageChat(folders / 'llava', device='cpu', head=head)
    wanted = text[: text.index(stop) + len(stop)]
    assert chat.generate(['Hi'], [RED]) == [wanted]
    assert ''.join(chat.stream('Hi', RED)) == wanted
    assert chat.answer(['Hi'], [RED]) == [wanted.removesuffix(stop).strip()]


def test_reasoning_head(folders, monkeypatch):
    """The response ends with its stop tag; the answer is its conclusion."""
    plain = VisionLanguageChat(folders / 'llava', device='cpu')
    (text,) = plain.generate(['Hi'], [RED], max_new_tokens=12)
    stop = text[6:8]
    head = MODELS.build(dict(type='mmtransmamba.ReasoningHead', max_new_tokens=12))
    # The text of an untrained model has no tags.
    head.stop_strings = (stop,)
    monkeypatch.setattr('mmtransmamba.models.multimodal.heads.reasoning.STOP', stop)
    chat = VisionLanguageChat(folders / 'llava', device='cpu', head=head)
    wanted = text[: text.index(stop) + len(stop)]
    assert chat.generate(['Hi', 'Hi'], [RED, RED]) == [wanted] * 2
    assert ''.join(chat.stream('Hi', RED)) == wanted
    assert chat.answer(['Hi'], [RED]) == ['']


def test_until_stop():
    assert until_stop('a</X>\nb', ['</X>']) == 'a</X>'
    assert until_stop('ab##c--', ['--', '##']) == 'ab##'
    assert until_stop('ab', ['--']) == 'ab'


def test_stopping_early_ends_the_thread(chat):
    threads = active_count()
    pieces = chat.stream('Hi', max_new_tokens=100_000)
    next(pieces)
    started = time.perf_counter()
    pieces.close()
    assert active_count() == threads
    assert time.perf_counter() - started < 10


def test_errors_of_the_thread_reach_the_caller(chat):
    with pytest.raises(ValueError, match='max_new_tokens'):
        list(chat.stream('Hi', max_new_tokens=-3))
    with pytest.raises(ValueError, match='cannot be streamed'):
        list(chat.stream('Hi', num_beams=2))


def test_wrong_arguments(chat, tmp_path):
    assert chat.answer([]) == []
    with pytest.raises(TypeError, match='has to be a list'):
        chat.answer('Hi')
    with pytest.raises(ValueError, match='2 prompts need as many'):
        chat.answer(['Hi', 'Ho'], [RED])
    with pytest.raises(BadSampleError, match='there is no file'):
        chat.answer(['Hi'], [tmp_path / 'absent.png'])
    with pytest.raises(BadSampleError, match='1 times <image>'):
        chat.answer(['<image> Hi'])


def test_chat_template(tmp_path):
    save_tiny_llava(tmp_path)
    (tmp_path / 'chat_template.jinja').unlink()
    with pytest.raises(ValueError, match='has no chat template; choose one of'):
        VisionLanguageChat(tmp_path, device='cpu')
    chat = VisionLanguageChat(tmp_path, device='cpu', template='llava_v1')
    assert len(chat.answer(['Hi'], [RED], max_new_tokens=2)) == 1


def test_wrong_folders(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match='no model folder "absent"'):
        VisionLanguageChat('absent')
    (tmp_path / 'file').touch()
    with pytest.raises(FileNotFoundError, match='is a file'):
        VisionLanguageChat(tmp_path / 'file')
    sizes = dict(vocab_size=8, hidden_size=8, intermediate_size=8)
    config = LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(config).save_pretrained(tmp_path / 'text')
    with pytest.raises(ValueError, match='text" holds no vision-language model'):
        VisionLanguageChat(tmp_path / 'text')
    tiny_llava().save_pretrained(tmp_path / 'alone')
    with pytest.raises(ValueError, match='No processor can be read'):
        VisionLanguageChat(tmp_path / 'alone')
    chat = VisionLanguageChat(tmp_path / 'alone', folders / 'llava', device='cpu')
    assert type(chat.processor).__name__ == 'LlavaProcessor'


def test_wrong_weights(tmp_path):
    save_tiny_llava(tmp_path)
    model = tiny_llava()
    state = model.state_dict()
    del state['model.multi_modal_projector.linear_1.bias']
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(CheckpointError, match='1 missing.*projector.linear_1.bias'):
        VisionLanguageChat(tmp_path, device='cpu')


def test_dtype(folders):
    with pytest.raises(ValueError, match="device='gpu' cannot be used; give"):
        VisionLanguageChat(folders / 'llava', device='gpu')
    with pytest.raises(ValueError, match='dtype must be float32'):
        VisionLanguageChat(folders / 'llava', dtype='int8')


def test_hub(folders, tmp_path, monkeypatch):
    """Offline, a hub model is read from the cache, or the error explains it."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(FileNotFoundError, match='no folder "some/model" here, and no'):
        VisionLanguageChat('some/model')
    cached = tmp_path / 'models--some--model'
    (cached / 'refs').mkdir(parents=True)
    (cached / 'refs' / 'main').write_text('0' * 40)
    (cached / 'snapshots').mkdir()
    (cached / 'snapshots' / ('0' * 40)).symlink_to(folders / 'llava')
    chat = VisionLanguageChat('some/model', device='cpu')
    assert len(chat.answer(['Hi'], [RED], max_new_tokens=2)) == 1


class TestFromConfig:
    @pytest.fixture
    def trained(self, folders, tmp_path):
        """A checkpoint of other weights than the folder's, and its model."""
        model = VisionLanguageModel(path=str(folders / 'llava'))
        with torch.no_grad():
            for parameter in model.lm.lm_head.parameters():
                parameter.copy_(parameter.flip(0))
        torch.save(dict(state_dict=model.state_dict()), tmp_path / 'last.pth')
        return tmp_path / 'last.pth', model.lm

    def config(self, folders, tmp_path, model=None):
        settings = dict(
            type='mmtransmamba.VisionLanguageModel',
            path=str(folders / 'llava'),
            head=dict(type='AnswerHead', max_new_tokens=7),
        )
        Config(dict(model=model or settings)).dump(tmp_path / 'config.py')
        return tmp_path / 'config.py', settings

    def test_model(self, folders, trained, tmp_path):
        checkpoint, lm = trained
        path, _ = self.config(folders, tmp_path)
        chat = VisionLanguageChat.from_config(path, checkpoint, device='cpu')
        wanted = VisionLanguageChat(lm, folders / 'llava', device='cpu')
        texts = chat.generate(PROMPTS, IMAGES)
        assert texts == wanted.generate(PROMPTS, IMAGES, max_new_tokens=7)
        before = VisionLanguageChat.from_config(path, device='cpu')
        assert texts != before.generate(PROMPTS, IMAGES)

    def test_student(self, folders, trained, tmp_path):
        """For a distiller's config: the student, without the distiller's tensors."""
        checkpoint, lm = trained
        _, student = self.config(folders, tmp_path)
        model = dict(
            type='mmtransmamba.LanguageDistiller',
            student=student,
            teacher=dict(type='mmtransmamba.VisionLanguageModel', path='absent'),
            terms=dict(kl=dict(type='mmtransmamba.TokenKLTerm')),
            head=dict(type='AnswerHead', max_new_tokens=3),
        )
        path, _ = self.config(folders, tmp_path, model)
        state = torch.load(checkpoint)
        state['state_dict']['distiller.terms.kl.weight'] = torch.ones(1)
        torch.save(state, checkpoint)
        chat = VisionLanguageChat.from_config(path, checkpoint, device='cpu')
        wanted = VisionLanguageChat(lm, folders / 'llava', device='cpu')
        texts = chat.generate(PROMPTS, IMAGES)
        assert texts == wanted.generate(PROMPTS, IMAGES, max_new_tokens=3)

    def test_template_of_the_data(self, folders, tmp_path):
        _, model = self.config(folders, tmp_path)
        data = dict(dataset=dict(dataset=dict(template='llava_v1')))
        config = Config(dict(model=model, train_dataloader=data))
        chat = VisionLanguageChat.from_config(config, device='cpu')
        assert chat.encoder.template == 'llava_v1'
        other = VisionLanguageChat.from_config(config, template='llava_plain')
        assert other.encoder.template == 'llava_plain'

    @pytest.mark.parametrize('system', ['blue', ''])
    def test_prompts_are_made_as_those_of_the_data(self, folders, tmp_path, system):
        _, model = self.config(folders, tmp_path)
        jinja = (
            "{{ tone }}{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}\n"
            '{% endfor %}'
        )
        settings = dict(
            template=jinja,
            template_variables=dict(tone='red '),
            system=system,
            image_place='first',
        )
        data = dict(dataset=dict(dataset=dict(settings)))
        config = Config(dict(model=model, train_dataloader=data))
        chat = VisionLanguageChat.from_config(config, device='cpu')
        asked = Conversation([Turn('user', f'what {IMAGE} is')], [IMAGES[0]])
        wanted = ConversationEncoder(
            chat.processor, **settings, max_length=None
        ).encode_prompt(asked)
        (got,) = chat._batch([asked])['input_ids']
        assert got.tolist() == wanted['input_ids'].tolist()
        assert asked.turns == [Turn('user', f'what {IMAGE} is')]
        without = VisionLanguageChat.from_config(config, template_variables={})
        (other,) = without._batch([asked])['input_ids']
        assert other.tolist() != got.tolist()

    def test_a_key_that_nobody_reads_is_named(self, folders, tmp_path):
        path, _ = self.config(folders, tmp_path)
        path.write_text(path.read_text() + '\ntrain_datalaoder = dict(batch_size=1)\n')
        with pytest.raises(ValueError, match='train_datalaoder'):
            VisionLanguageChat.from_config(path)

    def test_a_checkpoint_gives_load_and_chat_the_same_model(
        self, folders, trained, tmp_path
    ):
        checkpoint, _ = trained
        path, _ = self.config(folders, tmp_path)
        chat = VisionLanguageChat.from_config(path, checkpoint, device='cpu')
        loaded = load(checkpoint, path).lm.state_dict()
        for name, tensor in chat.model.state_dict().items():
            assert torch.equal(loaded[name], tensor), name

    def test_wrong(self, folders, trained, tmp_path):
        checkpoint, _ = trained
        path, _ = self.config(folders, tmp_path)
        with pytest.raises(
            FileNotFoundError, match='config file "absent.py" does not exist'
        ):
            VisionLanguageChat.from_config('absent.py')
        with pytest.raises(FileNotFoundError, match='no checkpoint at'):
            VisionLanguageChat.from_config(path, tmp_path / 'absent.pth')
        with pytest.raises(FileNotFoundError, match='give the folder alone'):
            VisionLanguageChat.from_config(path, folders / 'llava')
        state = torch.load(checkpoint)['state_dict']
        state['lm_head.weight'] = state['lm_head.weight'][:-1]
        torch.save(state, checkpoint)
        with pytest.raises(CheckpointError, match='lm_head.weight'):
            VisionLanguageChat.from_config(path, checkpoint)
        text = dict(type='mmtransmamba.CausalLM', path=str(folders / 'llava'))
        path, _ = self.config(folders, tmp_path, text)
        with pytest.raises(ValueError, match='has to be a VisionLanguageModel'):
            VisionLanguageChat.from_config(path, checkpoint)
