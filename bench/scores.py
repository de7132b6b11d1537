"""How long a whole evaluation takes: `python bench/scores.py [ROWS]`.

10,000 made-up chest film answers (a class line and a report of 45 to 63 words, the lengths of Lung-Captioning) with all class, finding and text metrics and 2,000 bootstrap rounds by patient; then the same number of Korean skin answers,
and of question and answer pairs. Each in a process of its own, so that the peak of memory is its own. Writes bench/results/scores.json.
"""
import json
import random
import resource
import subprocess
import sys
import time

from medvlm.core import commit, machine, save_json, versions

LUNG = 'the heart is of normal size and both lungs are well aerated no pleural effusion pneumothorax consolidation is seen in the right left lower upper lobe patchy opacity with air bronchograms suggests pneumonia costophrenic angles sharp mediastinum not widened'.split()
SKIN = '홍반이 볼에 뚜렷하게 보이며 은백색 인설이 두껍게 덮여 있습니다 구진과 농포는 관찰되지 않습니다 경계가 분명한 판이 있고 피부가 건조합니다 모세혈관 확장이 코 주변에 있습니다'.split()


def answers(job, n, seed=0):
    "References and answers of `n` rows; three of four answers are right, words are changed in all."
    from medvlm.eval import JOBS
    rng, refs, said = random.Random(seed), [], []
    classes, words = JOBS[job].classes or ('',), LUNG if job == 'lung' else SKIN
    write = lambda label, text: f'Class: {label}\nExplanation: {text}' if job == 'lung' else f'<label>{label}</label>\n<summary>{text}</summary>' if job == 'skin' else text
    for i in range(n):
        label = rng.choice(classes)
        text = [rng.choice(words) for _ in range(rng.randrange(45, 64))]
        refs.append(dict(id=str(i), text=write(label, ' '.join(text)), label=label or None, group=f'patient {i // 2}', source='made up', meta=dict(intention=rng.choice(('치료', '증상', '예방')), disease=f'disease {i % 40}')))
        other = label if rng.random() < .75 else rng.choice(classes)
        said.append(dict(id=str(i), text=write(other, ' '.join(w for w in text if rng.random() > .1)) if rng.random() > .03 else '', finish_reason='stop', new_tokens=80))
    return refs, said


def one(job, n):
    "Seconds and megabytes of one evaluation in this process."
    from dataclasses import replace
    from medvlm.eval import JOBS, evaluate, join
    from medvlm.texts import TEXT_METRICS
    refs, said = answers(job, n)
    kind = JOBS[job] if job == 'qa' else replace(JOBS[job], text=TEXT_METRICS)
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    e = evaluate(join(said, refs), kind); measured = time.perf_counter() - start
    scores = e.scores
    return dict(job=job, rows=n, seconds=round(time.perf_counter() - start, 1), measures=round(measured, 1), scores=len(scores), peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024), mb_before=round(before))


def main(n=10_000, out='bench/results/scores.json'):
    "Runs each job in its own process and keeps the figures."
    result = [json.loads(subprocess.run([sys.executable, __file__, job, str(n)], check=True, capture_output=True, text=True).stdout.splitlines()[-1]) for job in ('lung', 'skin', 'qa')]
    for r in result: print(f"{r['job']:5} {r['rows']:,} answers, {r['scores']} scores: {r['seconds']} s ({r['measures']} s of it measuring), at most {r['peak_mb']} MB")
    save_json(dict(jobs=result, versions=versions(), machine=machine(), commit=commit()), out)


if __name__ == '__main__':
    if len(sys.argv) > 2: print(json.dumps(one(sys.argv[1], int(sys.argv[2]))))
    else: main(*map(int, sys.argv[1:]))
