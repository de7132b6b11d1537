"""Questions of a patient, put to a tuned bundle: `python bench/asking.py BUNDLE [--pages 60]` writes results/asking.json.

Prescriptions in a layout and in fonts that were not tuned on, clean and with damage of severity 1 to 3, are each asked seven things in Chinese, Korean and English: whose it is, what the illness is, how the medicines are taken, two single fields and two that are not there.
A bundle of strips answers from the fields that it reads; the wordings are those of `questions`, which it has to recognise.
"""
import argparse
import random
from pathlib import Path

from medvlm import core
from medvlm.cuttings import font_split
from medvlm.qwen_ocr import in_processes
from medvlm.questions import Page, ask_rows, kinds_of
from medvlm.papers import LANGUAGES
from medvlm.transfer import as_reader, asked_table, known_page, plan_pages, replies_of

KINDS = ('identity', 'diagnosis', 'drugs', 'field', 'field', 'absent', 'absent')
FIRST = 940_000


def questions(pages):
    "Rows about drawn pages, with severity and layout in their `meta`."
    rows = []
    for i, p in enumerate(pages):
        m = p['meta']
        page = Page('prescription', m['fields'], p['images'][0], p['group'], m['seed'], m['layout'])
        kinds = [k for k in KINDS if k in kinds_of(page)]
        for lang in LANGUAGES: rows += [dict(r, meta=r['meta'] | dict(severity=m['severity'])) for r in ask_rows(page, random.Random(f'asking {i} {lang}'), lang, kinds)]
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('bundle')
    p.add_argument('--pages', type=int, default=60)
    p.add_argument('--out', default=Path(__file__).resolve().parent/'results'/'asking.json')
    a = p.parse_args()
    rows = questions(in_processes(known_page, plan_pages(a.pages, FIRST, ('clinic',), (0, 1, 2, 3), .3, fonts=tuple(font_split()[1]))))
    replies = replies_of(as_reader(a.bundle), rows)
    tables = {by: asked_table(rows, replies, by, 'Bundle of the demo') for by in ('lang', 'kind', 'severity')}
    for t in tables.values(): print(t, '\n')
    sample = [dict(id=r['id'], question=r['messages'][0]['content'][-1]['text'], reply=t, answer=r['messages'][-1]['content'][-1]['text']) for r, t in zip(rows[:7], replies)]
    core.save_json(dict(pages=a.pages, first=FIRST, tables={by: dict(head=t.head, rows=t.rows) for by, t in tables.items()}, sample=sample, versions=core.versions(), machine=core.machine(), commit=core.commit()), a.out)


if __name__ == '__main__': main()
