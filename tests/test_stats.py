"Intervals and tests against other implementations and against simulations."
import math

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binomtest, kstest
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from medvlm.stats import (Measure, Score, bca_ends, difference, draw_weights, group_share, holm, mcnemar, mean_of, pair, ratio, right_of, score, score_all, share, sum_by,
                          swap_test, wilson)


@pytest.mark.parametrize('k,n', [(0, 1), (1, 1), (0, 40), (40, 40), (3, 7), (16, 20), (499, 500), (812, 1000)])
@pytest.mark.parametrize('level', [.9, .95, .99])
def test_wilson_is_scipys_and_statsmodels(k, n, level):
    ours, theirs = wilson(k, n, level), binomtest(k, n).proportion_ci(level, method='wilson')
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert (ours.low, ours.high) == pytest.approx(proportion_confint(k, n, 1 - level, 'wilson'), abs=1e-9)


def test_bca_is_scipys_on_the_same_draws():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        x = rng.gamma(rng.uniform(.3, 4), 1, rng.integers(8, 80))
        theirs = stats.bootstrap((x,), np.mean, n_resamples=499, method='BCa', rng=np.random.default_rng(seed))
        ours = bca_ends(theirs.bootstrap_distribution, x.mean(), (x.sum() - x) / (len(x) - 1), stats.norm.ppf([.025, .975]))
        assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=1e-9)


def test_weights_draw_what_drawing_rows_draws():
    rng = np.random.default_rng(0)
    x, group = rng.random((30, 2)) + .1, np.arange(30) // 3
    w = next(draw_weights(10, 50, seed=4))
    members = [np.flatnonzero(group == g) for g in range(10)]
    by_rows = [float(ratio(x[np.concatenate([m for g, m in enumerate(members) for _ in range(int(k[g]))])].sum(0))) for k in w]
    assert ratio(w @ sum_by(x, group)) == pytest.approx(by_rows, abs=1e-12)


@pytest.mark.parametrize('gained,lost,both', [(0, 0, 5), (1, 0, 0), (10, 2, 30), (7, 7, 0), (0, 25, 4)])
def test_mcnemar_is_the_binomial_test(gained, lost, both):
    a = [False] * gained + [True] * (lost + both)
    b = [True] * gained + [False] * lost + [True] * both
    p, g, l = mcnemar(a, b)
    assert (g, l) == (gained, lost)
    assert p == pytest.approx(binomtest(gained, gained + lost, .5).pvalue if gained + lost else 1.)
    if gained + lost: assert p == pytest.approx(their_mcnemar([[both, lost], [gained, 0]], exact=True).pvalue)


def test_exchange_is_the_exact_test_on_few_pages():
    rng = np.random.default_rng(0)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 10)).reshape(10, -1)
    for _ in range(5):
        d = rng.integers(-3, 5, 10)
        exact = (abs(d @ signs) >= abs(d.sum())).mean()
        assert swap_test(right_of(np.full(10, 5), np.full(10, 10)), right_of(5 + d, np.full(10, 10)), n=20_000) == pytest.approx(exact, abs=.015)


@pytest.mark.parametrize('kind', ['mean', 'share', 'quotients of other denominators'])
def test_permutation_p_is_uniform_when_models_are_equal(kind):
    rng, ps = np.random.default_rng(1), []
    for i in range(300):
        skill = rng.beta(4, 1, 30)
        if kind == 'mean': a, b = [mean_of(rng.normal(skill, .1)) for _ in 'ab']
        elif kind == 'share': a, b = [right_of(rng.binomial(8, skill), np.full(30, 8)) for _ in 'ab']
        else: a, b = [right_of(rng.binomial(n, skill), n) for n in (rng.integers(1, 9, 30), rng.integers(1, 9, 30))]
        ps.append(pair(a, b, seed=i).p if kind.startswith('quot') else swap_test(a, b, n=399, seed=i))
    if kind == 'mean': assert kstest(ps, 'uniform').pvalue > .01
    # Counts tie, so p may only be too large.
    assert all(np.mean(np.array(ps) <= at) <= at + .04 for at in (.01, .05, .1, .3)) and np.mean(np.array(ps) <= .1) > .03


def test_a_model_that_says_less_is_not_found_different_by_that():
    most, few = right_of([1] * 62, [1] * 62), right_of([1] * 31 + [0] + [0] * 30, [1] * 32 + [0] * 30)
    assert pair(most, few).p > .2


def test_holm_is_statsmodels():
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 9):
        p = rng.random(n) ** 3
        assert list(holm(dict(enumerate(p))).values()) == pytest.approx(multipletests(p, method='holm')[1], abs=1e-12)


def test_no_score_without_interval_or_reason():
    nothing = Measure([[0, 0]])
    for s in [share([]), wilson(0, 0), score(mean_of([])), score(mean_of([.5, .5])), share([1]), pair(right_of([]), right_of([])).difference, score(nothing), group_share([], []), score(right_of([0], [0]))]:
        assert isinstance(s, Score) and 'nan' not in str(s) and (s.low is not None or 'no ' in str(s) or 'nothing' in str(s))


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(value):
    with pytest.raises(ValueError, match='finite numbers'): mean_of([1, value])
    with pytest.raises(ValueError, match='finite numbers'): Measure([[value, 1]])


def test_groups_of_nothing_do_not_narrow_an_interval():
    rng = np.random.default_rng(3)
    x = rng.random(30)
    full = score(mean_of(x))
    adds = np.zeros((300, 2)); adds[:30] = np.stack([x, np.ones(30)], 1)
    padded = score(Measure(adds))
    assert padded.n == full.n == 30 and padded.method == full.method
    assert padded.high - padded.low == pytest.approx(full.high - full.low, rel=.15)


def test_one_set_of_draws_serves_all():
    rng = np.random.default_rng(0)
    a, b = mean_of(rng.random(50)), mean_of(rng.random(50))
    both = score_all(dict(a=a, b=b), seed=3)
    assert both['a'] == score(a, seed=3) and both['b'] == score(b, seed=3)
    assert score(difference(a, a)).value == 0
