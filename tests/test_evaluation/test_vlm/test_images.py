"""Finding the images of benchmarks in the folders they are published in."""

import pytest

from mmtransmamba.evaluation.vlm import BENCHMARKS, VLMSample, find_images

PLACES = {
    'pope': ('COCO_val2014_1.jpg', 'pope/val2014/COCO_val2014_1.jpg'),
    'mme': (
        'artwork/1.jpg',
        'mme/MME_Benchmark_release_version/artwork/images/1.jpg',
    ),
    'mmbench': ('1.jpg', 'mmbench/images/1.jpg'),
    'seed_image': (
        '1454426_2591111986',
        'seed_bench/SEED-Bench-image/1454426_2591111986',
    ),
    'mmmu': ('validation_Art_1_2.png', 'mmmu/images/validation_Art_1_2.png'),
    'ai2d': ('abc_images/5.png', 'ai2d/abc_images/5.png'),
    'ai2d_no_mask': ('images/5.png', 'ai2d/images/5.png'),
    'mathvista': ('images/1.jpg', 'mathvista/images/1.jpg'),
    'scienceqa_img': ('5/image.png', 'scienceqa/images/test/5/image.png'),
    'textvqa': ('003a.jpg', 'textvqa/train_images/003a.jpg'),
    'gqa': ('n1.jpg', 'gqa/images/n1.jpg'),
    'vqav2': ('COCO_val2014_1.jpg', 'coco/val2014/COCO_val2014_1.jpg'),
    'vqav2_testdev': ('COCO_test2015_1.jpg', 'vqav2/test2015/COCO_test2015_1.jpg'),
    'mm_vet': ('v1_0.png', 'mm_vet/images/v1_0.png'),
}


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


def test_every_benchmark_has_a_place():
    assert set(PLACES) == set(BENCHMARKS)


@pytest.mark.parametrize('name', BENCHMARKS)
def test_published_layout(tmp_path, name):
    image, place = PLACES[name]
    wanted = touch(tmp_path / place)
    folders = BENCHMARKS[name].image_folders(tmp_path)
    (found,) = find_images([VLMSample('1', 'What?', images=(image,))], folders)
    assert found.images == (wanted,)
    assert (found.question_id, found.prompt) == ('1', 'What?')


def test_names_without_suffix_and_embedded_images(tmp_path):
    wanted = touch(tmp_path / 'a.b.jpg')
    sample = VLMSample('1', 'What?', images=('a.b', b'content'))
    assert find_images([sample], [tmp_path])[0].images == (wanted, b'content')


def test_first_folder_first(tmp_path):
    touch(tmp_path / 'b' / '1.jpg')
    wanted = touch(tmp_path / 'a' / '1.jpg')
    sample = VLMSample('1', 'What?', images=('1.jpg',))
    folders = [tmp_path / 'a', tmp_path / 'b']
    assert find_images([sample], folders)[0].images == (wanted,)


def test_missing_images(tmp_path):
    touch(tmp_path / '1.jpg')
    samples = [VLMSample(str(i), '', images=(f'{i}.jpg',)) for i in (1, 2, 2, 3, 4, 5)]
    with pytest.raises(FileNotFoundError) as error:
        find_images(samples, [tmp_path, tmp_path / 'b'])
    assert str(error.value) == (
        f'4 images are missing (2.jpg, 3.jpg, 4.jpg, …). They are looked for in '
        f'{tmp_path} and {tmp_path / "b"}.'
    )


def test_annotations_without_images():
    samples = [VLMSample('1', '', images=(b'',)), VLMSample('2', '')]
    with pytest.raises(ValueError, match=r'1 of 2 questions .* image \(2\)'):
        find_images(samples, ['.'])
