"Class labels and class scores against scikit-learn, on hostile answers and at full size."
import math
import tracemalloc
import unicodedata
import warnings

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics

from medvlm.labels import (LUNG_CLASSES, LUNG_VARIANTS, SKIN_CLASSES, SKIN_VARIANTS, Parsed, accuracy, auroc, auroc_scores, average_precision, balanced_accuracy,
                           check_classes, check_probabilities, class_bars, class_collapse, class_counts, class_measures, class_rates, class_scores, confusion_figure,
                           confusion_table, label_variants, macro_f1, matthews, parse_label, probability_measures, reliability, roc_pr, rule_table, weighted_f1)
from medvlm.stats import score_all

MEGABYTE = ['<label>' * 150_000, '<label>a</label>' * 60_000, ''.join(f'<label>{i}</label>' for i in range(60_000)), '\n' * 10**6, ' ' * 10**6, 'Class: \n' * 120_000, '*' * 10**6,
            '"label": "' * 100_000, '"label": "' + '\\' * 10**6, '- ' * 500_000, '1.' * 500_000, 'a' + '\u0316\u0301' * 500_000, '＜ｌａｂｅｌ＞' * 140_000, '\ud800\0' * 500_000, '여드름이 아니다. ' * 100_000]


def skin(text): return parse_label(text, SKIN_CLASSES, SKIN_VARIANTS)


def lung(text): return parse_label(text, LUNG_CLASSES, LUNG_VARIANTS)


def random_case(rng):
    "Truths and predictions of 2 to 9 classes, some of them absent from either, some predictions unparsable."
    n, c = int(rng.choice([1, 2, 3, 5, 20, 100])), int(rng.integers(2, 10))
    classes = [f'c{i}' for i in range(c)]
    some = lambda: rng.choice(classes, rng.integers(1, c + 1), replace=False)
    true, pred = rng.choice(some(), n), rng.choice(some(), n)
    pred = np.where(rng.random(n) < rng.choice([0, .5, 1]), true, pred)
    lost = rng.random(n) < rng.choice([0, .1, .5, 1], p=[.3, .4, .2, .1])
    return list(true), [None if gone else str(p) for p, gone in zip(pred, lost)], classes


def test_thousand_cases_agree_with_sklearn():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        true, pred, classes = random_case(rng)
        sums = class_counts(true, pred, classes).sum(0)
        said = [p or 'unparsable' for p in pred]
        there = [c for c in classes if c in true or c in pred]
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            f1 = {a: metrics.f1_score(true, said, labels=there, average=a, zero_division=0) for a in ('macro', 'weighted')}
            each = metrics.precision_recall_fscore_support(true, said, labels=classes, zero_division=np.nan)
            theirs = dict(a=metrics.accuracy_score(true, said), b=metrics.balanced_accuracy_score(true, said), m=f1['macro'], w=f1['weighted'])
            mcc = metrics.matthews_corrcoef(true, said)
        ours = dict(a=accuracy(sums), b=balanced_accuracy(sums), m=macro_f1(sums), w=weighted_f1(sums))
        for k in ours: assert abs(float(ours[k]) - theirs[k]) < 1e-9, (k, true, pred)
        if len(set(true)) > 1: assert abs(float(matthews(sums)) - mcc) < 1e-9, (true, pred)
        else: assert np.isnan(matthews(sums))
        np.testing.assert_allclose(np.stack(class_rates(sums)), np.stack(each[:3]), atol=1e-9, rtol=0, equal_nan=True)


def test_areas_agree_with_sklearn_under_weights_and_ties():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(2, 60))
        y, s, w = rng.random(n) < .4, rng.random(n).round(int(rng.integers(1, 4))), rng.integers(0, 4, (n, 3)).astype(float)
        for k in range(3):
            pos, neg = w[y, k].sum(), w[~y, k].sum()
            a, b = auroc(y, s, w)[k], average_precision(y, s, w)[k]
            if pos and neg: assert abs(a - metrics.roc_auc_score(y, s, sample_weight=w[:, k])) < 1e-9
            else: assert np.isnan(a)
            if pos: assert abs(b - metrics.average_precision_score(y, s, sample_weight=w[:, k])) < 1e-9
            else: assert np.isnan(b)


def test_probability_scores_agree_with_sklearn():
    rng = np.random.default_rng(0)
    classes = [f'c{i}' for i in range(5)]
    p = rng.dirichlet(np.ones(5), 300)
    true = list(rng.choice(classes, 300))
    m = {k: v.value for k, v in probability_measures(true, p, classes).items()}
    assert abs(m['log loss'] - metrics.log_loss(true, p, labels=classes)) < 1e-9
    assert abs(m['Brier score'] - ((p - (np.array(true)[:, None] == classes)) ** 2).sum(1).mean()) < 1e-9
    top, right = p.max(1), np.array(classes)[p.argmax(1)] == true
    bins = np.minimum((top * 15).astype(int), 14)
    by_hand = sum((bins == b).mean() * abs(top[bins == b].mean() - right[bins == b].mean()) for b in np.unique(bins))
    assert abs(m['calibration error'] - by_hand) < 1e-9


def delong(y, s):
    "AUROC and its standard error after DeLong."
    below = (s[y][:, None] > s[~y]) + .5 * (s[y][:, None] == s[~y])
    return below.mean(), math.sqrt(below.mean(1).var(ddof=1) / y.sum() + below.mean(0).var(ddof=1) / (~y).sum())


def test_auroc_interval_is_that_of_delong_for_independent_rows():
    rng = np.random.default_rng(3)
    y = rng.random(600) < .3
    s = 1 / (1 + np.exp(-(1.2 * y + rng.normal(size=600))))
    value, error = delong(y, s)
    ours = auroc_scores(np.where(y, 'a', 'b'), np.stack([s, 1 - s], 1), ['a', 'b'])['a']
    assert abs(ours.value - value) < 1e-12
    assert abs((ours.high - ours.low) / (2 * norm.ppf(.975) * error) - 1) < .1
    assert abs(ours.low - (value - 1.96 * error)) < .01


def test_auroc_interval_counts_groups():
    rng = np.random.default_rng(3)
    y = rng.random(100) < .3
    s = 1 / (1 + np.exp(-(1.2 * y + rng.normal(size=100))))
    true, p, five = np.where(y, 'a', 'b'), np.stack([s, 1 - s], 1), np.repeat(np.arange(100), 5)
    once, copies = auroc_scores(true, p, ['a', 'b'])['a'], auroc_scores(true[five], p[five], ['a', 'b'], groups=list(five))['a']
    assert abs(copies.value - once.value) < 1e-12 and abs(copies.low - once.low) < 1e-9 and abs(copies.high - once.high) < 1e-9


@pytest.mark.parametrize('text', ['<label>여드름</label>', '< LABEL >\n여드름 </ label >', '＜ｌａｂｅｌ＞여드름＜／ｌａｂｅｌ＞', '《label》 여드름《/label》', '<label>**여드름**</label> <label>여드름</label>',
                                  unicodedata.normalize('NFD', '분류: 여드름'), '분류: `여드름`', '* **진단** ： acne (경증)', '1. Label: Acne_Vulgaris.', '> 진단:\n여드름\n설명: 볼', 'x\r\nClass:여드름 근거: 구진',
                                  '{"why": "a \\" b", "label" : "\\uc5ec\\ub4dc\\ub984"}', "{'분류': '여드름'}", '여드름', '"여드름".\n', 'ＡＣＮＥ', 'a\ud800\n분류: 여\0드름'])
def test_declared_labels_are_found(text): assert skin(text).label == '여드름'


@pytest.mark.parametrize('text, reason', [(None, 'empty'), ('', 'empty'), (' \n\t', 'empty'), ('여드름이 아닙니다.', 'no label'), ('not acne', 'no label'), ('The class: acne', 'no label'), ('<label></label>', 'no label'),
                                          ('<label>여드름', 'no label'), ('Class:\nExplanation: none', 'no label'), ('{"label": null}', 'no label'), ('여드름?', 'no label'), ('\0\0', 'no label'), (3.5, 'no label'), ({'label': 1}, 'no label'),
                                          ('<label>여드름</label><label>주사</label>', 'two labels'), ('분류: 건선\n진단: 주사', 'two labels'), ('<label>여드름</label> <label>암</label>', 'two labels'),
                                          ('<label>진단불가</label>', 'outside the classes'), ('Class: not acne', 'outside the classes'), ('Class: acne or rosacea', 'outside the classes'), ('진단: 여드름, 주사', 'outside the classes'),
                                          ('<label>암</label>\nClass: acne', 'outside the classes'), ('Class: acne?', 'outside the classes')])
def test_other_answers_have_a_reason(text, reason): assert skin(text) == Parsed(None, reason, skin(text).said)


def test_mixed_languages():
    answers = ['Class: 정상\n설명: 폐야가 깨끗합니다.', '진단: Pneumonia (오른쪽 하엽)', '分类：Normal', 'Classe: Normal', '<label>Normal</label> 正常。', 'Class: обструкция']
    assert [lung(a).label for a in answers] == ['Normal', 'Inflammatory_Pneumonia', 'Normal', None, 'Normal', None]
    assert lung(answers[-1]).said == 'обструкция'


@pytest.mark.parametrize('text', MEGABYTE, ids=range(len(MEGABYTE)))
def test_a_megabyte_is_parsed(text):
    p = lung(text)
    assert p.label is None and len(p.said) <= 200
    p.said.encode('utf-8')


def test_a_label_after_a_megabyte_is_found():
    assert lung('가나다 ' * 250_000 + '\nClass: Normal').label == 'Normal'


def test_bad_classes_and_variants():
    for bad, what in (([], 'no classes'), (['a', 'A'], 'same but for spelling'), (['a_b', 'a b'], 'same but for spelling'), ([''], 'empty'), ('ab', 'list of names'), ([1], 'texts')):
        with pytest.raises(ValueError, match=what): check_classes(bad)
        with pytest.raises(ValueError, match=what): parse_label('a', bad)
        with pytest.raises(ValueError, match=what): class_counts([], [], bad)
    with pytest.raises(ValueError, match="leads to 'c'"): label_variants(['a'], {'b': 'c'})
    with pytest.raises(ValueError, match='already a name'): label_variants(['a', 'b'], {'x': 'a', 'X': 'b'})


def test_label_outside_the_set():
    for bad in ('c', None, float('nan'), ['a']):
        with pytest.raises(ValueError, match="in row 1; allowed are \\['a', 'b'\\]; correct the label"): class_measures(['a', bad], ['a', 'a'], ['a', 'b'])
    odd = class_counts(['a'] * 4, ['c', None, float('nan'), ['a']], ['a', 'b'])
    assert odd.sum(0).tolist() == [0, 0, 4, 0, 0, 0]
    with pytest.raises(ValueError, match='p.label'): class_counts(['a'], [skin('정상')], ['a'])


def every(true, pred, classes, groups=None):
    "All scores, tables and figures of one case, without warnings."
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        scores = class_scores(true, pred, classes, groups, n_boot=200)
        class_collapse(true, pred, classes, groups)
        confusion_table(true, pred, classes).markdown()
        confusion_figure(true, pred, classes)
        class_bars(scores, classes)
    for s in scores.values(): assert s.value is None or (-1 <= s.value <= 1 and (s.low is None or s.low <= s.high))
    return scores


def test_empty_list():
    assert {s.value for s in every([], [], ['a', 'b']).values()} == {None}
    assert {s.value for s in auroc_scores([], [], ['a', 'b']).values()} == {None}
    assert rule_table([]).rows == []
    assert reliability([], [], ['a', 'b']) and roc_pr([], [], ['a', 'b'])


def test_one_row():
    s = every(['a'], ['a'], ['a', 'b'])
    assert (s['accuracy'].value, s['macro-F1'].value, s['macro-F1'].low, s['Matthews'].value) == (1, 1, None, None)
    assert every(['a'], ['b'], ['a', 'b'], ['p'])['macro-F1'].value == 0
    areas = auroc_scores(['a'], [[.5, .5]], ['a', 'b'])
    assert areas['a'].value is None and areas['b'].method == 'class absent' and areas['macro'].value is None


def test_all_unparsable():
    s = every(['a', 'b', 'b'] * 20, [None] * 60, ['a', 'b'])
    assert (s['accuracy'].value, s['macro-F1'].value, s['balanced accuracy'].value, s['Matthews'].value, s['unparsable'].value) == (0, 0, 0, 0, 1)
    assert s['precision a'].value is None and s['recall a'].value == 0 and s['F1 a'].value == 0


def test_class_absent_from_truth_or_predictions():
    s = every(['a', 'b'] * 30, ['a', 'c'] * 30, ['a', 'b', 'c', 'd'])
    assert s['macro-F1'].value == pytest.approx(1 / 3) and s['balanced accuracy'].value == .5
    assert s['recall c'].value is None and s['precision c'].value == 0 and s['precision b'].value is None
    assert s['F1 d'].value is None and s['F1 c'].value == 0
    areas = auroc_scores(['a', 'b'] * 30, [[.4, .3, .3, 0]] * 60, ['a', 'b', 'c', 'd'], n_boot=100)
    assert areas['c'].method == 'class absent' and areas['a'].value == .5


def test_a_few_rows_of_a_perfectly_ranked_class_prove_little():
    true = ['a'] * 3 + ['b'] * 297
    s = auroc_scores(true, [[.9, .1]] * 3 + [[.1, .9]] * 297, ['a', 'b'], n_boot=200)['a']
    assert s.value == 1 and s.low < .5


@pytest.mark.parametrize('row', [[math.nan, 1.], [math.inf, 0.], [-.1, 1.1], [.6, .6], [.3, .3], [0., 0.]])
def test_bad_probabilities(row):
    good = [[.5, .5], row]
    for f in (check_probabilities, lambda p, c: probability_measures(['a', 'b'], p, c), lambda p, c: auroc_scores(['a', 'b'], p, c), lambda p, c: reliability(['a', 'b'], p, c), lambda p, c: roc_pr(['a', 'b'], p, c)):
        with pytest.raises(ValueError, match='row 1: probabilities'): f(good, ['a', 'b'])
    with pytest.raises(ValueError, match='one column for each'): check_probabilities([[.2, .3, .5]], ['a', 'b'])


def test_parsed_answers_survive_markup():
    t = rule_table([skin('<label>' + s + '</label>') for s in ('a|b', '&lt;script&gt;', '암\ud800', '\u202e거꾸로', 'x' * 150)], 'hostile,')
    assert t.rows[0][2] == 5 and t.rows[0][4].count(' / ') == 2
    t.markdown().encode('utf-8'); str(t).encode('utf-8'); t._repr_html_().encode('utf-8')


def test_ten_thousand_rows_of_eight_classes():
    rng = np.random.default_rng(0)
    true = rng.choice(LUNG_CLASSES, 10_000)
    pred = [None if u < .05 else t if u < .8 else str(rng.choice(LUNG_CLASSES)) for t, u in zip(true, rng.random(10_000))]
    class_scores(['a'], ['a'], ['a'])
    tracemalloc.start()
    scores = class_scores(true, pred, LUNG_CLASSES)
    assert len(scores) == 30
    assert tracemalloc.get_traced_memory()[1] < 400e6
    tracemalloc.stop()
    measures = class_measures(true, pred, LUNG_CLASSES)
    assert len({id(measures[k].adds) for k in ('balanced accuracy', 'macro-F1', 'weighted-F1', 'Matthews')}) == 1
    assert score_all(measures, n_boot=10)['unparsable'].value == pytest.approx(np.mean([p is None for p in pred]))
