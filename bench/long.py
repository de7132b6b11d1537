"""Does reading an answer that never stops take time in proportion to its length? `python bench/long.py`.

Each reader of answers gets each repeated piece at 50,000 and at 200,000 characters; four times the text should take about four times as long (sixteen times would be quadratic). Prints the worst piece of each reader and writes bench/results/long.json.
"""
import time

from medvlm.core import commit, machine, save_json, versions
from medvlm.eval import body_of
from medvlm.fields import table_tree
from medvlm.findings import find
from medvlm.labels import LUNG_CLASSES, parse_label
from medvlm.qa import asked_back, choice_of, departments_in, has_reminder
from medvlm.report import marked
from medvlm.texts import normalise, text_measures

PIECES = ['.', '?!', 'a', '가', ' ', '\n', '없', 'no ', 'left ', 'effusion and ', '흉수', '의사', '정답은 ', 'Class: ', '<label>', '"label": "', '<td', '<table>', '(((', '*- ', '\u0316\u0300', '1,2,3 ', '답 A 또는 ', '病', '??x']
READERS = dict(find_lung=lambda t: find(t, 'lung'), find_skin=lambda t: find(t, 'skin'), parse_label=lambda t: parse_label(t, LUNG_CLASSES), body_of=body_of, choice_of=choice_of, departments_in=departments_in, asked_back=asked_back,
               has_reminder=has_reminder, normalise=normalise, text_measures=lambda t: text_measures([t], ['정상 흉부 방사선 사진입니다.']), table_tree=table_tree, marked=lambda t: marked(t, t[::-1]))


def seconds(f, text):
    "Processor time of one call, the quickest of two."
    took = []
    for _ in range(2):
        start = time.process_time(); f(text); took.append(time.process_time() - start)
    return min(took)


def main(out='bench/results/long.json', short=50_000, long=200_000):
    "Measures every reader on every piece and keeps the figures."
    result = {}
    for name, f in READERS.items():
        rows = [dict(piece=p, short=round(seconds(f, p*(short//len(p))), 4), long=round(seconds(f, p*(long//len(p))), 4)) for p in PIECES]
        result[name] = rows; worst = max(rows, key=lambda r: r['long']); grown = max((r for r in rows if r['long'] > .05), key=lambda r: r['long']/max(r['short'], 1e-3), default=None)
        print(f"{name:15} slowest {worst['piece']!r}: {worst['long']:.2f} s; " + (f"grows most {grown['piece']!r}: {grown['long']/max(grown['short'], 1e-3):.1f} times for four times the text" if grown else 'nothing over 0.05 s'))
    save_json(dict(short=short, long=long, readers=result, versions=versions(), machine=machine(), commit=commit()), out)


if __name__ == '__main__': main()
