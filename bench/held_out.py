"""A tuned bundle on 200 drawn forms that no choice was made on: `python bench/held_out.py BUNDLE [OUT.json]`.

Fonts, layouts and damage are those of the demo's test forms, seeds begin at 950,000. Forty forms leave intervals of ten points; these say more closely what a bundle of the demo is worth.
"""
import sys

from medvlm.core import commit, machine, save_json, versions
from medvlm.models import load_bundle
from medvlm.cuttings import font_split
from medvlm.qwen_ocr import TEST_LAYOUTS, draw_page, error_line, in_processes, page_jobs, predict, score_answers, strip_rows
from medvlm.train import Recipe, from_table


def main(bundle, out='bench/results/held_out.json'):
    "Draws the forms, asks once for each, prints the scores and keeps them."
    model, processor, manifest = load_bundle(bundle)
    pages = in_processes(draw_page, page_jobs(200, 950_000, TEST_LAYOUTS, font_split()[1], worst=1))
    answers = predict(model, processor, pages, from_table(Recipe, manifest['recipe']), in_processes(strip_rows, pages))
    e = score_answers(answers, pages)
    for name, score in e.scores.items(): print(f'{name:24} {score}')
    print(error_line(e.fields))
    bundle = dict(base_hash=manifest['base_hash'], data=manifest['data'], steps=manifest['steps'])
    save_json(dict(scores=e.scores, errors=error_line(e.fields), bundle=bundle, versions=versions(), machine=machine(), commit=commit()), out)


if __name__ == '__main__': main(*sys.argv[1:])
