"""The medical QA job: `python bench/qa.py [rows | small] [N]` writes results/qa_rows.json or results/qa_small.json.

rows: a tree of N questions (200,000) in the form of AI Hub 71762, with byte order marks, to chat rows on disk: by `exaone_qa.read_tree` with one process and with two, and by the loop that such projects begin with, which gives every question of a folder the first answer file, writes the raw texts and, as it was published, reads no file with a
byte order mark at all. Medians of three runs, one after the other in turn.
small: the set of `data_samples/qa` and our conversations, `qa_8b_small` tuned on it, and base, nearest answer and tuned model asked the same; the model alone, with the reader of red flags, with and without passages; seconds of the tuning.
"""
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from data import alone, make_tree

from medvlm import core

HERE = Path(__file__).resolve().parent


def usual(root, out, encoding='utf-8-sig'):
    "Every question of a folder with its first answer, as most loaders of this set do it."
    n = 0
    with open(out, 'w', encoding='utf-8') as f:
        for folder in sorted(Path(root).glob('TL/1.질문/*/*/*')):
            answers = sorted(Path(str(folder).replace('1.질문', '2.답변')).glob('*.json'))
            if not answers: continue
            for p in sorted(folder.glob('*.json')):
                try:
                    with open(p, encoding=encoding) as q: question = json.load(q)
                    with open(answers[0], encoding=encoding) as a: answer = json.load(a)
                except ValueError: continue
                f.write(json.dumps(dict(instruction=question['question'], output=' '.join(answer['answer'].values())), ensure_ascii=False) + '\n'); n += 1
    return n


def ours(root, out, workers):
    "Chat rows in three splits."
    from medvlm.exaone_qa import read_tree
    return sum(read_tree([root], out, workers=workers).values())


def rows(n=200_000):
    with tempfile.TemporaryDirectory() as box:
        box = Path(box); make_tree(box, -(-n*200//90//200)*200); (box/'TL.zip').unlink()
        ways = {'read_tree, 2 processes': (ours, box/'tree', box/'two', 2), 'read_tree, 1 process': (ours, box/'tree', box/'one', 1), 'first answer only': (usual, box/'tree', box/'usual.jsonl'), 'the same as plain UTF-8': (usual, box/'tree', box/'plain.jsonl', 'utf-8')}
        alone(usual, box/'tree', box/'warm.jsonl')
        told = {k: [] for k in ways}
        for _ in range(3):
            for k, (f, *args) in ways.items(): told[k].append(alone(f, *args)); print(k, told[k][-1], flush=True)
        found = {k: dict(rows=v[0][0], rows_per_s=round(v[0][0]/statistics.median(s for _, s, _ in v)), seconds=round(statistics.median(s for _, s, _ in v), 1), memory_mb=round(max(m for *_, m in v))) for k, v in told.items()}
    write('qa_rows', dict(n=n, found=found))


def small():
    from medvlm.chat import sends_for_help
    from medvlm.data import text_of
    from medvlm.dialogues import turns_of
    from medvlm.exaone import perplexity
    from medvlm.exaone_qa import SPLITS, build, export_qa, guarded, models_beside, score_qa, test_table, train_qa
    from medvlm.models import base_hash, load, load_bundle, model_folder
    from medvlm.train import RECIPES
    recipe = RECIPES['qa_8b_small']
    with tempfile.TemporaryDirectory() as box:
        box = Path(box); counts = build([HERE.parent/'data_samples/qa'], box/'set')
        train, valid, test = (core.load_jsonl(box/'set'/f'{s}.jsonl') for s in SPLITS)
        run, start = core.Run('qa', box), time.perf_counter()
        bundle = train_qa(recipe, train, run, valid + test, say=lambda s: None)
        seconds = time.perf_counter() - start
        model, tok, _ = load_bundle(bundle); questions = turns_of(test)
        models = models_beside(model, tok, recipe.base, questions, train, recipe.new_tokens)
        table = test_table(models); print(table)
        facts = [r for r in questions if r['meta']['kind'] in ('tree', 'fact')]
        surprise = {k: perplexity(m, t, facts, answers=True) for k, (m, t) in {'base': load(recipe.base), 'tuned': (model, tok)}.items()}
        export = {k: dict(same=vars(v['same']), gap=v['gap']) for k, v in export_qa(bundle, box/'out', questions).items()}
    write('qa_small', dict(rows=counts, recipe=recipe.name, steps=recipe.steps, seconds_of_tuning=round(seconds), base=base_hash(model_folder(recipe.base)), answers=len(questions), table=dict(columns=table.head, rows=table.rows), perplexity=surprise, gguf=export))


def write(name, found):
    path = HERE/f'results/{name}.json'
    core.save_json(dict(found, versions=core.versions(), machine=core.machine(), commit=core.commit()), path)
    print(json.dumps(found, ensure_ascii=False, indent=1)); print(path)


if __name__ == '__main__':
    what, *rest = sys.argv[1:] or ['small']
    dict(rows=rows, small=small)[what](*map(int, rest))
