"""What a tuned bundle does with pages it should read and pictures it should not: `python bench/reading.py BUNDLE` writes results/reading.json."""
import argparse
import random
from pathlib import Path

import numpy as np
from PIL import Image

from medvlm import core, fields as fd
from medvlm.cuttings import font_split
from medvlm.data import open_image
from medvlm.forms import degrade, draw
from medvlm.papers import checkup_values, draw_paper, receipt_values
from medvlm.qwen_ocr import KINDS, TEST_LAYOUTS, page_row, reference
from medvlm.reading import open_reader, read_all
from medvlm.stats import share

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parent/'data_samples'
TURNS = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}  # Pillow turns the other way


def form(seed):
    "A test page in fonts that were not tuned on, every other one damaged as a scan is."
    rng = random.Random(f'reading {seed}')
    page = draw(seed, rng.choice(TEST_LAYOUTS), font=list(font_split()[1]), width=rng.choice((595, 842, 1191)))
    return degrade(page, 1, seed) if seed % 2 else page


def judged(reading, page):
    "Each value that was read: (least, mean, right)."
    if reading.fields is None: return [], 0
    read = reading.fields.model_dump(mode='json')
    got = {k: read[k] for k in ('patient_name', 'patient_rrn', 'issue_date', 'disease_codes') if read[k]}
    got['drugs'] = [{k: f'{d[k]}' for k in fd.DRUG_PARTS if d[k]} for d in read['drugs']]
    truth = reference(page_row(page))
    truth['drugs'] = [{k: v for k, v in d.items()} for d in truth['drugs']]
    table = fd.compare([got], [truth], KINDS)
    where = {r['field'].replace('+', ''): r for r in table if r['pred'] is not None}
    sure = [(c.least, c.mean, where[a]['outcome'] == 'ok') for a, c in reading.confidence.items() if a in where and str(fd.flatten(got).get(a)) == str(where[a]['pred'])]
    return sure, (sum(r['outcome'] == 'ok' for r in table), sum(r['outcome'] != 'spurious' for r in table))


def auroc(scores, right):
    "Chance that a right value has the higher score than a wrong one."
    good, bad = [s for s, r in zip(scores, right) if r], [s for s, r in zip(scores, right) if not r]
    return float(np.mean([(g > b) + .5*(g == b) for g in good for b in bad])) if good and bad else None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('bundle')
    p.add_argument('--n', type=int, default=12)
    p.add_argument('--out', default=HERE/'results'/'reading.json')
    a = p.parse_args()
    reader, n, out = open_reader(a.bundle), a.n, {}
    pages = [form(97_000 + i) for i in range(n)]
    def note(name, found, right):
        out[name] = dict(n=len(found), right=sum(right), share=vars(share(right)), kinds=[[r.kind for r in f] for f in found], evidence=[[r.evidence for r in f] for f in found], turned=[[r.turned for r in f] for f in found])
        print(name, f'{sum(right)}/{len(right)}', out[name]['evidence'], flush=True)
        core.save_json(dict(bundle=reader.papers.get('base_hash'), recipe=reader.recipe.name, versions=core.versions(), results=out), a.out)
    upright = [read_all(reader, f.image, 'zh') for f in pages]
    note('forms', upright, [len(r) == 1 and r[0].kind == 'prescription' and r[0].turned == 0 for r in upright])
    sure, counts = zip(*(judged(r[0], f) for r, f in zip(upright, pages)))
    flat, counts = [x for s in sure for x in s], [c for c in counts if c]
    least, mean, right = zip(*flat)
    print('fields right', sum(c[0] for c in counts), 'of', sum(c[1] for c in counts), 'AUROC least', auroc(least, right), 'mean', auroc(mean, right))
    trusted = [r for l, r in zip(least, right) if l >= .7]
    out['confidence'] = dict(n=len(flat), right=sum(right), auroc_least=auroc(least, right), auroc_mean=auroc(mean, right), trusted=len(trusted), trusted_right=sum(trusted), true_fields=sum(c[1] for c in counts), true_right=sum(c[0] for c in counts))
    films = [open_image(f) for f in sorted((SAMPLES/'lung').rglob('*.png'))[:4*n:4]]
    skins = [open_image(f) for f in sorted(x for x in (SAMPLES/'skin').rglob('*') if x.suffix in ('.jpg', '.png'))[:6*n:6]]
    for name, ims in (('chest films', films), ('skin', skins)):
        found = [read_all(reader, im, 'zh') for im in ims]
        note(name, found, [all(r.kind == 'none' and r.fields is None for r in f) for f in found])
    small = [read_all(reader, f.image.resize((200, 150)), 'zh') for f in pages[:n//2]]
    note('thumbnails', small, [f[0].kind == 'none' and any('print too small' in w for w in f[0].warnings) for f in small])
    for turn, way in TURNS.items():
        found = [read_all(reader, f.image.transpose(way), 'zh') for f in pages[:n//2]]
        note(f'turned {turn}', found, [f[0].kind == 'prescription' and f[0].turned == (360 - turn) % 360 for f in found])
    def photo(x, y, ground):
        out = Image.new('RGB', (x.width + y.width + 60, max(x.height, y.height) + 40), ground)
        out.paste(x, (20, 20)); out.paste(y, (x.width + 40, 20))
        return out
    ground = ('white', (90, 80, 70))
    pairs = [read_all(reader, photo(pages[i].image, pages[-1 - i].image, ground[i % 2]), 'zh') for i in range(n//2)]
    note('two forms', pairs, [len(f) == 2 and all(r.kind == 'prescription' for r in f) for f in pairs])
    papers = [draw_paper('receipt', receipt_values(900 + i), 842, i) for i in range(n//4)] + [draw_paper('checkup', checkup_values(900 + i), 842, i) for i in range(n//4)]
    other = [read_all(reader, im, 'zh') for im in papers]
    note('receipts and check-ups', other, [all(r.kind == 'none' for r in f) for f in other])


if __name__ == '__main__': main()
