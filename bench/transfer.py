"""Which part of the training carries a reader to other pages: `python bench/transfer.py [--rows ROWS.json IMAGES]`.

Tunes the small recipe four times (one layout or several, clean pages or damaged ones), with the same patients, pages and steps, and asks each for its own layout, for a held-out one, for that one damaged,
and for pages of others, which nothing is tuned or chosen on. Writes bench/results/transfer.json after every variant; variants that are in the file are not run again, whatever the commit.
The held-out layouts fill one A4 page; hospital sheets run over several, and a thermal roll is none.
Each takes about four minutes on two quiet cores with the default sizes. `--seeds 42 43` repeats all of them; `--lines 40` adds the made-up lines of the recipe.

`python bench/transfer.py --meter BUNDLE [--test 40] [--rows ROWS.json IMAGES]` instead asks one bundle for layouts of the training, held-out ones, each severity, and pages of others, and keeps that table in the same file.
"""
import argparse
from dataclasses import replace
from pathlib import Path

from medvlm import core
from medvlm.qwen_ocr import TRAIN_LAYOUTS
from medvlm.train import RECIPES
from medvlm.transfer import ablate, ablation_plan, cell_table, draw_sets, effects, transfer_plan, transfer_table, variants


def meter(bundle, sets, out):
    "Asks the bundle for all sets, prints the table and keeps it in the results."
    table, manifest = transfer_table(bundle, sets), core.load_json(Path(bundle)/'manifest.json')
    result = core.load_json(out) if Path(out).exists() else dict(variants=[])
    told = {k: manifest[k] for k in ('base_hash', 'data', 'steps')}
    core.save_json(result | dict(meter=dict(bundle=told, head=table.head, rows=table.rows, versions=core.versions(), machine=core.machine(), commit=core.commit())), out)
    print(table)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--pages', type=int, default=100, help='pages that each variant is tuned on')
    p.add_argument('--steps', type=int, default=300, help='steps of each variant')
    p.add_argument('--test', type=int, default=40, help='pages of each drawn test set')
    p.add_argument('--lines', type=int, default=0, help='made-up lines added to each page')
    p.add_argument('--seeds', type=int, nargs='+', default=[42], help='seeds of the runs')
    p.add_argument('--one', nargs=1, default=list(TRAIN_LAYOUTS[:1]), help='the one layout')
    p.add_argument('--several', nargs='+', default=list(TRAIN_LAYOUTS), help='the several layouts')
    p.add_argument('--held-out', nargs='+', default=['clinic', 'letter'], help='layouts that no variant is tuned on')
    p.add_argument('--rows', nargs=2, metavar=('JSON', 'IMAGES'), help='pages of others, scored only')
    p.add_argument('--meter', metavar='BUNDLE', help='ask this bundle instead of tuning any')
    p.add_argument('--views', type=int, default=1, help='views of each image for uncertain answers')
    p.add_argument('--workers', type=int, default=2, help='processes for drawing and cutting')
    p.add_argument('--root', default='runs', help='folder of run folders')
    p.add_argument('--out', default=str(Path(__file__).resolve().parent/'results'/'transfer.json'))
    a = p.parse_args()
    if shared := set(a.several) & set(a.held_out): raise SystemExit(f'{sorted(shared)} are in --several and in --held-out; name each once')
    if a.meter: return meter(a.meter, draw_sets(transfer_plan(a.test, trained=tuple(a.several), held_out=tuple(a.held_out)), *(a.rows or (None, None)), workers=a.workers), a.out)
    recipe = replace(RECIPES['ocr_7b_small'], steps=a.steps, views=a.views)
    cells = variants(a.pages, tuple(a.one), tuple(a.several), lines=a.lines, seeds=tuple(a.seeds))
    sets = draw_sets(ablation_plan(a.test, one=tuple(a.one), held_out=tuple(a.held_out)), *(a.rows or (None, None)), workers=a.workers)
    result = ablate(recipe, cells, sets, a.out, a.root, a.workers, lambda line: print(line, flush=True))
    mine = [e for e in result['variants'] if (e['pages'], e['steps'], e['lines'], e['seed']) in {(a.pages, a.steps, a.lines, s) for s in a.seeds}]
    print(cell_table(mine))
    for test in sets:
        for name, pair in effects(mine, test).items(): print(f'{test:32} {name:16} {pair}')


if __name__ == '__main__': main()
