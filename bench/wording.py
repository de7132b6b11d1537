"""Descriptions audited and mended per second of one core: `python bench/wording.py [--rows 20000] [--rounds 5]` writes results/wording.json.

Distinct Korean texts of about 300 characters in the form of the skin job, drawn from sentences of our own; a stated share has a problem: foreign words with particles, a label in another spelling, damaged tags, a refusal, markdown, a sentence
twice. Audit and fix with 40 terms, beside the plain way: 40 substitutions with `\\b` one after the other, and simple checks. One thread; rounds in turn; medians. What each way leaves behind is counted too.
"""
import argparse
import random
import re
import statistics
import time
from pathlib import Path

from medvlm import core
from medvlm.sources import SKIN_CLASSES
from medvlm.wording import TERMS, Rules, applied, audit, fix, foreign_words

ROOT = Path(__file__).resolve().parents[1]
PLACES = ['이마', '코', '콧등', '콧방울', '왼쪽 볼', '오른쪽 볼', '양쪽 볼', '턱', '턱선', '눈썹 사이', '눈가', '입가', '귀 앞', '광대 부위', '목 앞쪽', '관자놀이', '팔자 주름 옆', '헤어라인']
SIGNS = ['홍반', '인설', '구진', '농포', '면포', '결절', '가피', '균열', '색소침착', '모세혈관 확장', '붉은 기', '각질', '흉터', '찰상', '진물', '번들거림', '건조함', '잔주름']
HOWS = ['옅게', '뚜렷하게', '좁게', '넓게', '드문드문', '촘촘하게', '대칭으로', '한쪽에만', '얇게', '두껍게']
ENDS = ['관찰됩니다', '보입니다', '나타납니다', '이어집니다', '남아 있습니다', '분포합니다', '확인됩니다']*2 + ['보이지 않습니다']
SIZES = [*['']*40, '약 {} mm 크기의 ', '지름 {} mm 이하의 ']


def sentence(rng, sign=None):
    "A sentence of our own about one place."
    return f"{rng.choice(PLACES)}에는 {rng.choice(SIZES).format(rng.randint(1, 9))}{sign or rng.choice(SIGNS) + ' 소견이'} {rng.choice(HOWS)} {rng.choice(ENDS)}."


def description(rng, signs=()):
    "About 300 characters, one sentence for each of `signs` among them."
    said, signs = [], list(signs)
    while sum(map(len, said)) + len(said) < 280 or signs:
        new = sentence(rng, signs.pop() if signs else None)
        if new not in said: said.append(new)
    rng.shuffle(said)
    return ' '.join(said)


def one_row(i, rng, terms, bad):
    "A row, spoilt when `bad`."
    label = rng.choice([c for c in SKIN_CLASSES if c != '정상'])
    kind = rng.choices(('words', 'label', 'tags', 'refusal', 'markdown', 'twice'), (14, 1, 1, 1, 1, 1))[0] if bad else ''
    signs = [rng.choice(terms) + rng.choice('이가은는') for _ in range(rng.randint(1, 3))] if kind == 'words' else ()
    text, said = description(rng, signs), label
    if kind == 'label': said = {'건선': 'psoriasis', '아토피': '아토피 피부염', '여드름': 'acne', '주사': 'rosacea', '지루': '지루성 피부염'}[label]
    if kind == 'refusal': text = '죄송하지만 이 사진만으로는 판단할 수 없습니다. ' + text
    if kind == 'markdown': text = '**소견** ' + text
    if kind == 'twice': text += ' ' + text.partition('. ')[0] + '.'
    if kind == 'tags': return dict(id=i, label=label, text=f'<Label>{said}</label><summary> {text}')
    return dict(id=i, label=label, text=f'<label>{said}</label>\n<summary>{text}</summary>')


def plain(rows, terms):
    "As most scripts do it: one substitution for each term, longest first, and a few checks."
    found, out = [], []
    for r in rows:
        text = r['text']
        m = re.search(r'<label>(.*?)</label>', text)
        if not m or m[1] != r['label']: found.append((r['id'], 'label'))
        words = re.findall(r'\b[a-zA-Z]+\b', re.sub(r'<[^>]*>', '', text))
        if words: found.append((r['id'], words))
        if re.search('[\u4e00-\u9fff\u3040-\u30ff]', text): found.append((r['id'], 'script'))
        if '죄송' in text or len(text) < 30: found.append((r['id'], 'refusal'))
        for said, new in sorted(terms.items(), key=lambda t: -len(t[0])): text = re.sub(rf'\b{re.escape(said)}\b', new, text, flags=re.I)
        out.append(dict(r, text=text))
    return found, out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rows', type=int, default=20_000)
    p.add_argument('--share', type=float, default=.3, help='share of rows with a problem')
    p.add_argument('--terms', type=int, default=40)
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--out', default=Path(__file__).resolve().parent/'results'/'wording.json')
    a = p.parse_args()
    rng = random.Random(0)
    terms = dict(rng.sample(sorted(t for t in TERMS.items() if t[0].isascii()), a.terms))
    spoilt = set(rng.sample(range(a.rows), round(a.share*a.rows)))
    rows = [one_row(i, rng, sorted(terms), i in spoilt) for i in range(a.rows)]
    assert len({r['text'] for r in rows}) == a.rows
    good, bad = [r for r in rows if r['id'] not in spoilt], [r for r in rows if r['id'] in spoilt]
    rules = Rules(terms)
    ways = {'audit': lambda: audit(rows), 'fix': lambda: fix(rows, rules), 'audit and fix': lambda: (audit(rows), fix(rows, rules)), 'audit, fix and apply': lambda: (audit(rows), applied(rows, fix(rows, rules))),
            'plain substitutions and checks': lambda: plain(rows, terms), 'audit of clean rows': lambda: audit(good), 'fix of clean rows': lambda: fix(good, rules), 'audit of spoilt rows': lambda: audit(bad), 'fix of spoilt rows': lambda: fix(bad, rules)}
    counts = {k: len(good) if 'clean' in k else len(bad) if 'spoilt' in k else len(rows) for k in ways}
    rounds = {k: [] for k in ways}
    for _ in range(a.rounds):
        for k, work in ways.items():
            start = time.perf_counter(); work(); rounds[k].append(counts[k]/(time.perf_counter() - start))
    found, (simple, plain_rows), mended = audit(rows), plain(rows, terms), applied(rows, fix(rows, rules))
    left = lambda some: sum(len(foreign_words(re.sub(r'<[^>]*>', '', r['text']))) for r in some)
    rates = {k: statistics.median(v) for k, v in rounds.items()}
    result = dict(rates=rates, rounds=rounds, rows=len(rows), share=a.share, terms=len(terms), characters=statistics.mean(len(r['text']) for r in rows), spoilt=len(bad), spoilt_found=len({p.id for p in found.problems} & spoilt),
                  clean_blamed=len({p.id for p in found.problems} - spoilt), spoilt_found_plain=len({i for i, _ in simple} & spoilt), foreign=left(rows), foreign_left=left(mended), foreign_left_plain=left(plain_rows), versions=core.versions(), machine=core.machine(), commit=core.commit())
    for k, v in rates.items(): print(f'{k:34} {v:9,.0f} rows/s of one core, {1e6/v:6.1f} µs a row')
    print({k: v for k, v in result.items() if k not in ('rates', 'rounds', 'versions', 'machine', 'commit')})
    core.save_json(result, a.out)


if __name__ == '__main__': main()
