"Answers in every broken form through evaluation, comparison and report; hostile text in the report, also in a browser where there is one."
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from PIL import Image

from medvlm.core import Run, save_json
from medvlm.eval import JOBS, Job, assert_blind, compare_evaluations, evaluate, join, load_evaluations, read_answers, report_sections, save_evaluations
from medvlm.report import write_html

KINDS = dict(patient_name='name', issue_date='date', disease_codes='code', drug_name='name', dose='number', freq='number', days='number')
HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", 'javascript:alert(1)', '</style><script>alert(1)</script>', '<!--', '&lt;b&gt;',
           'a\0b', '\u202eabc\u202c', 'שלום', 'مرحبا', '\ud800', '👩‍⚕️' * 50, '가' * 100_000, '\n\t ', '{{7*7}}', '$x^2', '=cmd|1', '%s %n', '../../etc/passwd', 'NaN', '1e999999', '9' * 50_000]
SAFE = {'img': {'alt', 'src', 'class'}, 'a': {'href'}}




def loads(text):
    "Fields of a JSON answer, None when it is none."
    try: found = json.loads(text)
    except ValueError: return None
    return found if isinstance(found, dict) and found else None


FORM = Job('form', parse=loads, kinds=KINDS, text=('CER',), main=('all fields', 'rows right'))
CASES = dict(lung=('Class: Normal\nExplanation: The lungs are clear.', 'Normal'), skin=('<label>건선</label>\n<summary>홍반과 인설이 보입니다.</summary>', '건선'), qa=('증상이 계속되면 의사와 상의하세요.', None), text=('정상 흉부 방사선 사진입니다.', None),
             form=(json.dumps(dict(patient_name='이하윤', drugs=[dict(drug_name='약', dose='1')]), ensure_ascii=False), None))


def job_of(name): return FORM if name == 'form' else JOBS[name]


def refs_of(name, n=3):
    text, label = CASES[name]
    return [dict(id=f'r{i}', text=text, label=label, group=f'g{i}', source='x', meta=dict(intention='치료', disease=f'd{i % 2}', size=[200, 100])) for i in range(n)]


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
    "A report on two models whose answers, ids, model names, notes and manifest are hostile."
    folder = tmp_path_factory.mktemp('hostile')
    refs = [dict(refs_of('form', 1)[0], id=f'{i} {h[:200]}', group=h[:200], meta={h[:50]: i}) for i, h in enumerate(HOSTILE)]
    bad = [dict(id=r['id'], text=json.dumps(dict(patient_name=h, issue_date=h, disease_codes=[h, h], drugs=[dict(drug_name=h, dose=h)] * 4, **{h[:50]: h}))) for r, h in zip(refs, HOSTILE)]
    models = {'<i>one</i>': evaluate(join([dict(id=r['id'], text=r['text']) for r in refs], refs), FORM), '"><script>alert(2)</script>': evaluate(join(bad + [dict(id=HOSTILE[0], text='x')], refs), FORM)}
    save_json({'<b>': '<script>alert(1)</script>', 'nested': {'x': ['</pre><script>alert(1)</script>']}}, folder / 'manifest.json')
    sections = report_sections(models, lambda ref: Image.new('RGB', (60, 80), 'white'), n=len(HOSTILE), policy=HOSTILE[0])
    return write_html(folder, HOSTILE[0], [*sections, (HOSTILE[1], HOSTILE)], note=HOSTILE[4])


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
    assert write_html(tmp_path / 'a.html', 't', []).name == 'a.html'
    (tmp_path / 'manifest.json').write_text('{')
    with pytest.raises(ValueError, match='line 1'): write_html(tmp_path, 't', [])
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


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('answer', ['', None, '\ud800\udfff', '\0', '정상 normal 正常 ' * 30, '가' * 1_000_000, 'Class: Cancer\nExplanation: a mass.', '<label>진단불가</label>', '{"patient_name": NaN, "drugs": [{"dose": NaN}]}', 'Class: Normal\nClass: Obstructive', '👩‍⚕️' * 50],
                         ids=['empty', 'none', 'surrogates', 'nul', 'mixed languages', '1 MB', 'outside', 'declined', 'NaN', 'two labels', 'emoji'])
def test_any_answer_ends_in_a_report(name, answer, tmp_path):
    refs = refs_of(name)
    e = evaluate(join([dict(id='r0', text=answer), *(dict(id=r['id'], text=r['text']) for r in refs[1:])], refs), job_of(name))
    assert 'nan' not in str(list(e.scores.values()))
    if name in ('lung', 'form') and len(str(answer)) != 1: assert 'What could not be scored' in save_evaluations(Run('x', tmp_path), dict(model=e), 'Title').read_text(encoding='utf-8')
    if name in ('lung', 'skin'): assert e.scores['accuracy'].value == pytest.approx(2 / 3) and e.scores['unparsable'].value == pytest.approx(1 / 3)


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('n', [1, 4])
def test_no_answers_at_all(name, n, tmp_path):
    (tmp_path / 'answers.jsonl').write_text('')
    e = evaluate(join(tmp_path / 'answers.jsonl', refs_of(name, n)), job_of(name))
    assert e.scores['missing'].value == 1 and e.joined.ids('missing') == [f'r{i}' for i in range(n)]
    if n == 1: save_evaluations(Run('x', tmp_path), dict(model=e), 'Title')
    if name in ('lung', 'skin', 'form'): assert e.scores['unparsable'].value == 1
    if name in ('lung', 'skin'): assert e.scores['macro-F1'].value == 0


@pytest.mark.parametrize('name', CASES)
def test_perfect_answers(name, tmp_path):
    refs = refs_of(name, 1)
    e = evaluate(join([dict(id='r0', text=refs[0]['text'], finish_reason='stop')], refs), job_of(name))
    assert all(s.value in (None, 1) for k, s in e.scores.items() if not e.measures[k].lower and k not in ('Matthews', 'BLEU (char)', 'BLEU (word)', 'characters') and 'hit' not in k and 'told' not in k)
    assert all(s.value == 0 for k, s in e.scores.items() if e.measures[k].lower and s.value is not None)


def test_a_class_absent_from_truth_or_predictions():
    refs = [dict(r, label=l, text=f'Class: {l}') for r, l in zip(refs_of('lung', 4), ['Normal', 'Normal', 'Obstructive', 'Obstructive'])]
    e = evaluate(join([dict(id=r['id'], text=t) for r, t in zip(refs, ['Class: Normal', 'Class: Lower_Density', 'Class: Normal', 'Class: Normal'])], refs), JOBS['lung'])
    assert e.scores['macro-F1'].value == pytest.approx((.4 + 0 + 0) / 3) and e.scores['balanced accuracy'].value == .25
    assert e.scores['recall Chest_Changes'].value is None and e.scores['recall Lower_Density'].value is None
    report_sections(dict(model=e))


@pytest.mark.parametrize('bad,words', [(dict(label='Cancer'), 'label outside'), (dict(label=None), 'label outside')])
def test_references_must_have_a_label_of_the_job(bad, words):
    with pytest.raises(ValueError, match=words): evaluate(join([], [dict(refs_of('lung')[0], **bad)]), JOBS['lung'])


def test_broken_files(tmp_path):
    file = tmp_path / 'answers.jsonl'
    file.write_bytes(b'\xef\xbb\xbf{"id": "r0", "text": "\xff\xfe"}\n{"id": "r1"\nnull\n{"id": null, "text": "x"}\n' + '{"id": "r2", "text": "정상", "seconds": NaN, "new_tokens": Infinity}\n{"id": "r2", "text": "비정상"}\n{"id": "r2", "text": "정상"}\n'.encode() + b'[' * 100_000 + b'\n')
    answers, faults = read_answers(file)
    j = join(file, refs_of('text'))
    assert j.texts[2] == '정상' and j.answers[2]['seconds'] is None and j.answers[2]['new_tokens'] is None
    assert len(j.ids('answered twice, differently')) == 1 and len(j.ids('answered twice, the same')) == 1 and len(j.ids('broken characters')) == 1
    assert len(answers) + len(j.ids('unreadable lines')) == 8 and len(faults) == len(j.ids('unreadable lines')) + 1


def test_a_run_is_evaluated_again_to_the_same(tmp_path):
    refs = refs_of('lung', 6)
    models = {k: evaluate(join([dict(id=r['id'], text=r['text'] if i % m else 'Class: Obstructive', finish_reason='stop') for i, r in enumerate(refs)], refs), JOBS['lung']) for k, m in (('a', 2), ('b', 3))}
    save_evaluations(Run('x', tmp_path), models, 'Title')
    again = load_evaluations(tmp_path / 'x')
    assert {k: e.scores for k, e in again.items()} == {k: e.scores for k, e in models.items()}
    assert compare_evaluations(again) == compare_evaluations(models)


def test_blind_prompts():
    refs = [dict(patient_name='이하윤', issue_date='2025-10-27', dose='1')]
    with pytest.raises(ValueError, match='patient_name') as e: assert_blind(['환자 이 하 윤 님의 처방전입니다'], refs)
    assert '이하윤' not in str(e.value)
    with pytest.raises(ValueError, match='issue_date'): assert_blind(['2025.10.27'], refs)
    assert_blind(['1번 질문: 이름과 날짜를 쓰시오'], refs)
