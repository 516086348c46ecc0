import numpy as np
import pytest

from mmdet_contrast.datasets.transforms import ObjectBank


def image(value, size=64, dtype=np.uint8, channels=3):
    return np.full((size, size) if channels is None else (size, size, channels), value, dtype)


def add(bank, value, labels, sides=None, key=None, covered=None, seed=0, **kwargs):
    """Objects side by side from the left, whose pixels all have one value."""
    sides = [16] * len(labels) if sides is None else sides
    lefts = np.cumsum([0, *sides[:-1]])
    pixels = np.array([[x, 0, x + side, side] for x, side in zip(lefts, sides)]).reshape(-1, 4)
    img = image(value, max(64, sum(sides)), **kwargs)
    covered = np.zeros(len(labels)) if covered is None else np.array(covered)
    rng = np.random.default_rng(seed)
    bank.add(img, pixels, np.array(labels), covered, value if key is None else key, rng)
    return img


def values(bank, label, like=None, key='other', row=0):
    like = image(0) if like is None else like
    crops = [bank.draw(label, like, key, row, share) for share in np.linspace(0, 0.999, 200)]
    return sorted({int(crop.flat[0]) for crop in crops if crop is not None})


def test_only_crops_of_the_class_are_drawn_and_each_of_them_is():
    bank = ObjectBank()
    for value, label in ((1, 0), (2, 0), (3, 1)):
        add(bank, value, [label])
    assert (values(bank, 0), values(bank, 1), values(bank, 2)) == ([1, 2], [3], [])
    assert len(bank) == 3 and bank.nbytes == 3 * 16 * 16 * 3
    counts = np.bincount([bank.draw(0, image(0), 'x', 0, u / 100)[0, 0, 0] for u in range(100)])
    assert counts.tolist() == [0, 50, 50]


def test_never_the_object_itself():
    bank = ObjectBank()
    img = add(bank, 1, [0, 0, 5])
    own = {row: bank.draw(0, img, 1, row, 0.0) for row in (0, 1)}
    assert own[0] is not own[1] and own[0] is not None
    assert bank.draw(5, img, 1, 2, 0.0) is None
    assert bank.draw(5, img, 2, 2, 0.0) is not None


def test_an_image_that_comes_again_replaces_its_own_crops():
    bank = ObjectBank()
    add(bank, 1, [0, 0, 1], key='a')
    add(bank, 2, [0], key='b')
    add(bank, 3, [1], key='a')
    assert (values(bank, 0), values(bank, 1)) == ([2], [3])
    assert bank.nbytes == 2 * 16 * 16 * 3


def test_small_covered_and_left_out_objects_are_not_kept():
    bank = ObjectBank(min_size=10, max_covered=0.25)
    add(bank, 1, [0, 1, 2, 3], sides=[10, 9, 12, 12], covered=[0, 0, 0.25, 0.26])
    assert [bank.count(label) for label in range(4)] == [1, 0, 1, 0]
    bank = ObjectBank(min_size=10)
    pixels = np.array([[0, 0, 10, 10], [10, 0, 20, 10]])
    only = np.array([False, True])
    bank.add(image(1), pixels, np.array([4, 5]), np.zeros(2), 0, np.random.default_rng(0), only)
    assert (bank.count(4), bank.count(5)) == (0, 1)


def test_bounds_of_a_class_and_of_an_image():
    bank = ObjectBank(max_per_class=5, max_per_image=2)
    add(bank, 1, [0] * 4)
    assert bank.count(0) == 2
    for value in range(2, 60):
        add(bank, value, [0], seed=value)
        assert bank.count(0) <= 5
    kept = values(bank, 0)
    # a random crop gives way: neither the first nor the last five
    assert len(kept) == 5 and 59 in kept and kept != list(range(55, 60))


def test_bytes_are_bounded_and_the_largest_class_gives_way():
    one = 16 * 16 * 3
    bank = ObjectBank(max_bytes=4 * one, max_per_image=9)
    add(bank, 1, [7])
    for value in range(2, 30):
        add(bank, value, [0, 0], seed=value)
        assert bank.nbytes <= 4 * one
    assert bank.count(7) == 1 and bank.count(0) == 3
    add(bank, 99, [3], sides=[64])  # larger than all the room there is
    assert bank.nbytes <= 4 * one


def test_large_objects_are_kept_reduced():
    bank = ObjectBank(max_side=20)
    pixels = np.array([[0, 0, 60, 30]])
    bank.add(image(9), pixels, np.array([0]), np.zeros(1), 0, np.random.default_rng(0))
    crop = bank.draw(0, image(0), 1, 0, 0.5)
    assert crop.shape == (10, 20, 3) and (crop == 9).all()


def test_crops_are_copies():
    bank = ObjectBank()
    img = add(bank, 1, [0])
    img[:] = 200
    assert values(bank, 0) == [1]


@pytest.mark.parametrize(
    'like', [image(0, dtype=np.float32), image(0, channels=1), image(0, channels=None)]
)
def test_crops_of_another_kind_of_image_are_not_used(like):
    bank = ObjectBank()
    add(bank, 1, [0])
    assert bank.draw(0, like, 'x', 0, 0.5) is None
    add(bank, 2, [0], dtype=like.dtype, channels=like.shape[2] if like.ndim == 3 else None)
    assert values(bank, 0, like) == [2]


def test_seeded():
    banks = []
    for seed in (1, 1, 2):
        bank = ObjectBank(max_per_class=3)
        for value in range(40):
            add(bank, value, [0], seed=[seed, value])
        banks.append(values(bank, 0))
    assert banks[0] == banks[1] != banks[2]


@pytest.mark.parametrize(
    'name, value',
    [
        ('max_per_class', 1),
        ('max_per_image', 0),
        ('min_size', 0),
        ('max_side', 0),
        ('max_bytes', 0),
        ('max_covered', 1.5),
        ('max_covered', float('nan')),
    ],
)
def test_wrong_settings(name, value):
    with pytest.raises(ValueError, match=f'{name}={value}'):
        ObjectBank(**{name: value})
    assert 'max_per_class=32' in repr(ObjectBank())
