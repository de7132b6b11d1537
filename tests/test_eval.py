"Scores against other implementations, and reports on hostile text, also in a browser where there is one."
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from medvlm.core import save_json
from medvlm.eval import (Score, assert_blind, bootstrap, cer, char_errors, compare, compare_models, field_f1, field_match, field_scores,
                         field_sections, flatten, gallery, mcnemar, normalise, paired_test, report, same, share, sign_flip, table_scores, wilson)

KINDS = dict(patient_name='name', issue_date='date', disease_codes='code', drug_name='name', dose='number')
HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", 'javascript:alert(1)', '</style><script>alert(1)</script>', '<!--', '&lt;b&gt;',
           'a\0b', '\u202eabc\u202c', 'שלום', 'مرحبا', '\ud800', '👩‍⚕️' * 50, '가' * 100_000, '\n\t ', '{{7*7}}', '$x^2', '=cmd|1', '%s %n', '../../etc/passwd', 'NaN', '1e999999', '9' * 50_000]
SAFE = {'img': {'alt', 'src', 'class'}, 'a': {'href'}}


def page(n=3):
    return dict(patient_name='이하윤', issue_date='2025-10-27', disease_codes=['K21', 'J209'], drugs=[dict(drug_name=f'약{i}', dose='1') for i in range(n)])


class Reader(HTMLParser):
    "Collects tags and attributes, as a browser would see them."
    def __init__(self, text):
        super().__init__()
        self.tags, self.urls, self.odd = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [v for k, v in attrs if k in ('src', 'href', 'srcset', 'action', 'data', 'poster', 'xlink:href')]
        self.odd += [(tag, k) for k, _ in attrs if k.startswith('on') or k not in SAFE.get(tag, {k})]
        if tag == 'img' and not dict(attrs).get('alt'): self.odd.append((tag, 'no alt'))


@pytest.fixture(scope='module')
def hostile(tmp_path_factory):
    "A report on two models whose answers, page names, model names, notes and manifest are hostile."
    folder = tmp_path_factory.mktemp('hostile')
    refs = [page() for _ in HOSTILE]
    bad = [dict(page(), patient_name=h, issue_date=h, disease_codes=[h, h], drugs=[dict(drug_name=h, dose=h)] * 4, **{h[:50]: h}) for h in HOSTILE]
    ids = [f'{i} {h[:200]}' for i, h in enumerate(HOSTILE)]
    a, b = compare(refs, refs, KINDS, ids), compare(bad, refs, KINDS, ids)
    images = {i: Image.new('RGB', (60, 80), 'white') for i in ids}
    save_json({'<b>': '<script>alert(1)</script>', 'nested': {'x': ['</pre><script>alert(1)</script>']}}, folder / 'manifest.json')
    sections = field_sections({'<i>one</i>': a, '"><script>alert(2)</script>': b}, images, n_pages=len(ids), policy=HOSTILE[0])
    return report(folder, HOSTILE[0], [*sections, (HOSTILE[1], HOSTILE)], note=HOSTILE[4])


def test_hostile_answers_leave_no_markup(hostile):
    text = hostile.read_text(encoding='utf-8')
    seen = Reader(text)
    assert not {'script', 'iframe', 'object', 'embed', 'link', 'base', 'form', 'input', 'b>'} & set(seen.tags)
    assert seen.odd == []
    assert '\0' not in text and '\u202e' not in text and '이하윤' in text
    assert len(text) < 5_000_000


def test_report_needs_nothing_else(hostile):
    text = hostile.read_text(encoding='utf-8')
    assert all(u.startswith(('data:image/', '#')) for u in Reader(text).urls)
    assert 'url(' not in text and '@import' not in text
    assert re.search(r'<html lang="en">', text) and 'name="viewport"' in text and "default-src 'none'" in text
    assert 'prefers-color-scheme:dark' in text


def test_report_without_manifest_and_with_broken_manifest(tmp_path):
    assert report(tmp_path / 'a.html', 't', []).name == 'a.html'
    (tmp_path / 'manifest.json').write_text('{')
    with pytest.raises(ValueError, match='line 1'): report(tmp_path, 't', [])
    assert not (tmp_path / 'report.html').exists()


@pytest.mark.skipif(not shutil.which('chromium'), reason='no browser')
@pytest.mark.parametrize('width', [1200, 390])
def test_report_in_a_browser(hostile, tmp_path, width):
    flags = '--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run --hide-scrollbars'.split()
    # The body is as wide as the window: nothing pushes the page sideways on a phone.
    probe = hostile.with_name(f'probe{width}.html')
    probe.write_text(f'<iframe id=f src="{hostile.name}" style="width:{width}px;height:900px;border:0"></iframe><script>onload=()=>{{const d=f.contentDocument.documentElement;'
                     'document.title=[d.scrollWidth<=d.clientWidth,[...f.contentDocument.images].every(i=>i.naturalWidth>0),d.querySelectorAll("article").length].join()}</script>')
    done = subprocess.run(['chromium', *flags, '--allow-file-access-from-files', f'--user-data-dir={tmp_path / "chrome"}', '--window-size=1400,1000', '--virtual-time-budget=5000', '--dump-dom', probe.as_uri()],
                          capture_output=True, text=True, timeout=120)
    assert f'<title>true,true,{len(HOSTILE)}</title>' in done.stdout


@pytest.mark.parametrize('kind', ['name', 'number', 'date', 'code', 'text'])
@pytest.mark.parametrize('value', HOSTILE, ids=range(len(HOSTILE)))
def test_every_kind_takes_every_text(kind, value):
    assert same(value, value, kind)
    assert not same(value, '이하윤', kind)


@pytest.mark.parametrize('answer', [None, [], 'text', 7, {}, {'drugs': 'x'}, {'drugs': {'dose': 9}}, {'drugs': [[['x']]]}, {'drugs': [None, '', {}]}, {1: 2}, {'patient_name': {'a': {'b': 'c'}}},
                                    {'disease_codes': [1.0, True, float('nan')]}, {'a' * 10_000: 'b'}, {'drugs': [{'dose': i + 2} for i in range(300)]}])
def test_any_answer_is_scored(answer):
    scores = field_scores([answer], [page()], KINDS)
    assert scores['all fields'].n == len(flatten(page()))
    assert scores['all fields'].value == 0
    assert scores['unparsable'].value == (not isinstance(answer, dict))


def test_deep_nesting():
    deep = {'patient_name': 'x'}
    for _ in range(400): deep = {'a': deep}
    assert len(compare([deep], [page()], KINDS)) == len(flatten(page())) + 1


@pytest.mark.parametrize('k,n', [(0, 1), (1, 1), (0, 40), (40, 40), (3, 7), (16, 20), (499, 500), (812, 1000)])
@pytest.mark.parametrize('level', [.9, .95, .99])
def test_wilson_is_scipys(k, n, level):
    ours, theirs = wilson(k, n, level), binomtest(k, n).proportion_ci(level, method='wilson')
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize('gained,lost,both', [(0, 0, 5), (1, 0, 0), (10, 2, 30), (7, 7, 0), (0, 25, 4)])
def test_mcnemar_is_the_binomial_test(gained, lost, both):
    a = [False] * gained + [True] * (lost + both)
    b = [True] * gained + [False] * lost + [True] * both
    p, g, l = mcnemar(a, b)
    assert (g, l) == (gained, lost)
    assert p == pytest.approx(binomtest(gained, gained + lost, .5).pvalue if gained + lost else 1.)


def test_sign_flip_is_the_exact_test_on_few_pages():
    rng = np.random.default_rng(0)
    for _ in range(5):
        d = rng.integers(-3, 5, 10)
        signs = np.array(np.meshgrid(*[[-1, 1]] * 10)).reshape(10, -1)
        exact = (abs(d @ signs) >= abs(d.sum())).mean()
        assert sign_flip(d, n=20_000) == pytest.approx(exact, abs=.015)


def test_permutation_p_is_uniform_when_models_are_equal():
    from scipy.stats import kstest
    rng = np.random.default_rng(1)
    smooth = [sign_flip(rng.normal(0, rng.gamma(2, 1, 30)), n=399, seed=i) for i in range(400)]
    assert kstest(smooth, 'uniform').pvalue > .01
    counted = []
    for i in range(400):
        skill = rng.beta(4, 1, 30).repeat(8)
        diff = (rng.random(240) < skill).astype(int) - (rng.random(240) < skill)
        counted.append(sign_flip(diff.reshape(30, 8).sum(1), n=399, seed=i))
    # Counts tie, so p may only be too large.
    assert all(np.mean(np.array(counted) <= a) <= a + .03 for a in (.01, .05, .1, .3))
    assert np.mean(np.array(counted) <= .1) > .04


def test_interval_holds_the_truth():
    rng, held = np.random.default_rng(2), 0
    for _ in range(500):
        pages = np.arange(40).repeat(12)
        held += (s := share(rng.random(480) < rng.beta(2.85, .15, 40)[pages], pages)).low <= .95 <= s.high
    assert held / 500 > .9


def test_equal_models_differ_by_nothing():
    rows = compare([page(2)] * 6, [page()] * 6, KINDS)
    for pair in compare_models(rows, rows).values():
        assert pair.difference.value == 0 and pair.p == pair.p_mcnemar == 1


def test_one_skipped_row_costs_one_row():
    ref = page(6)
    rows = compare([dict(ref, drugs=ref['drugs'][1:])], [ref], KINDS)
    assert [r['field'] for r in rows if r['outcome'] != 'ok'] == ['drugs.0.drug_name', 'drugs.0.dose']
    rows = compare([ref], [dict(ref, drugs=ref['drugs'][1:])], KINDS)
    assert {r['outcome'] for r in rows} == {'ok', 'spurious'}
    assert field_f1(rows)['recall'].value == 1 and field_match(rows)['all fields'].value == 1


def test_unparsable_answers_count_everywhere():
    refs = [page() for _ in range(8)]
    half = table_scores(compare(refs[:4] + [None] * 4, refs, KINDS))
    assert half['all fields'].value == half['recall'].value == half['page exact'].value == half['unparsable'].value == .5
    assert all(half[k].value == .5 for k in ('name', 'date', 'code', 'number'))
    assert half['precision'].value == 1


def test_cer_by_hand_and_by_page():
    assert char_errors('kitten', 'sitting') == (3, 7)
    assert cer(['가나다라'], ['가']).value == 3
    many = cer(['가나'] * 30 + ['다다'] * 10, ['가나'] * 40)
    assert many.value == .25 and many.low < .25 < many.high
    fewer = cer(['가나'] * 30 + ['다다'] * 10, ['가나'] * 40, groups=[i // 10 for i in range(40)])
    assert fewer.high - fewer.low > many.high - many.low


@pytest.mark.parametrize('text', ['Ａ１：。', '한글', 'ﾊﾝｶｸ', '㎎㎖', 'e\u0301', '\u200b한\u200d글\ufeff', ' a \u3000 b '])
def test_normalising_twice_changes_nothing(text):
    for spaces in ('keep', 'one', 'none'):
        once = normalise(text, spaces=spaces)
        assert normalise(once, spaces=spaces) == once


def test_no_score_without_interval_or_reason():
    for s in [share([]), bootstrap([]), wilson(0, 0), cer([], []), bootstrap([.5, .5]), share([1]), paired_test([], []).difference]:
        assert isinstance(s, Score) and 'nan' not in str(s) and (s.low is not None or 'no ' in str(s))


def test_blind_prompts():
    refs = [dict(patient_name='이하윤', issue_date='2025-10-27', dose='1')]
    with pytest.raises(ValueError, match='patient_name') as e: assert_blind(['환자 이 하 윤 님의 처방전입니다'], refs)
    assert '이하윤' not in str(e.value)
    with pytest.raises(ValueError, match='issue_date'): assert_blind(['2025.10.27'], refs)
    assert_blind(['1번 질문: 이름과 날짜를 쓰시오'], refs)


def test_a_large_evaluation_is_quick():
    refs = [page(5) for _ in range(500)]
    preds = [dict(page(4), patient_name='이하운') if i % 3 else page(5) for i in range(500)]
    start = time.perf_counter()
    rows = compare(preds, refs, KINDS)
    table_scores(rows), compare_models(rows, rows), gallery(rows, {i: Image.new('L', (600, 800)) for i in range(500)}, n=3)
    assert time.perf_counter() - start < 20


def test_copies_of_a_page_add_no_certainty():
    refs = [page() for _ in range(20)]
    preds = [page() if i % 4 else dict(page(), patient_name='박지우', disease_codes=['Z9']) for i in range(20)]
    once, plain = table_scores(compare(preds, refs, KINDS)), table_scores(compare(preds * 5, refs * 5, KINDS))
    grouped = table_scores(compare(preds * 5, refs * 5, KINDS, groups=list(range(20)) * 5))
    for key in ('all fields', 'F1', 'page exact', 'name'):
        assert grouped[key].high - grouped[key].low == pytest.approx(once[key].high - once[key].low, abs=.03)
        assert plain[key].high - plain[key].low < .7 * (grouped[key].high - grouped[key].low)
