"""mean@n and pass@k against enumeration, and their edges."""

from itertools import combinations
from math import comb
from subprocess import run as run_process
from sys import executable

import numpy as np
import pytest

from sdpg.evaluation.estimators import check_pass_k, mean_at_n, pass_at_k


def test_pass_at_k_equals_enumeration_of_all_subsets():
    for n in range(1, 9):
        for c in range(n + 1):
            correct = [i < c for i in range(n)]
            for k in range(1, n + 1):
                hits = [any(correct[i] for i in subset) for subset in combinations(range(n), k)]
                assert pass_at_k(n, c, k) == pytest.approx(np.mean(hits), abs=1e-12)


def test_pass_at_k_is_vectorised_and_stable_for_large_n():
    c = np.array([[0, 1, 500], [999, 1000, 3]])
    got = pass_at_k(1000, c, 200)
    exact = [[1 - comb(1000 - int(x), 200) / comb(1000, 200) for x in row] for row in c]
    assert got.shape == c.shape
    np.testing.assert_allclose(got, exact, rtol=1e-12, atol=1e-15)
    assert pass_at_k(100_000, [1], 50_000)[0] == pytest.approx(0.5)


def test_pass_at_1_is_the_mean():
    c = np.arange(9)
    np.testing.assert_allclose(pass_at_k(8, c, 1), mean_at_n(8, c))


def test_pass_at_k_is_unbiased():
    p, n, k = 0.2, 8, 4
    c = np.random.default_rng(0).binomial(n, p, size=200_000)
    assert pass_at_k(n, c, k).mean() == pytest.approx(1 - (1 - p) ** k, abs=0.005)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
def test_impossible_numbers_are_errors(n, c, k):
    with pytest.raises(ValueError, match="got"):
        pass_at_k(n, c, k)


def test_k_above_n_is_one_clear_error():
    check_pass_k(8, [1, 4, 8])
    with pytest.raises(ValueError, match=r"k = 16.*draws 8 responses.*evaluation\.samples"):
        check_pass_k(8, [1, 16])


def test_estimators_import_neither_torch_nor_vllm():
    code = "import sys, sdpg.evaluation.estimators; assert not {'torch', 'vllm', 'transformers'} & set(sys.modules)"
    run_process([executable, "-c", code], check=True)
