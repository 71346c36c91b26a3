import numpy as np
import pytest
import torch

from maskcls.augment import mixing

METHODS = ["mixup", "cutmix", "vertical_cutmix"]


def make_generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_images(batch=6, height=16, width=12):
    """Photo j is the constant j, so that every pixel tells whose it is."""
    return torch.arange(batch, dtype=torch.float32)[:, None, None, None].expand(
        batch, 3, height, width
    )


def many(name, times=300, images_BCHW=None, **options):
    mix, generator = mixing.build(name, **options), make_generator()
    images_BCHW = make_images() if images_BCHW is None else images_BCHW
    return [mix(images_BCHW, generator) for _ in range(times)]


@pytest.mark.parametrize("name", METHODS)
def test_the_share_is_what_is_left_of_each_photo(name):
    for mixed_BCHW, partner_B, share in many(name):
        own_B = torch.arange(6.0)
        expected_B = share * own_B + (1 - share) * partner_B
        torch.testing.assert_close(mixed_BCHW.mean(dim=(1, 2, 3)), expected_B)


@pytest.mark.parametrize("name", ["cutmix", "vertical_cutmix"])
def test_the_share_counts_pixels_exactly(name):
    for mixed_BCHW, partner_B, share in many(name):
        for photo, partner in enumerate(partner_B.tolist()):
            if partner != photo:
                left = (mixed_BCHW[photo, 0] == photo).sum().item()
                assert share == 1 - (192 - left) / 192
                assert ((mixed_BCHW[photo] == photo) | (mixed_BCHW[photo] == partner)).all()


def test_cutmix_pastes_one_box_into_every_photo():
    shapes = set()
    for mixed_BCHW, partner_B, _ in many("cutmix"):
        photo = int((partner_B != torch.arange(6)).int().argmax())
        pasted_HW = mixed_BCHW[photo, 0] != photo
        rows, columns = pasted_HW.any(dim=1), pasted_HW.any(dim=0)
        assert torch.equal(pasted_HW, rows[:, None] & columns[None])
        shapes.add((int(rows.sum()), int(columns.sum())))
    assert len(shapes) > 30


@pytest.mark.parametrize(("share", "height", "width"), [(0.75, 32, 24), (0.36, 51, 38)])
def test_the_box_has_the_shape_of_a_photo_and_lies_anywhere(share, height, width):
    """Its centre may be any pixel (CutMix, section 3.1): what would stick out is left away."""
    own_BCHW, partners_BCHW = torch.zeros(1, 1, 64, 48), torch.ones(1, 1, 64, 48)
    rng = np.random.default_rng(0)
    boxes = []
    for _ in range(300):
        pasted_HW = mixing._cutmix(own_BCHW, partners_BCHW, share, rng)[0][0, 0].bool()
        boxes.append([pasted_HW.any(dim=1).nonzero(), pasted_HW.any(dim=0).nonzero()])
    for axis, (of_photo, of_box) in enumerate([(64, height), (48, width)]):
        ends = {(int(box[axis][0]), int(box[axis][-1]) + 1) for box in boxes}
        for first, end in ends:
            whole = abs(end - first - of_box) <= 1
            assert whole or (end - first < of_box and (first == 0 or end == of_photo))
        assert min(first for first, _ in ends) == 0 and max(end for _, end in ends) == of_photo
        assert len(ends) > of_photo // 2


def test_vertical_cutmix_cuts_at_one_column_near_the_middle():
    shares, sides = [], set()
    for mixed_BCHW, partner_B, share in many("vertical_cutmix", images_BCHW=make_images(4, 3, 200)):
        photo = int((partner_B != torch.arange(4)).int().argmax())
        pasted_W = (mixed_BCHW[photo] != photo).all(dim=(0, 1))
        assert torch.equal(pasted_W, (mixed_BCHW[photo] != photo).any(dim=0).any(dim=0))
        if pasted_W.any():
            assert pasted_W.diff().sum() == 1
            sides.add("left" if pasted_W[0] else "right")
        shares.append(share)
    assert sides == {"left", "right"}
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert np.std(shares) == pytest.approx(0.05, abs=0.01)


def test_pixels_stay_where_they_were():
    rows = torch.rand(2, 3, 8, 10, generator=make_generator())
    for mixed_BCHW, partner_B, _ in many("vertical_cutmix", 50, rows):
        assert ((mixed_BCHW == rows) | (mixed_BCHW == rows[partner_B])).all()


@pytest.mark.parametrize(
    ("name", "alpha", "std"),
    [
        ("mixup", None, 0.423),
        ("mixup", 1.0, 0.289),
        ("mixup", 8.0, 0.121),
        ("vertical_cutmix", 8.0, 0.121),
    ],
)
def test_shares_follow_a_beta_of_alpha(name, alpha, std):
    images_BCHW = make_images(2, 1, 500)
    shares = [share for *_, share in many(name, 3000, images_BCHW, alpha=alpha)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
    assert np.std(shares) == pytest.approx(std, abs=0.015)


@pytest.mark.parametrize("name", METHODS)
def test_partners_are_a_permutation(name):
    for _, partner_B, _ in many(name, 20):
        assert partner_B.dtype == torch.int64
        assert sorted(partner_B.tolist()) == list(range(6))


@pytest.mark.parametrize("name", [*METHODS, "none"])
def test_the_same_generator_state_mixes_alike(name):
    images_BCHW = torch.rand(5, 3, 9, 7, generator=make_generator(1))
    first, second = (mixing.build(name)(images_BCHW, make_generator(3)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert first[2] == second[2]


@pytest.mark.parametrize("name", METHODS)
def test_another_generator_state_mixes_differently(name):
    assert len({share for *_, share in many(name, 50)}) >= 3
    assert len({tuple(partner_B.tolist()) for _, partner_B, _ in many(name, 50)}) > 40


@pytest.mark.parametrize("name", METHODS)
def test_the_images_given_stay(name):
    images_BCHW = torch.rand(4, 3, 8, 6, generator=make_generator())
    before = images_BCHW.clone()
    many(name, 20, images_BCHW)
    assert torch.equal(images_BCHW, before)


@pytest.mark.parametrize("name", [*METHODS, "none"])
def test_a_batch_of_one_is_its_own_partner(name):
    image_BCHW = torch.rand(1, 3, 8, 6, generator=make_generator())
    for mixed_BCHW, partner_B, share in many(name, 20, image_BCHW):
        torch.testing.assert_close(mixed_BCHW, image_BCHW)
        assert partner_B.tolist() == [0]
        assert 0 <= share <= 1


@pytest.mark.parametrize("options", [{"name": "none"}, {"name": "cutmix", "probability": 0.0}])
def test_an_unmixed_batch_is_the_batch_itself(options):
    images_BCHW = make_images()
    mixed_BCHW, partner_B, share = mixing.build(**options)(images_BCHW, make_generator())
    assert mixed_BCHW is images_BCHW
    assert partner_B.tolist() == list(range(6))
    assert share == 1.0


def test_batches_are_mixed_as_often_as_asked():
    images_BCHW = make_images()
    mixed = sum(
        out is not images_BCHW for out, *_ in many("mixup", 2000, images_BCHW, probability=0.3)
    )
    assert mixed / 2000 == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("name", METHODS)
def test_soft_targets_stay_soft_and_sum_to_one(name):
    targets_BK = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.2, 0.8], [0.3, 0.3, 0.4]])
    for _, partner_B, share in many(name, 50, make_images(3)):
        mixed_BK = mixing.mix_targets(targets_BK, partner_B, share)
        torch.testing.assert_close(mixed_BK.sum(dim=1), torch.ones(3))
        expected_BK = share * targets_BK + (1 - share) * targets_BK[partner_B]
        torch.testing.assert_close(mixed_BK, expected_BK)


def test_ages_are_mixed_too():
    ages_B = mixing.mix_targets(torch.tensor([20.0, 60.0]), torch.tensor([1, 0]), 0.75)
    assert ages_B.tolist() == [30.0, 50.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cutmx"}, "unknown mixing 'cutmx'; did you mean 'cutmix'"),
        ({"name": "zzz"}, "known: none, mixup, cutmix, vertical_cutmix"),
        ({"name": "mixup", "alpha": 0.0}, "above 0"),
        ({"name": "none", "alpha": 1.0}, "none takes no alpha"),
        ({"name": "mixup", "probability": 1.2}, "from 0 to 1, got 1.2"),
    ],
)
def test_what_cannot_be_built_says_why(options, message):
    with pytest.raises(ValueError, match=message):
        mixing.build(**options)


# Partners from chosen groups


@pytest.mark.parametrize("name", METHODS)
def test_partners_come_from_those_that_may_be(name):
    mix, generator = mixing.build(name), make_generator()
    allowed, seen = np.array([False, True, False, False, True, False]), set()
    for _ in range(50):
        mixed_BCHW, partner_B, share = mix(make_images(), generator, allowed)
        expected_B = share * torch.arange(6.0) + (1 - share) * partner_B
        torch.testing.assert_close(mixed_BCHW.mean(dim=(1, 2, 3)), expected_B)
        seen |= set(partner_B.tolist())
    assert seen == {1, 4}


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_without_a_partner_is_not_mixed(name):
    images = make_images()
    mixed, partner_B, share = mixing.build(name)(images, make_generator(), np.zeros(6, bool))
    assert torch.equal(mixed, images)
    assert (partner_B.tolist(), share) == (list(range(6)), 1.0)


def test_a_group_is_an_age_and_a_gender():
    ages, genders = np.array([29, 30, 39, 40, 60, 60]), np.array([0, 0, 1, 0, 0, 1])
    groups = [{"ages": (30, 39), "gender": "male"}, {"ages": (60, 99), "gender": None}]
    found = mixing.may_be_partners(groups, ages, genders)
    assert found.tolist() == [False, True, False, False, True, True]
    women = mixing.may_be_partners([{"ages": (30, 60), "gender": "female"}], ages, genders)
    assert women.tolist() == [False, False, True, False, False, True]
    assert mixing.may_be_partners([], ages, genders) is None


def test_a_group_of_nobody_is_refused():
    with pytest.raises(ValueError, match=r"augment\.mix\.partners: nobody.* 70 to 99 years"):
        mixing.may_be_partners(
            [{"ages": (70, 99), "gender": None}], np.array([20, 69]), np.array([0, 1])
        )
