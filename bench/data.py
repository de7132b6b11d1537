"""How fast sources are read, sets written and leaks found: `python bench/data.py [qa | skin | leaks] [N]`.

qa: a tree of N files (200,000) in the form of AI Hub 71762, from a folder and from a zip: read to rows, and read and written as a set. The tree is read once before, so that it is in memory.
skin: N faces (10,800) of 1024 × 1024 pixels, one in 25 drawn, the others copies with other bytes: the set read and written with their bytes, beside decoding and encoding every image again, which is measured on 100 of them.
leaks: the leak check of such a set of 10,000, half against half.
Each measurement is a process of its own, whose largest memory is counted, without pages that are mapped from a file: those are given back when somebody needs them. Writes bench/results/data_<what>_<N>.json.
"""
import json
import multiprocessing
import random
import sys
import tempfile
import threading
import time
import zipfile
from io import BytesIO
from pathlib import Path

WORDS = '통증 발열 기침 의사 진료 약물 증상 혈압 검사 수면 식이 운동 상담 복부 두통 환자 치료 예방 원인 진단'.split()


def alone(job, *args):
    "Result of `job` in a process of its own, with its seconds and its largest memory in MB, without what is mapped from files."
    def work(pipe):
        peak, done = [0], threading.Event()
        def watch():
            while not done.wait(.05): peak[0] = max(peak[0], *(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('RssAnon')))
        threading.Thread(target=watch, daemon=True).start()
        start = time.perf_counter()
        out = job(*args)
        seconds = time.perf_counter() - start
        done.set(); pipe.send((out, seconds, peak[0]/1000))
    here, there = multiprocessing.Pipe()
    p = multiprocessing.get_context('fork').Process(target=work, args=(there,))
    p.start(); there.close()
    out = here.recv(); p.join()
    return out


def make_tree(root, n):
    "Write `n` JSON files of about 2 kB, 200 in each pair of folders, and the same as a zip."
    rng, made = random.Random(0), 0
    text = lambda k: ' '.join(rng.choices(WORDS, k=k))
    with zipfile.ZipFile(root/'TL.zip', 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        while made < n:
            f = made//200
            names = dict(disease_category=f'범주{f % 19}', disease_name=dict(kor=f'질환{f//4}', eng=f'Disease {f//4}'), intention=('증상', '원인', '치료', '식이, 생활')[f % 4])
            for kind, folder, k in (('Q', '1.질문', 90), ('A', '2.답변', 110)):
                where = f'{folder}/{names["disease_category"]}/{names["disease_name"]["kor"]}/{names["intention"]}'
                (root/'tree/TL'/where).mkdir(parents=True)
                for _ in range(k):
                    name = f'HC-{kind}-{made:08d}'; made += 1
                    body = dict(participantsInfo=dict(participantID=name, gender='여성', age='30대', occupation='사무직', history=False, rPlace='서울/강남'), question=text(15) + '?', entities=[]) if kind == 'Q' else \
                        dict(department=['내과\n'], answer=dict(intro=text(20), body=text(60), conclusion=text(20)))
                    data = b'\xef\xbb\xbf' + json.dumps(dict(fileName=name, **names, **body, num_of_words=90), ensure_ascii=False, indent=2).encode()
                    (root/f'tree/TL/{where}/{name}.json').write_bytes(data); z.writestr(f'{where}/{name}.json', data)
    return made


def read_qa(source):
    "Number of rows."
    from medvlm.sources import QaTree
    return sum(1 for _ in QaTree(source))


def write_qa(source, out):
    "Read and write; number of rows."
    from medvlm.data import assign_groups, write_dataset
    from medvlm.sources import QaTree
    tree = QaTree(source)
    where = assign_groups(tree.plan(), (.8, .1, .1), by='category')
    return sum(s['rows'] for s in write_dataset(tree, out, {g: ('train', 'valid', 'test')[i] for g, i in where.items()})['splits'].values())


def bench_qa(n, box):
    "Files a second."
    n = make_tree(box, n); out = {}
    alone(read_qa, box/'tree')
    for name, source in (('folder', box/'tree'), ('zip', box/'TL.zip')):
        for what, job in (('read', (read_qa, source)), ('read and written', (write_qa, source, box/'out'))):
            found = sorted((alone(*job) for _ in range(3)), key=lambda x: x[1])[1]
            out[f'{name}, {what}'] = dict(rows=found[0], files_per_s=round(n/found[1]), seconds=round(found[1], 1), memory_mb=round(found[2]))
            print(name, what, out[f'{name}, {what}'], flush=True)
    return out


def make_faces(root, n):
    "A tree of `n` faces of 1024 × 1024, one in 25 drawn, the others the same pixels with four bytes more behind the end."
    import numpy as np
    from medvlm.phantoms import SKIN, VIEWS, skin_patch
    from PIL import Image
    kinds, views, drawn, total = [*SKIN], [*VIEWS], [], 0
    for i in range(max(12, n//25)):
        im = np.asarray(skin_patch(kinds[i % 6], i, 512, views[i//6 % 2]).resize((1024, 1024)), int) + np.random.default_rng(i).integers(-3, 4, (1024, 1024, 1))
        Image.fromarray(im.clip(0, 255).astype('uint8')).save(b := BytesIO(), 'PNG', compress_level=1); drawn.append(b.getvalue())
    for i in range(n):
        folder = root/f'tree/Training/TS_{kinds[i % 6]}_{views[i//6 % 2]}'; folder.mkdir(parents=True, exist_ok=True)
        data = drawn[i % (len(drawn)//12*12)] + i.to_bytes(4, 'big'); total += len(data)
        (folder/f'H0_{i//12:06d}_P{i//6 % 2 + 1}_L1.png').write_bytes(data)
    return total/n


def write_skin(source, out):
    from medvlm.data import write_dataset
    from medvlm.sources import read_skin
    return write_dataset(read_skin(source), out)['splits']['train']['rows']


def encode_again(source, n):
    "What a loader that hands PIL images to a data set does: decode and encode each."
    from PIL import Image
    for path in sorted(Path(source).rglob('*.png'))[:n]:
        with Image.open(path) as im: im.convert('RGB').save(BytesIO(), 'PNG')
    return n


def bench_skin(n, box):
    "Seconds a picture, both ways."
    size = make_faces(box, n)
    rows, seconds, memory = alone(write_skin, box/'tree', box/'out')
    _, again, _ = alone(encode_again, box/'tree', 100)
    out = dict(rows=rows, mean_bytes=round(size), seconds=round(seconds, 1), ms_each=round(1000*seconds/rows, 2), ms_each_encoded_again=round(1000*again/100, 2), times_as_fast=round(again/100/(seconds/rows), 1), memory_mb=round(memory))
    print(out)
    return out


def find_leaks(out):
    from medvlm.checks import leaks
    from medvlm.data import load_splits
    ds = load_splits(out)['train']
    half = len(ds)//2
    return len(leaks(ds.select(range(half)), ds.select(range(half, 2*half))))


def bench_leaks(n, box):
    "Seconds for the whole check."
    make_faces(box, n); write_skin(box/'tree', box/'out')
    found, seconds, memory = alone(find_leaks, box/'out')
    out = dict(images=n, found=found, seconds=round(seconds, 1), memory_mb=round(memory))
    print(out)
    return out


def main(what='qa', n=None):
    "Measure `what` and keep the figures."
    from medvlm.core import commit, machine, save_json, versions
    n = int(n or {'qa': 200_000, 'skin': 10_800, 'leaks': 10_000}[what])
    with tempfile.TemporaryDirectory() as box: found = globals()[f'bench_{what}'](n, Path(box))
    save_json(dict(n=n, found=found, versions=versions(), machine=machine(), commit=commit()), f'bench/results/data_{what}_{n}.json')


if __name__ == '__main__': main(*sys.argv[1:])
