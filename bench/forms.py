"""Pages per second of medvlm.forms on one core, and how many boxes hold their ink: `python bench/forms.py [--pages 56] [--rounds 5] [--boxes 500]`.

For both page widths and all layouts: many pages at once (`draw_many`, colour and grey), one page at a time (`draw`), pages drawn and degraded (severity 3, the five effects of `degrade`), each recipe, and, for comparison,
the same texts written onto an empty page with Pillow. Seconds are those of the processor, so that other work on the machine counts less; pages per second of the clock and the load of the machine stand beside them:
other processes that share its caches slow this one down too, so measure on an idle machine. With `--boxes N` the boxes of N further pages are checked by printing each without one value, clean and, for some values, degraded.
Writes bench/results/forms.json.
"""
import argparse
import os
import statistics
import time
from pathlib import Path

from PIL import ImageDraw, ImageFont

from medvlm.core import commit, load_json, machine, save_json, versions
from medvlm.forms import LAYOUTS, RECIPES, blank_page, box_check, degrade, draw, draw_many, font_pool

OUT = Path(__file__).parent / 'results' / 'forms.json'
TARGETS = {'draw_many, grey': 50, 'draw_many, grey, and degrade': 10}


def pillow_page(form, font):
    page = blank_page(form.image.width).copy()
    pen = ImageDraw.Draw(page)
    for b in form.boxes: pen.text(tuple(b.quad[0]), b.text, font=font, fill='black')
    return page


def rate(work, rounds, pages, start):
    "Pages per second over `rounds` of `work(first, after)` from the seed `start` on: median and best of the processor, median of the clock. No seed is drawn twice, since typst keeps what it has set."
    cpu, wall = [], []
    for k in range(start, start + rounds):
        c, t = time.process_time(), time.perf_counter()
        work(k * pages, (k + 1) * pages)
        cpu.append(pages / (time.process_time() - c))
        wall.append(pages / (time.perf_counter() - t))
    return dict(cpu=round(statistics.median(cpu), 1), best=round(max(cpu), 1), wall=round(statistics.median(wall), 1))


def speed(pages, rounds):
    names, rows = list(LAYOUTS), []
    layouts = lambda a, b: [names[i % len(names)] for i in range(a, b)]
    for width in (1191, 595):
        many = lambda a, b, mode: draw_many(range(a, b), layouts(a, b), width=width, mode=mode)
        forms = list(many(0, len(names), 'RGB'))
        list(many(0, len(names), 'L'))
        font = ImageFont.truetype(font_pool()[1].path, width // 60)
        every = lambda f: lambda a, b: [f(i) for i in range(a, b)]
        work = {'draw_many': lambda a, b: [f.seed for f in many(a, b, 'RGB')],
                'draw_many, grey': lambda a, b: [f.seed for f in many(a, b, 'L')],
                'draw': every(lambda i: draw(i, layouts(i, i + 1)[0], width=width)),
                'draw_many and degrade': lambda a, b: [degrade(f, 3, f.seed).seed for f in many(a, b, 'RGB')],
                'draw_many, grey, and degrade': lambda a, b: [degrade(f, 3, f.seed).seed for f in many(a, b, 'L')],
                **{f'draw_many, grey, and {r}': lambda a, b, r=r: [degrade(f, 3, f.seed, r).seed for f in many(a, b, 'L')] for r in RECIPES if width == 1191},
                'Pillow, texts only': every(lambda i: pillow_page(forms[i % len(forms)], font))}
        for what, f in work.items():
            target = TARGETS.get(what) if width == 1191 else None
            rows.append(dict(width=width, what=what, **rate(f, rounds, pages, (len(rows) + 1) * (rounds + 1)), target=target))
            r = rows[-1]
            print(f"{width:5} {what:32} {r['cpu']:7.1f} forms/s of one core (best round {r['best']}), {r['wall']:.1f} by the clock" + (f'  (target {target})' if target else ''), flush=True)
    return rows


def boxes(pages):
    "Share of boxes that hold at least 99 % of their ink: all values of `pages` clean forms, four values of each degraded by one of the recipes at severity 1 to 5."
    names, recipes, found = list(LAYOUTS), list(RECIPES), {'clean': [], **{r: [] for r in RECIPES}}
    for i in range(pages):
        layout, recipe = names[i % len(names)], recipes[i % len(recipes)]
        found['clean'] += box_check(50_000 + i, layout).values()
        found[recipe] += box_check(50_000 + i, layout, lambda f: degrade(f, 1 + i % 5, i, recipe), keys=4).values()
        if i % 50 == 49: print(i + 1, 'pages', sum(v >= .99 for v in found['clean']), 'of', len(found['clean']), flush=True)
    return {k: dict(n=len(v), held=sum(s >= .99 for s in v), share=round(sum(s >= .99 for s in v) / len(v), 5) if v else None) for k, v in found.items()}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--pages', type=int, default=56, help='pages per round')
    ap.add_argument('--rounds', type=int, default=5, help='rounds; the median counts; 0 leaves the speed as it stands in the file')
    ap.add_argument('--boxes', type=int, default=0, help='pages whose boxes are checked')
    a = ap.parse_args()
    load = round(os.getloadavg()[0], 1) if hasattr(os, 'getloadavg') else None
    if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    out = load_json(OUT) if OUT.exists() else {}
    about = dict(machine=machine(), versions=versions(('typst', 'pillow', 'numpy')), commit=commit())
    if a.rounds: out |= dict(pages=a.pages, rounds=a.rounds, load_before=load, rows=speed(a.pages, a.rounds), **about)
    if a.boxes: out['boxes'] = dict(pages=a.boxes, kinds=boxes(a.boxes), **about)
    save_json(out, OUT)
    print(f'load before: {load}; wrote {OUT.parent.name}/{OUT.name}')


if __name__ == '__main__': main()
