"Fields, rows, numbers and trees against independent implementations, by hand, and on hostile answers."
import functools
import math
import random
import warnings

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from medvlm.fields import (LARGEST_TREE, Node, anls, answer_tree, collapse, compare, confusions, critical_table, differing,
                           error_figure, error_kind, field_anls, field_f1, field_match, field_measures, flatten, group_rows, html_tree, judge_number, likeness,
                           nted, number_measures, page_groups, page_match, page_nted, same, table_measures, table_scores, table_tree, teds, tree_distance)
from medvlm.stats import pair_all, score, share

KINDS = dict(patient_name='name', issue_date='date', disease_codes='code', drug_name='name', dose='number', freq='number', days='number')
HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", 'javascript:alert(1)', '</style><script>alert(1)</script>', '<!--', '&lt;b&gt;',
           'a\0b', '\u202eabc\u202c', 'שלום', 'مرحبا', '\ud800', '👩‍⚕️' * 50, '가' * 100_000, '\n\t ', '{{7*7}}', '$x^2', '=cmd|1', '%s %n', '../../etc/passwd', 'NaN', '1e999999', '9' * 50_000]


def page(n=3):
    return dict(patient_name='이하윤', issue_date='2025-10-27', disease_codes=['K21', 'J209'], drugs=[dict(drug_name=f'약{i}', dose='1') for i in range(n)])


# Fields

@pytest.mark.parametrize('kind', ['name', 'number', 'date', 'code', 'text'])
@pytest.mark.parametrize('value', HOSTILE, ids=range(len(HOSTILE)))
def test_every_kind_takes_every_text(kind, value):
    assert same(value, value, kind)
    assert not same(value, '이하윤', kind)


@pytest.mark.parametrize('answer', [None, [], 'text', 7, {}, {'drugs': 'x'}, {'drugs': {'dose': 9}}, {'drugs': [[['x']]]}, {'drugs': [None, '', {}]}, {1: 2}, {'patient_name': {'a': {'b': 'c'}}},
                                    {'disease_codes': [1.0, True, float('nan')]}, {'a' * 10_000: 'b'}, {'drugs': [{'dose': i + 2} for i in range(300)]}, {'drugs.0.dose': 1, '': 'x', '.': 'y', '0': 'z', 'drugs..dose': 2},
                                    {'patient_name': float('nan'), 'issue_date': math.inf, 'drugs': [{'dose': float('nan')}]}])
def test_any_answer_is_scored(answer):
    rows = compare([answer], [page()], KINDS)
    scores = table_scores(rows)
    assert scores['all fields'].n == len(flatten(page()))
    assert scores['all fields'].value == scores['page exact'].value == scores['rows right'].value == 0
    assert scores['unparsable'].value == (not isinstance(answer, dict))
    assert all(s.value is None or 0 <= s.value <= 1 for s in scores.values())
    assert 'nan' not in str(scores)
    critical_table(rows), collapse(rows), confusions(rows), error_figure(dict(a=rows))


def test_deep_nesting():
    deep = {'patient_name': 'x'}
    for _ in range(400): deep = {'a': deep}
    rows = compare([deep], [page()], KINDS)
    assert len(rows) == len(flatten(page())) + 1
    assert field_measures(rows)['nTED'].value == 0 and nted(deep, page()) == 0


def test_empty_and_single_tables():
    empty = compare([], [], KINDS)
    assert {s.value for s in table_scores(empty).values()} == {None} and pair_all(field_measures(empty), field_measures(empty))['all fields'].p == 1
    assert critical_table(empty).rows[0][1].n == 0 and collapse(empty) == confusions(empty) == page_groups(empty) == []
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        one = table_scores(compare([page()], [page()], KINDS))
        none = table_scores(compare([None] * 3, [page()] * 3, KINDS))
        table_scores(empty)
    assert one['all fields'].value == one['nTED'].value == one['ANLS'].value == one['rows right'].value == 1 and one['nTED'].low is None
    assert none['unparsable'].value == 1 and none['precision'].value is None and none['rows precision'].value is None
    assert none['all fields'].value == none['nTED'].value == none['ANLS'].value == none['number right'].value == 0


def test_pages_of_one_name_are_refused():
    with pytest.raises(ValueError, match='one each'): compare([page()] * 2, [page()] * 2, KINDS, ids=['a', 'a'])
    twice = compare([page()], [page()], KINDS) * 2
    for f in (field_measures, field_match, field_f1, page_match, group_rows, number_measures, field_anls, page_nted, page_groups, table_scores, critical_table):
        with pytest.raises(ValueError, match='a name of its own'): f(twice)


def test_languages_in_one_answer():
    ref = dict(patient_name='이하윤', issue_date='2025-10-27', drugs=[dict(drug_name='타이레놀정 500mg', dose='1정', freq='3회', days='7일')])
    pred = dict(patient_name='이 하윤', issue_date='2025年10月27日', drugs=[dict(drug_name='타이레놀정５００ｍｇ', dose='１片', freq='3次', days='7天')])
    scores = table_scores(compare([pred], [ref], KINDS))
    assert scores['all fields'].value == scores['rows right'].value == scores['unit right'].value == scores['ANLS'].value == 1
    assert scores['nTED'].value < 1


def test_a_megabyte_in_a_field():
    for value in ('9' * 1_000_000, '\ud800가' * 500_000, '9,' * 500_000):
        rows = compare([dict(page(), patient_name=value, drugs=[dict(drug_name=value, dose=value)])], [page()], KINDS)
        scores = table_scores(rows)
        assert scores['all fields'].value == 3 / 10


def test_equal_models_differ_by_nothing():
    rows = compare([page(2)] * 6, [page()] * 6, KINDS)
    for name, pair in pair_all(field_measures(rows), field_measures(rows), page_groups(rows)).items():
        assert pair.difference.value is None or pair.p == 1 and pair.difference.value == 0, name


def test_one_skipped_row_costs_one_row():
    ref = page(6)
    rows = compare([dict(ref, drugs=ref['drugs'][1:])], [ref], KINDS)
    assert [r['field'] for r in rows if r['outcome'] != 'ok'] == ['drugs.0.drug_name', 'drugs.0.dose']
    assert group_rows(rows)['rows right'].value == 5 / 6 and group_rows(rows)['rows precision'].value == 1
    rows = compare([ref], [dict(ref, drugs=ref['drugs'][1:])], KINDS)
    assert {r['outcome'] for r in rows} == {'ok', 'spurious'}
    assert field_f1(rows)['recall'].value == 1 and field_match(rows)['all fields'].value == 1
    assert group_rows(rows)['rows right'].value == 1 and group_rows(rows)['rows precision'].value == 5 / 6


def test_unparsable_answers_count_everywhere():
    refs = [page() for _ in range(8)]
    half = table_scores(compare(refs[:4] + [None] * 4, refs, KINDS))
    for name in ('all fields', 'recall', 'page exact', 'unparsable', 'rows right', 'ANLS', 'nTED', 'number right', 'name', 'date', 'code', 'number'): assert half[name].value == .5, name
    assert half['precision'].value == half['rows precision'].value == 1


def test_copies_of_a_page_add_no_certainty():
    refs = [page() for _ in range(20)]
    preds = [page() if i % 4 else dict(page(), patient_name='박지우', disease_codes=['Z9']) for i in range(20)]
    once, plain = table_scores(compare(preds, refs, KINDS)), table_scores(compare(preds * 5, refs * 5, KINDS))
    grouped = table_scores(compare(preds * 5, refs * 5, KINDS, groups=list(range(20)) * 5))
    for key in ('all fields', 'F1', 'page exact', 'name', 'nTED', 'ANLS'):
        assert grouped[key].high - grouped[key].low == pytest.approx(once[key].high - once[key].low, abs=.03)
        assert plain[key].high - plain[key].low < .7 * (grouped[key].high - grouped[key].low)


def test_measures_are_the_shares_of_their_rows():
    rng = random.Random(0)
    refs = [page(rng.randint(1, 4)) for _ in range(30)]
    preds = [None if rng.random() < .1 else dict(r, patient_name=rng.choice(['이하윤', '이하운']), drugs=[d for d in r['drugs'] if rng.random() < .8]) for r in refs]
    rows = compare(preds, refs, KINDS, groups=[i // 2 for i in range(30)])
    there = [r for r in rows if r['outcome'] != 'spurious']
    scores = table_scores(rows)
    for name, mine in {'all fields': there, **{k: [r for r in there if r['kind'] == k] for k in ('name', 'date', 'code', 'number')}}.items():
        old = share([r['outcome'] == 'ok' for r in mine], [r['group'] for r in mine])
        assert (scores[name].value, scores[name].low, scores[name].high, scores[name].n) == pytest.approx((old.value, old.low, old.high, old.n))


def test_errors_have_kinds():
    rows = compare([dict(page(), patient_name='이하운', issue_date='1999-01-01'), None], [page(), page()], KINDS)
    assert {error_kind(r) for r in rows} == {None, 'one character', 'several characters', 'answer not parsable'}
    assert confusions(rows, 1) == [('윤', '운', 1)]


# Rows, numbers, nearly right

@pytest.mark.parametrize('preds,right,precision', [
    ([dict(drug_name='a', dose='1', freq='3', days='7')], (1, 1), (1, 1)),
    ([dict(drug_name='a', dose='10', freq='3', days='7')], (0, 1), (0, 1)),
    ([dict(drug_name='a', dose='1', freq='3')], (0, 1), (0, 1)),
    ([dict(drug_name='a', dose='1', freq='3', days='7', edi_code='x')], (1, 1), (1, 1)),
    ([dict(drug_name='a', dose='1', freq='3', days='7'), dict(drug_name='b')], (1, 1), (1, 2)),
    ([], (0, 1), (0, 0)), (None, (0, 1), (0, 0)), ('x', (0, 1), (0, 0)),
])
def test_rows_by_hand(preds, right, precision):
    ref = dict(drugs=[dict(drug_name='a', dose='1', freq='3', days='7', edi_code='9')])
    rows = compare([None if preds is None else dict(drugs=preds)], [ref], dict(KINDS, edi_code='code'))
    assert tuple(group_rows(rows)['rows right'].adds[0]) == right and tuple(group_rows(rows)['rows precision'].adds[0]) == precision


def test_other_lists_and_names_that_only_begin_alike():
    ref = dict(tests=[dict(name='a', value='1')], tests2=[dict(name='b', value='2')])
    rows = compare([dict(ref, tests2=[])], [ref], dict(name='name', value='number'))
    assert tuple(group_rows(rows, 'tests', ('name', 'value'))['rows right'].adds[0]) == (1, 1)
    assert tuple(group_rows(rows, 'tests2', ('name', 'value'))['rows right'].adds[0]) == (0, 1)
    assert tuple(group_rows(rows)['rows right'].adds[0]) == (0, 0)
    with pytest.raises(ValueError, match='tuple of field names'): group_rows(rows, parts=())


# Levenshtein distances counted by hand: answer, accepted answers, score
ANLS = [('kitten', 'sitting', 1 - 3 / 7), ('flaw', 'lawn', 0.), ('gumbo', 'gambol', 1 - 2 / 6), ('이하운', '이하윤', 2 / 3), ('10', '100', 2 / 3), ('1', '10', 0.), ('', 'a', 0.), ('a', '', 0.), ('', '', 1.), (None, 'a', 0.),
        ('  The   Answer ', 'the answer', 1.), ('５００ｍｇ', '500 MG', 1 - 1 / 6), ('abc', ['xyz', 'abd', 'ab'], 2 / 3), ('abcdef', 'abcxyz', 0.), ('abcdefg', 'abcdxyz', 1 - 3 / 7), ('\ud800', '가', 0.), (7, '7', 1.)]


@pytest.mark.parametrize('pred,refs,value', ANLS, ids=range(len(ANLS)))
def test_anls_by_hand(pred, refs, value):
    assert likeness(pred, refs) == pytest.approx(value)


def test_anls_is_their_mean():
    assert anls([p for p, _, _ in ANLS], [r for _, r, _ in ANLS]).value == pytest.approx(np.mean([v for *_, v in ANLS]))
    with pytest.raises(ValueError, match='no accepted answer'): anls(['a'], [[]])
    assert math.isnan(anls([], []).value)


def test_numbers_by_hand():
    cases = [('1', '1', (1, None, 0)), ('1.0정', '1정', (1, 1, 0)), ('1', '1정', (1, 0, 0)), ('10정', '1정', (0, 1, 1)), ('0.1', '1', (0, None, 1)), ('1000', '1', (0, None, 1)), ('2', '1', (0, None, 0)), ('-1', '10', (0, None, 0)),
             ('1,000원', '1000원', (1, 1, 0)), ('5 mg', '5 g', (1, 0, 0)), ('5000mg', '5g', (0, 0, 0)), ('반', '0.5', (0, None, 0)), (None, '1ml', (0, None, 0)), ('0', '10', (0, None, 0)), ('10ｍＬ', '10 cc', (1, 1, 0)), ('9' * 50_000, '9', (0, None, 0)), ('1' + '0' * 50_000, '1', (0, None, 1))]
    for pred, ref, wanted in cases: assert tuple(judge_number(dict(pred=pred, ref=ref)).values()) == wanted, (pred, ref)
    rows = compare([dict(dose=p) for p, _, _ in cases], [dict(dose=r) for _, r, _ in cases], dict(dose='number'))
    right, unit, tens = number_measures(rows).values()
    assert right.n == tens.n == len(cases) and unit.n == sum(w[1] is not None for *_, w in cases)
    assert [m.adds[:, 0].sum() for m in (right, unit, tens)] == [sum(w[i] or 0 for *_, w in cases) for i in range(3)]


def test_critical_fields_come_first():
    ref = dict(patient_name='x', drugs=[dict(drug_name='a', dose='1', days='7')])
    t = critical_table(compare([dict(patient_name='y', drugs=[dict(drug_name='a', dose='10'), dict(dose='3')], hobby='z')], [ref], KINDS), caption='Test,')
    assert [r[0] for r in t.rows] == ['drugs.drug_name (critical)', 'drugs.dose (critical)', 'freq (critical)', 'drugs.days (critical)', 'patient_name', 'other names']
    assert [r[2:] for r in t.rows] == [[0, 0, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]
    assert t.caption == 'Test, 1 pages' and '<td>' in t._repr_html_()


# Trees

def by_definition(a, b, weight, rename):
    "Ordered tree edit distance by its recursive definition on forests, nothing shared with the library."
    nodes = ([], [])

    def number(tree, side):
        nodes[side].append(tree)
        i = len(nodes[side]) - 1
        return i, tuple(number(k, side) for k in tree.kids)

    def whole(forest, side): return sum(weight(nodes[side][i]) + whole(below, side) for i, below in forest)

    @functools.cache
    def distance(f, g):
        if not f or not g: return whole(f, 0) + whole(g, 1)
        (i, below), (j, under) = f[-1], g[-1]
        x, y = nodes[0][i], nodes[1][j]
        return min(distance(f[:-1] + below, g) + weight(x), distance(f, g[:-1] + under) + weight(y), distance(below, under) + distance(f[:-1], g[:-1]) + rename(x, y))

    return distance((number(a, 0),), (number(b, 1),))


def donut_weight(n): return 1 if n.text is None else len(n.text)


def donut_rename(x, y):
    if x.text is None and y.text is None: return float(x.label != y.label)
    if x.text is None or y.text is None: return 1 + len(x.text or y.text)
    return Levenshtein.distance(x.text, y.text)


def cell_rename(x, y):
    if x.label != y.label: return 1.
    return 0. if x.text is None or y.text is None else Levenshtein.normalized_distance(x.text, y.text)


def some_tree(rng, size):
    "A random tree with `size` nodes: leaves carry texts, some inner nodes too."
    nodes = [Node(rng.choice('abc'))]
    for _ in range(size - 1):
        node = Node(rng.choice('abc'), ''.join(rng.choice('xyz') for _ in range(rng.randint(1, 4))) if rng.random() < .4 else None)
        parent = rng.choice(nodes[-4:] if rng.random() < .5 else nodes)
        parent.kids.insert(rng.randint(0, len(parent.kids)), node)
        nodes.append(node)
    return nodes[0]


def changed(rng, node):
    "The tree with some nodes renamed, left out or doubled."
    kids = [k for kid in node.kids for k in ([] if rng.random() < .1 else changed(rng, kid).kids if rng.random() < .1 else [changed(rng, kid)] * (1 + (rng.random() < .1)))]
    return Node(rng.choice('abc') if rng.random() < .1 else node.label, node.text and (rng.choice('xyz') + node.text[1:] if rng.random() < .2 else node.text), kids)


def test_thousand_trees_against_the_definition():
    rng, worst = random.Random(0), 0.
    for i in range(1000):
        a = some_tree(rng, rng.randint(1, 16))
        b = changed(rng, a) if i % 2 else some_tree(rng, rng.randint(1, 16))
        for weight, rename in ((lambda n: 1, cell_rename), (donut_weight, donut_rename)):
            worst = max(worst, abs(tree_distance(a, b, weight, rename) - by_definition(a, b, weight, rename)))
    assert worst < 1e-9


def some_answer(rng):
    text = lambda: ''.join(rng.choice('가나12') for _ in range(rng.randint(1, 4)))
    return dict(name=text(), codes=[text() for _ in range(rng.randint(0, 3))], drugs=[{k: text() for k in rng.sample(['dose', 'days', 'drug_name'], rng.randint(1, 3))} for _ in range(rng.randint(0, 3))])


def misread(rng, x):
    if isinstance(x, dict): return {k: misread(rng, v) for k, v in x.items() if rng.random() > .1}
    if isinstance(x, list): return [misread(rng, v) for v in x for _ in range(rng.choice([0, 1, 1, 1, 1, 2]))]
    return x if rng.random() < .7 else x + '1' if rng.random() < .5 else '나' + x[1:]


def test_thousand_answers_with_and_without_leaving_out_what_is_equal():
    rng, worst = random.Random(1), 0.
    for _ in range(1000):
        ref = some_answer(rng)
        pred = misread(rng, ref)
        a, b = answer_tree(flatten(pred)), answer_tree(flatten(ref))
        slow = max(0., 1 - by_definition(a, b, donut_weight, donut_rename) / by_definition(Node('page'), b, donut_weight, donut_rename))
        worst = max(worst, abs(nted(pred, ref) - slow))
    assert worst < 1e-9


def test_leaving_out_what_is_equal_keeps_the_distance():
    rng = random.Random(2)
    for _ in range(1000):
        a = some_tree(rng, rng.randint(2, 14))
        b = Node(a.label, a.text, changed(rng, a).kids)
        rest = differing(a.kids, b.kids)
        assert by_definition(Node('r', None, rest[0]), Node('r', None, rest[1]), donut_weight, donut_rename) == pytest.approx(by_definition(Node('r', None, a.kids), Node('r', None, b.kids), donut_weight, donut_rename), abs=1e-9)


def test_nted_of_a_field_table_is_that_of_the_answers():
    rng = random.Random(3)
    kinds = dict(name='name', codes='code', drug_name='name', dose='text', days='text')
    refs = [some_answer(rng) for _ in range(200)]
    preds = [misread(rng, r) for r in refs]
    assert np.allclose(page_nted(compare(preds, refs, kinds)).adds[:, 0], [nted(p, r) for p, r in zip(preds, refs)])


def test_nted_by_hand_and_limits():
    # weight 1 + 3 for the name, 1 for the list, 2 + 2 for two codes
    ref = dict(name='abc', codes=['k1', 'k2'])
    for pred, lost in [(ref, 0), ({}, 9), (None, 9), ('x', 9), (dict(name='abc'), 5), (dict(ref, codes=['k1']), 2), (dict(ref, codes=['k2', 'k1']), 2), (dict(ref, name='ab'), 1), (dict(ref, more='x'), 2), (dict(ref, codes='k1'), 2)]:
        assert nted(pred, ref) == pytest.approx(1 - lost / 9), pred
    assert nted(dict(a=['x'] * 200_000), ref) == 0 and nted(dict(name='x' * 1_000_000), ref) == 0
    with pytest.raises(ValueError, match=f'allowed are {LARGEST_TREE}'): nted(dict(a=['x']), dict(a=[str(i) for i in range(1500)]))
    same_long = dict(a=[str(i) for i in range(5000)])
    assert nted(same_long, same_long) == 1 and nted(dict(a=[*same_long['a'][:-1], '7']), same_long) > .99


TABLE = '<table><thead><tr><td>a</td><td>b</td></tr></thead><tbody><tr><td>cc</td><td>d</td></tr></tbody></table>'  # 9 nodes
TEDS = [(TABLE, 0, 0), (TABLE.replace('cc', 'cx'), .5, 0), (TABLE.replace('cc', ''), 1, 0), (TABLE.replace('<td>d</td>', ''), 1, 1), (TABLE.replace('<td>cc</td>', '<td colspan="2">cc</td>'), 1, 1),
        (TABLE.replace('<tr><td>cc</td><td>d</td></tr>', ''), 3, 3), (TABLE.replace('td>', 'th>'), 0, 0), (TABLE.replace('</td>', '').replace('</tr>', ''), 0, 0), ('<p>Here it is:</p>' + TABLE + '<p>done</p>' + TABLE, 0, 0),
        (TABLE.upper().replace('CC', 'cc'), 0, 0), (TABLE.replace('<tbody>', '').replace('</tbody>', ''), 0, 0), ([dict(a='cc', b='d')], 0, 0), (TABLE.replace('cc', '<b>c</b>c'), 0, 0), (TABLE.replace('cc', 'ｃｃ'), 0, 0)]


@pytest.mark.parametrize('pred,cost,structure', TEDS, ids=range(len(TEDS)))
def test_teds_by_hand(pred, cost, structure):
    assert teds(pred, TABLE) == pytest.approx(1 - cost / 9)
    assert teds(pred, TABLE, structure_only=True) == pytest.approx(1 - structure / 9)


def test_thousand_tables_against_the_definition_and_apted():
    apted = pytest.importorskip('apted')
    costs = apted.Config()
    costs.rename, costs.children = cell_rename, lambda node: node.kids
    rng, worst = random.Random(4), 0.
    for i in range(1000):
        true = [[rng.choice(['가', '나다', '12', '']) for _ in range(rng.randint(1, 3))] for _ in range(rng.randint(1, 4))]
        read = [[c if rng.random() < .8 else '1' for c in row] for row in true if rng.random() > .2] or [['x']]
        a, b = table_tree(read), table_tree(true)
        theirs = apted.APTED(a, b, costs).compute_edit_distance()
        if i < 300: worst = max(worst, abs(theirs - by_definition(a, b, lambda n: 1, cell_rename)))
        worst = max(worst, abs(teds(read, true) - max(0., 1 - theirs / max(len(a), len(b)))))
    assert worst < 1e-9


@pytest.mark.parametrize('text', ['', '<', '<table', '<table>', '</table>', '</td></tr>', '<td>', '<td><td><td>', '<table><table><table>', '<tr>' * 900, '<table>' * 5000, '</table>' * 5000, '<td>' * 25_000, '<!--' * 25_000, '<![CDATA[' * 10_000,
                                  '<a ' * 30_000, '<td ' + 'a' * 100_000, '<' + 'a' * 100_000, '<td ' + 'a=' * 50_000 + '>', '<td colspan="' * 8000, '&#' * 50_000, '&' * 100_000, '\ud800<td>\ud800', '<td colspan=-1 rowspan=1e9>', '<td\0>a', '<script><td>', '<' * 1_000_000, 'x' * 1_000_000, '<td>' + 'a<b>' * 25_000] + HOSTILE)
def test_any_html_is_read(text):
    html_tree(text)
    assert 0 <= teds(text, TABLE) < 1


def test_tables_that_are_none():
    for table in (None, 7, [], {}, 'text', [1, 2], [None], float('nan'), [[], 'x']):
        assert teds(table, TABLE) == 0 and table_tree(table) is None
        with pytest.raises(ValueError, match='a true table of'): teds(TABLE, table)
    assert teds([[]], TABLE) < 1 and teds([{}], TABLE) < 1 and teds([{1: None, None: float('nan')}], TABLE) < 1
    both = table_measures([None, TABLE], [TABLE, TABLE])
    assert [m.value for m in both.values()] == [.5, .5] and score(both['TEDS']).n == 2


# Size

def test_a_page_of_many_fields_is_scored_without_its_tree():
    ref = dict(tests=[dict(name=f't{i}', value=str(i)) for i in range(160)])
    kinds = dict(name='name', value='number')
    scores = table_scores(compare([dict(tests=ref['tests'][1:])], [ref], kinds))
    assert scores['all fields'].value == 318 / 320 and 'nTED' not in scores
    assert table_scores(compare([dict(tests=ref['tests'][1:140])], [dict(tests=ref['tests'][:140])], kinds))['nTED'].value > .98
