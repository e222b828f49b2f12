"""The sources that need no files: digits, two-digits, synthetic."""

import numpy as np
import pytest
import torch

from fedmtl.data.digits import digits, load_images, split_order
from fedmtl.data.synthetic import synthetic
from fedmtl.data.two_digits import two_digits
from fedmtl.errors import ConfigError


def test_the_images_are_those_that_scikit_learn_gives():
    from sklearn.datasets import load_digits

    images, labels = load_images()
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    bunch = load_digits()
    assert np.array_equal(images, (bunch.images / 16.0).astype(np.float32))
    assert np.array_equal(labels, bunch.target)


def test_digits_have_four_tasks_of_different_kinds_and_scales():
    pool = digits(0, 100)
    assert [(t.name, t.kind, t.loss, t.loss_factor) for t in pool.tasks] == [
        ("digit", "classification", "cross_entropy", 1.0),
        ("parity", "binary", "binary_cross_entropy", 0.05),
        ("ink", "regression", "squared_error", 30.0),
        ("asymmetry", "regression", "absolute_error", 5.0),
    ]
    assert pool.train.features.shape == (1297, 1, 8, 8)
    assert pool.test.features.shape == (500, 1, 8, 8)
    assert pool.train.features.dtype == torch.float32
    assert pool.train.features.is_contiguous()
    assert pool.train.features.min() == 0
    assert pool.train.features.max() == 1
    digit, parity = pool.train.targets[:2]
    assert digit.dtype == torch.int64
    assert torch.equal(parity, (digit % 2).float())


def test_digits_without_noise_are_what_the_pixels_say():
    pool = digits(3, 100, target_noise=0.0)
    for part in (pool.train, pool.test):
        pixels = part.features[:, 0].double()
        ink = pixels[:, :4].sum((1, 2))
        asymmetry = pixels[:, :, :4].sum((1, 2)) - pixels[:, :, 4:].sum((1, 2))
        # The correlation is 1 up to the rounding of targets to float32.
        assert np.corrcoef(ink, part.targets[2])[0, 1] > 1 - 1e-9
        assert np.corrcoef(asymmetry, part.targets[3])[0, 1] > 1 - 1e-9
    for target in pool.train.targets[2:]:
        assert abs(target.double().mean()) < 1e-6
        assert abs(target.double().std(correction=0) - 1) < 1e-6


def test_digits_noise_has_half_a_deviation_and_is_independent_of_the_other_task():
    noisy, clean = digits(0, 100), digits(0, 100, target_noise=0.0)
    noise = [(noisy.train.targets[i] - clean.train.targets[i]).numpy() for i in (2, 3)]
    # 1297 draws: the standard error of the deviation is 0.5 / sqrt(2 * 1297) = 0.01, of a correlation 0.028.
    assert all(abs(values.std() - 0.5) < 0.05 for values in noise)
    assert abs(np.corrcoef(*noise)[0, 1]) < 0.14


def test_digits_split_is_a_permutation_that_depends_on_the_seed():
    assert sorted(split_order(0)) == list(range(1797))
    assert not np.array_equal(split_order(0), split_order(1))
    images, _ = load_images()
    assert np.array_equal(digits(7, 1).test.features[:, 0].numpy(), images[split_order(7)[1297:]])
    assert all(torch.equal(a, b) for a, b in zip(digits(7, 1).train.targets, digits(7, 50).train.targets, strict=True))


@pytest.mark.parametrize(("canvas", "rows"), [("8x12", 8), ("12x12", 12)])
def test_two_digits_show_both_digits(canvas, rows):
    pool = two_digits(0, 10, canvas=canvas, pairs=300, test_pairs=40)
    images, labels = load_images()
    assert pool.train.features.shape == (300, 1, rows, 12)
    assert pool.test.features.shape == (40, 1, rows, 12)
    assert [task.name for task in pool.tasks] == ["left", "right"]
    picture, left, right = pool.train.features[0, 0].numpy(), *(int(target[0]) for target in pool.train.targets)
    # Columns that only one digit touches show it as it is.
    assert (np.all(images[labels == left][:, :, :4] == picture[:8, :4], axis=(1, 2))).any()
    assert (np.all(images[labels == right][:, :, 4:] == picture[rows - 8 :, 8:], axis=(1, 2))).any()


def test_two_digits_are_tested_on_images_that_are_not_trained_on():
    pool = two_digits(0, 10, pairs=400, test_pairs=400)
    images, _ = load_images()
    left_of = {image[:, :4].tobytes() for image in images[split_order(0)[:1297]]}
    seen = [picture[:, :4].tobytes() in left_of for picture in pool.test.features[:, 0].numpy()]
    # A few different digits agree in their left half, which is often empty.
    assert np.mean(seen) < 0.05


def test_synthetic_clients_differ_more_as_alpha_and_beta_grow():
    def spreads(alpha: float, beta: float) -> tuple[float, float]:
        pool = synthetic(0, 200, synthetic_alpha=alpha, synthetic_beta=beta, synthetic_log_sigma=0.1)
        users, features = pool.natural, pool.train.features.numpy()
        means = np.stack([features[users == k].mean() for k in range(200)])
        return float(means.var()), len(pool.train)

    # The mean of 60 features with mean B_k has variance beta + 1/60, plus a sampling error below 0.01.
    assert spreads(1.0, 0.0)[0] < 0.03
    assert 0.7 < spreads(1.0, 1.0)[0] < 1.4
    assert 2.8 < spreads(1.0, 4.0)[0] < 5.6


def test_synthetic_labels_are_those_of_each_clients_own_linear_model():
    pool = synthetic(1, 5, synthetic_least=400, synthetic_log_mean=0.0, synthetic_classes=3, synthetic_features=4)
    features, labels = pool.train.features.double().numpy(), pool.train.targets[0].numpy()
    for client in range(5):
        x, y = features[pool.natural == client], labels[pool.natural == client]
        inputs = torch.from_numpy(np.concatenate([x, np.ones((len(x), 1))], axis=1))
        weights = torch.zeros(5, 3, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

        def loss(inputs=inputs, y=y, weights=weights, optimiser=optimiser):
            optimiser.zero_grad()
            value = torch.nn.functional.cross_entropy(inputs @ weights, torch.from_numpy(y))
            value.backward()
            return value

        optimiser.step(loss)
        # Noise-free linear labels are separable, so a linear model fits nearly all of them.
        assert ((inputs @ weights).argmax(1).numpy() == y).mean() > 0.98


def test_synthetic_sizes_follow_the_options_and_a_tenth_is_for_testing():
    pool = synthetic(0, 50, synthetic_least=20, synthetic_log_sigma=0.0, synthetic_log_mean=float(np.log(30.5)))
    assert set(np.bincount(pool.natural)) == {45}
    assert len(pool.test) == 50 * 5


def test_synthetic_examples_depend_on_the_seed_alone():
    few, again = synthetic(3, 4), synthetic(3, 4)
    assert torch.equal(few.train.features, again.train.features)
    assert not torch.equal(synthetic(4, 4).train.features[:50], few.train.features[:50])


def test_tasks_are_chosen_and_ordered_by_name():
    pool = digits(0, 100)
    chosen = pool.choose(["ink", "digit"])
    assert [task.name for task in chosen.tasks] == ["ink", "digit"]
    assert torch.equal(chosen.train.targets[0], pool.train.targets[2])
    assert torch.equal(chosen.test.targets[1], pool.test.targets[0])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["inc"], "'inc' is not a task of the data .did you mean 'ink'\\?.; known: digit, parity, ink, asymmetry"),
        (["ink", "ink"], "'ink' is given twice"),
        ([], "tasks.names is empty"),
    ],
)
def test_wrong_task_names_are_refused(names, message):
    with pytest.raises(ConfigError, match=message):
        digits(0, 100).choose(names)
