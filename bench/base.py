"""How well small bases read lines of forms: `python bench/base.py [PAGES] [BASE ...]`.

All read the same lines, cut out of drawn pages of families and in fonts that no exercise is drawn in (`cuttings.KEPT_OUT`), 8 pages of each kind of paper. BASE is a model folder; the committed base, 'small', comes first. Writes bench/results/base.json.
"""
import sys

from medvlm.core import commit, machine, save_json, versions
from medvlm.cuttings import cutting_scores, kept_out_lines
from medvlm.models import hash_of, load


def main(pages=8, *others, out='bench/results/base.json'):
    "Reads all lines with each base, prints the scores and keeps them."
    lines, bases = kept_out_lines(int(pages)), {}
    for name in ('small', *others):
        bases[hash_of(name)] = scores = cutting_scores(*load(name, place='cpu'), lines)
        for kind, s in scores.items(): print(f"{name:12} {kind:12} lines {s['lines']}, cells {s['cells']}, character errors {s['errors']/s['characters']:.3f}", flush=True)
    save_json(dict(bases=bases, pages=int(pages), versions=versions(), machine=machine(), commit=commit()), out)


if __name__ == '__main__': main(*sys.argv[1:])
