"""Videos of any dtype arrive normalised, all else untouched."""

import pytest
import torch
from tiny_retrievers import training_batch

from mmtransmamba.models.retrieval import RetrievalDataPreprocessor
from mmtransmamba.models.retrieval.data_preprocessor import CLIP_MEAN, CLIP_STD
from mmtransmamba.registry import MODELS


def test_videos_are_normalised_as_clips_images():
    transformers = pytest.importorskip('transformers')
    batch = training_batch(2)
    data = RetrievalDataPreprocessor()(batch)
    processor = transformers.CLIPImageProcessor(
        do_resize=False, do_center_crop=False, do_convert_rgb=False
    )
    frames = list(batch['video'][1].transpose(0, 1))
    expected = processor(frames, return_tensors='pt')['pixel_values']
    torch.testing.assert_close(
        data['inputs'][1].transpose(0, 1), expected, atol=1e-5, rtol=0
    )


def test_float_videos_and_lists_are_the_same():
    batch = training_batch(2)
    preprocessor = MODELS.build(dict(type='mmtransmamba.RetrievalDataPreprocessor'))
    expected = preprocessor(batch)['inputs']
    video = batch['video']
    assert torch.equal(preprocessor(dict(video=video.float()))['inputs'], expected)
    assert torch.equal(preprocessor(dict(video=list(video)))['inputs'], expected)
    assert expected.dtype == torch.float32


def test_captions_and_names_pass():
    batch = training_batch(2)
    samples = RetrievalDataPreprocessor()(batch)['data_samples']
    assert set(samples) == set(batch) - {'video'}
    assert samples['video_id'] == batch['video_id']
    assert torch.equal(samples['input_ids'], batch['input_ids'])


def test_it_is_no_part_of_checkpoints():
    preprocessor = RetrievalDataPreprocessor()
    assert preprocessor.state_dict() == {}
    assert preprocessor.mean.flatten().tolist() == pytest.approx(CLIP_MEAN)
    assert preprocessor.std.flatten().tolist() == pytest.approx(CLIP_STD)


@pytest.mark.parametrize('shape', [(2, 3, 8, 8), (2, 1, 4, 8, 8)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r'video must be \[B, 3, T, H, W\], not'):
        RetrievalDataPreprocessor()(dict(video=torch.zeros(shape)))


def test_mean_and_std_must_agree():
    with pytest.raises(ValueError, match='one number per channel each'):
        RetrievalDataPreprocessor(mean=[0.0], std=[1.0, 1.0])


def test_std_must_be_positive():
    with pytest.raises(ValueError, match=r'std=\[0, 1, 1\] must be positive'):
        RetrievalDataPreprocessor(std=[0, 1, 1])


def test_batches_without_video_are_refused():
    batch = dict(inputs=torch.zeros(1, 3, 2, 8, 8), data_samples=[])
    with pytest.raises(ValueError, match='inputs, data_samples has no video; collate'):
        RetrievalDataPreprocessor()(batch)
