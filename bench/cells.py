"""How well the small reader reads receipts and check-ups: `python bench/cells.py [--pages 240] [--steps 1200] [--test 12] [--name cells] [--out bench/results/cells.json]`.

Draws receipts and check-ups in all families but one of each kind, tunes the small base on their strips as `cells` presents them, and reads other pages: new ones in the families it was tuned on, and pages in the families that it was not.
Test pages are set in other fonts, half of them as scanned with severity 1. A finished bundle is used again. Writes bench/results/cells.json.
"""
import argparse
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from medvlm import core, fields as fd
from medvlm.cells import CELLS, cell_rows, read_cells
from medvlm.cuttings import KEPT_OUT, font_split, page_by_lot
from medvlm.forms import degrade_page
from medvlm.models import load_bundle
from medvlm.papers import draw_pages, families, nested
from medvlm.stats import score_table
from medvlm.train import RECIPES, fit

NUMBERS = (*(f's{i}' for i in range(1, 12)), 'unpaid', 'card', 'cash', 'cash_receipt')
KINDS = {k: 'number' for k in NUMBERS} | dict(period='date', day='date', judged_day='date', issue_date='date', date='date')


def taught(job):
    "Rows of the strips of one drawn page."
    i, kind = job
    image, letters = page_by_lot(random.Random(f'cells {i}'), kind, font_split()[0], worst=2)
    return cell_rows(kind, image, f'{kind}-cells-{i:05}', letters)[0]


def asked(job):
    "One test page: (kind, family, id, image, true fields of its first page)."
    i, kind, family = job
    rng = random.Random(f'cells test {i} {family}')
    paper = draw_pages(kind, 900_000 + i, family, width=rng.choice((700, 842, 1191)), font=list(font_split()[1]))
    image = paper.pages[0]
    if rng.random() < .5: image = degrade_page(image, paper.boxes[0], random.Random(i), lambda e: random.Random(f'{e} {i}'), 1, ('rotation', 'perspective', 'shadow', 'blur', 'jpeg'))[0]
    return kind, family, f'{kind}-{family}-{i}', image, {b.key: b.text for b in paper.boxes[0] if b.key != 'stamp'}


def kind_of(key):
    "How a value is compared: results of a check-up and everything without digits as text."
    return 'number' if key.startswith('items.') else KINDS.get(key, 'name')


def main(pages, steps, test, name, out):
    "Tunes, reads, scores."
    recipe = replace(RECIPES['ocr_7b_small'], name=name, steps=steps)
    run = core.Run(name, 'runs')
    with ProcessPoolExecutor(2) as pool:
        if not (run.dir/'bundle').exists():
            rows = sum(pool.map(taught, [(i, list(CELLS)[i % 2]) for i in range(pages)], chunksize=4), [])
            print(f'{len(rows)} strips of {pages} pages', flush=True)
            fit(recipe, rows, run)
        jobs = [(i, k, f) for k in CELLS for f in families(k) for i in range(test if f == KEPT_OUT[k] else max(1, test//(len(families(k)) - 1)))]
        sheets = list(pool.map(asked, jobs))
    model, processor, manifest = load_bundle(run.dir/'bundle')
    result = {}
    for kind in CELLS:
        for kept_out in (False, True):
            mine = [s for s in sheets if s[0] == kind and (s[1] == KEPT_OUT[kind]) == kept_out]
            read = read_cells(model, processor, kind, [(id, image) for _, _, id, image, _ in mine], recipe)
            refs = [truth for *_, truth in mine]
            kinds = {'.'.join(p for p in k.split('.') if not p.isdigit()): kind_of(k) for truth in refs for k in truth}
            table = fd.compare([fields for fields, *_ in read], [nested(truth) for truth in refs], kinds, ids=[m[2] for m in mine])
            scores = fd.table_scores(table)
            title = f"{kind}, {'the family kept out' if kept_out else 'families taught'}: {len(mine)} pages, {sum(r[1] for r in read)} amounts without a column"
            print(f'\n{title}\n{score_table(scores)}', flush=True)
            result[f"{kind}, {'kept out' if kept_out else 'taught'}"] = dict(pages=len(mine), without_column=sum(r[1] for r in read), scores=scores)
    core.save_json(dict(sets=result, kept_out=KEPT_OUT, arguments=dict(pages=pages, steps=steps, test=test), base_hash=manifest['base_hash'], versions=core.versions(), machine=core.machine(), commit=core.commit()), out)


if __name__ == '__main__':
    p = argparse.ArgumentParser()
    for flag, value in dict(pages=240, steps=1200, test=12, name='cells', out='bench/results/cells.json').items(): p.add_argument(f'--{flag}', type=type(value), default=value)
    main(**vars(p.parse_args()))
