"""Score a bundle on real prescription pages: `python bench/rx.py BUNDLE ROWS.json IMAGES [OUT.json]`.

The pages and their references come from a published set that is not part of this project, and nothing is tuned on them. Two counts are given. `as published` takes every reference field.
`on the page` leaves out what the reference names but the page cannot show: disease codes C and D (the form has two rows for codes), names in Chinese characters (printed as empty boxes),
and the character 片 that the references put in place of the printed 정 at the end of a drug name is read as 정.
"""
import re, sys
from collections import Counter
from medvlm import core, fields as fd
from medvlm.models import load_bundle
from medvlm.stats import score_table
from medvlm.qwen_ocr import KINDS, own_rows, parse_answer, predict, reference
from medvlm.train import Recipe, from_table

HAN = re.compile(r'[\u4e00-\u9fff]')

def printable(ref):
    "The reference without what the page cannot show."
    out = dict(ref, disease_codes=ref['disease_codes'][:2], drugs=[dict(d, drug_name=re.sub('片$', '정', d['drug_name'])) for d in ref['drugs']])
    if HAN.search(out['patient_name']): out.pop('patient_name')
    return out

def table(pages, preds, refs):
    "Field table of the pages."
    names = [p['id'] for p in pages]
    return fd.compare(preds, refs, KINDS, ids=names, groups=[p['group'] for p in pages])

def main(bundle, rows, images, out='bench/results/rx.json'):
    "Scores the clean pages and both kinds of degraded ones, prints the tables and the errors, and saves the figures."
    pages, _ = own_rows(rows, images)
    model, processor, manifest = load_bundle(bundle)
    recipe = from_table(Recipe, manifest['recipe'])
    result = dict(versions=core.versions(), commit=core.commit(), machine=core.machine(), bundle=dict(base_hash=manifest['base_hash'], data=manifest['data'], steps=manifest['steps']), sets={})
    for name in ('clean', 'aug1', 'aug2'):
        mine = [p for p in pages if (name == 'clean') == ('_aug' not in p['id']) and (name == 'clean' or p['id'].endswith(name))]
        answers = predict(model, processor, mine, recipe)
        preds = [parse_answer(a.text) for a in answers]
        if name == 'clean':
            published = table(mine, preds, [reference(p) for p in mine])
            print('clean, as published\n' + str(score_table(fd.table_scores(published, by='name'))))
            result['sets']['clean, as published'] = fd.table_scores(published, by='name')
        # a name that the page cannot show is left out of the answer too, so that reading boxes as letters is no spurious field
        refs = [printable(reference(p)) for p in mine]
        preds = [p and {k: v for k, v in p.items() if k in r or k not in ('patient_name',)} for p, r in zip(preds, refs)]
        rows_ = table(mine, preds, refs)
        for by in ('kind', 'name'):
            scores = fd.table_scores(rows_, by=by)
            result['sets'][f'{name}, on the page, by {by}'] = scores
            print(f'\n{name}, on the page\n' + str(score_table(scores)))
        errors = Counter((r['name'], fd.error_kind(r)) for r in rows_ if r['outcome'] != 'ok')
        result['sets'][f'{name}, errors'] = {f'{n}: {k}': c for (n, k), c in errors.most_common()}
        print('\nErrors:', ', '.join(f'{n} {k} {c}' for (n, k), c in errors.most_common(14)))
        print('Characters:', ', '.join(f'{a or "-"}→{b or "-"} {c}' for a, b, c in fd.confusions(rows_, 12)))
        for r in [r for r in rows_ if r['outcome'] == 'wrong'][:12]: print('  ', r['page'], r['field'], repr(r['pred']), 'for', repr(r['ref']))
    core.save_json(result, out)

if __name__ == '__main__': main(*sys.argv[1:])
