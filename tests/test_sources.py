"Damaged downloads as a team gets them, killed writes, and the real sets where they are there."
import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvlm import cli
from medvlm.checks import NEAR, check_split, distances, doctor, is_page, make_set, near_pairs, perceptual_hash
from medvlm.core import read_bytes
from medvlm.data import Quarantine, folds, iter_dataset, load_splits, open_image, read_llava, row, user, assistant, write_dataset
from medvlm.models import ImagePolicy
from medvlm.publish import push
from medvlm.sources import Files, QaTree, Table, read_skin, read_xray

SHARED = Path(__file__).parents[2] / 'shared/data'
SAMPLES = Path(__file__).parents[1] / 'data_samples'
needs = lambda name: pytest.mark.skipif(not (SHARED / name).is_dir(), reason=f'the real set {name} is not here')


def noise(seed=0, size=(64, 64), mode='RGB'):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype='uint8')).convert(mode)


def encoded(im, kind='PNG', **kw):
    im.save(b := BytesIO(), kind, **kw)
    return b.getvalue()


@pytest.fixture
def faces(tmp_path):
    "Writes one file into a tree of faces that has one good picture, and reads the tree."
    def read(data, name='H0_2_P1_L1.png', zipped=False):
        files = {'H0_1_P1_L1.png': encoded(noise(1)), name: data}
        folder = tmp_path / 'TS_건선_정면'
        if zipped:
            with zipfile.ZipFile(tmp_path / 'TS_건선_정면.zip', 'w') as z:
                for n, d in files.items(): z.writestr('/' + n, d)
        else:
            folder.mkdir()
            for n, d in files.items(): (folder / n).write_bytes(d)
        q = Quarantine()
        m = make_set(read_skin(tmp_path, quarantine=q), tmp_path / 'set', (1.,), quarantine=q)
        return [*iter_dataset(load_splits(tmp_path / 'set')['train'])], q, m
    return read


PNG, JPEG = encoded(noise(2)), encoded(noise(2), 'JPEG')
BAD = {'truncated PNG': PNG[:len(PNG) // 2], 'truncated JPEG': JPEG[:len(JPEG) // 2], '0 bytes': b'', 'text': b'hello', 'animated GIF': encoded(noise(2), 'GIF', save_all=True, append_images=[noise(3), noise(4)]),
       'flipped bit': PNG[:2000] + bytes([PNG[2000] ^ 1]) + PNG[2001:]}


@pytest.mark.parametrize('zipped', [False, True])
@pytest.mark.parametrize('what', BAD)
def test_bad_picture_is_one_line_of_the_quarantine(faces, what, zipped):
    rows, q, m = faces(BAD[what], zipped=zipped)
    assert len(rows) == 1 and m['quarantined'] == {'unreadable image': 1}
    assert q[0]['id'] == 'H0_2_P1_L1' and q[0]['file'].endswith('TS_건선_정면/H0_2_P1_L1.png')
    with pytest.raises(ValueError, match='unreadable image'): open_image(BAD[what])


def test_picture_of_400_megapixels(faces):
    Image.MAX_IMAGE_PIXELS, kept = None, Image.MAX_IMAGE_PIXELS
    try: data = encoded(Image.new('1', (20_000, 20_000)))
    finally: Image.MAX_IMAGE_PIXELS = kept
    rows, q, _ = faces(data)
    assert len(rows) == 1 and '100 million pixels' in q[0]['reason']


@pytest.mark.parametrize('data', [encoded(noise(2).convert('CMYK'), 'JPEG'), encoded(noise(2), 'JPEG', exif=(lambda e: (e.__setitem__(0x0112, 6), e)[1])(Image.Exif())), encoded(noise(2).convert('LA')), encoded(noise(2).convert('P')),
                                  encoded(Image.fromarray(np.arange(4096, dtype='uint16').reshape(64, 64)))], ids=['CMYK', 'rotated', 'LA', 'palette', '12 bits'])
def test_odd_pictures_keep_their_bytes_and_open_as_rgb(faces, data):
    rows, q, _ = faces(data)
    assert not q and len(rows) == 2
    stored, = [x for r in rows for x in r['images'] if x == data]
    im = open_image(stored)
    assert im.mode == 'RGB' and np.asarray(im).max() > 200


def test_folder_and_zip_give_the_same_set(tmp_path):
    for name in ('a', 'b'): (tmp_path / name).mkdir()
    for i in range(3):
        for form, zipped in (('a/TS_여드름_측면', False), ('b/TS_여드름_측면', True)):
            stem, data = unicodedata.normalize('NFD' if zipped else 'NFC', tmp_path.joinpath(form).as_posix()), encoded(noise(i))
            if zipped:
                with zipfile.ZipFile(stem + '.zip', 'a') as z: z.writestr(f'/H0_{i}_P2_L2.png', data)
            else:
                Path(stem).mkdir(exist_ok=True)
                (Path(stem) / f'H0_{i}_P2_L2.png').write_bytes(data)
    sets = [[(r['id'], r['group'], r['meta'], r['images']) for r in iter_dataset(load_splits(tmp_path / n)['train'])] for n in ('sa', 'sb') if make_set(read_skin(tmp_path / n[1]), tmp_path / n, (1.,))]
    assert sets[0] == sets[1] and len(sets[0]) == 3


# Zips

def test_zip_with_names_that_lead_out(tmp_path):
    with zipfile.ZipFile(tmp_path / 'TL.zip', 'w') as z:
        for name in '../x.json', 'a/../../x.json', '/abs/x.json', 'C:\\x.json': z.writestr(name, '{}')
    files = Files(tmp_path / 'TL.zip')
    assert [*files] == ['TL/abs'] and files.quarantine.summary() == {'unsafe name': 3}
    assert sorted(p.name for p in tmp_path.iterdir()) == ['TL.zip']


def test_bomb_by_ratio_and_by_size(tmp_path):
    with zipfile.ZipFile(tmp_path / 'ratio.zip', 'w', 8) as z: z.writestr('1.질문/a/b/c/x.json', bytes(5 * 10**7)); z.writestr('pad', os.urandom(10**6))
    ref = Files(tmp_path / 'ratio.zip').entries('ratio/1.질문/a/b/c')[0][1]
    with pytest.raises(ValueError, match='zip bomb'): read_bytes(ref)
    with zipfile.ZipFile(tmp_path / 'size.zip', 'w', 8) as z:
        for i in range(12): z.writestr(f'{i}', bytes(10**8))
    assert Files(tmp_path / 'size.zip').quarantine.summary() == {'zip bomb': 1}


def test_bomb_in_a_tree_is_one_line_of_the_quarantine(tmp_path):
    with zipfile.ZipFile(tmp_path / 'TL.zip', 'w', 8) as z:
        z.writestr('1.질문/a/b/c/q.json', '{"question": "열?"}'); z.writestr('2.답변/a/b/c/a.json', '{"answer": "쉬세요."}')
        z.writestr('2.답변/a/b/c/bomb.json', bytes(5 * 10**7)); z.writestr('pad', os.urandom(10**6))
    tree = QaTree(tmp_path / 'TL.zip')
    assert len([*tree]) == 1 and tree.quarantine[0]['id'] == 'bomb' and 'zip bomb' in tree.quarantine[0]['reason']


def test_lying_size_and_encrypted(tmp_path):
    path = tmp_path / 'TS_건선_정면.zip'
    with zipfile.ZipFile(path, 'w', 8) as z: z.writestr('H0_1_P1_L1.png', PNG)
    data = bytearray(path.read_bytes()); at = data.rfind(b'PK\x01\x02')
    lie = bytes(data[:at + 24]) + (10).to_bytes(4, 'little') + bytes(data[at + 28:])
    path.write_bytes(lie)
    with pytest.raises(ValueError, match='damaged'): read_bytes(Files(path).entries('TS_건선_정면')[0][1])
    data[at + 8] |= 1; time.sleep(.01); path.write_bytes(data)
    files = Files(path)
    assert [*files] == [] and files.quarantine[0]['reason'].startswith('encrypted: 1 files')
    with pytest.raises(ValueError, match='encrypted'): read_bytes(f'zip://H0_1_P1_L1.png::{path}')
    with pytest.raises(ValueError, match='first reason: encrypted'): read_skin(path)


def test_nested_zip(tmp_path):
    with zipfile.ZipFile(inner := BytesIO(), 'w') as z: z.writestr('H0_1_P1_L1.png', PNG)
    with zipfile.ZipFile(tmp_path / 'all.zip', 'w') as z: z.writestr('TS_건선_정면.zip', inner.getvalue())
    q = Quarantine()
    with pytest.raises(ValueError, match='no picture in a folder'): read_skin(tmp_path / 'all.zip', quarantine=q)
    assert q[0]['reason'].startswith('nested zip') and 'unpack all.zip' in q[0]['reason']


def test_cp949_names_in_a_zip(tmp_path):
    "Python writes names that are not ASCII as UTF-8 and says so; Korean Windows writes cp949 and does not."
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as z: z.writestr('TS_xx_yyyy/H0_1_P1_L1.png', PNG)
    data = (tmp_path / 'x.zip').read_bytes()
    old, new = b'TS_xx_yyyy', 'TS_주사_측면'.encode('cp949')
    short = b'TS_' + b'x' * (len(new) - 3)
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as z: z.writestr(short.decode() + '/H0_1_P1_L1.png', PNG)
    (tmp_path / 'x.zip').write_bytes((tmp_path / 'x.zip').read_bytes().replace(short, new))
    r, = read_skin(tmp_path / 'x.zip')
    assert (r['label'], r['meta']['view']) == ('주사', '측면') and open_image(r['images'][0]).size == (64, 64)


def test_llava_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / 'papers.zip', 'w') as z:
        for p in (SAMPLES / 'papers').iterdir(): z.write(p, f'any/{p.name}')
    rows, loose = read_llava(tmp_path / 'papers.zip', quarantine=(q := Quarantine())), read_llava(SAMPLES / 'papers/rows.json')
    assert not q and [(r['id'], r['group'], r['messages']) for r in rows] == [(r['id'], r['group'], r['messages']) for r in loose]
    assert make_set(rows, tmp_path / 'set', (.5, .5))['leaks'] == {}


def test_a_zip_that_is_replaced_is_read_anew(tmp_path):
    for text in ('one', 'other'):
        with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as z: z.writestr('a/b', text)
        os.utime(tmp_path / 'x.zip', ns=(1, {'one': 1, 'other': 2}[text]))
        assert read_bytes(f'zip://a/b::{tmp_path}/x.zip') == text.encode()


# Sets

def test_two_rows_with_one_id_and_labels_in_another_case(tmp_path):
    rows = [row(i, [encoded(noise(k))], [user('?', 1), assistant(f'Class: {c}')], label=c) for k, (i, c) in enumerate([('a', 'Normal'), ('a', 'Normal'), ('b', 'normal'), ('c', 'Mass')])]
    m = make_set(rows, tmp_path / 'set', (1.,), quarantine=(q := Quarantine()))
    assert m['quarantined'] == {'duplicate id': 1} and q[0]['id'] == 'a'
    visit = doctor(load_splits(tmp_path / 'set')['train'], labels=('Normal', 'Mass'))
    assert [p['id'] for p in visit.problems] == ['b'] and "'Normal' is meant" in visit.problems[0]['what']


def test_killed_write_leaves_the_old_set_whole(tmp_path):
    rows = [row('old', [], [user('?'), assistant('!')])]
    write_dataset(rows, tmp_path / 'set')
    code = f'''
from medvlm.data import row, user, assistant, write_dataset
def slow():
    for i in range(10**9):
        if i == 3000: print('going', flush=True)
        yield row(f'{{i}}', [], [user('?'), assistant('!')])
write_dataset(slow(), {str(tmp_path / 'set')!r})
'''
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'going\n'
    p.send_signal(signal.SIGKILL); p.wait()
    assert [r['id'] for r in iter_dataset(load_splits(tmp_path / 'set')['train'])] == ['old']
    assert len([*tmp_path.glob('.tmp-set-*')]) == 1
    write_dataset([row('new', [], [user('?'), assistant('!')])], tmp_path / 'set')
    assert [r['id'] for r in iter_dataset(load_splits(tmp_path / 'set')['train'])] == ['new']
    assert sorted(x.name for x in tmp_path.iterdir()) == ['set']


def test_rows_are_written_as_they_come(tmp_path):
    "After 5,000 rows all but the last thousand lie on disk, and no row is asked for before the one ahead of it is taken."
    sizes = []
    def rows():
        for i in range(5_001):
            if i % 1000 == 0 and i: sizes.append(sum(p.stat().st_size for p in tmp_path.glob('.tmp-set-*/train.arrow')))
            yield row(f'{i}', [], [user('?' * 500), assistant('!' * 1500)])
    write_dataset(rows(), tmp_path / 'set')
    assert len(sizes) == 5 and all(b - a > 1_500_000 for a, b in zip(sizes[1:], sizes[2:])) and sizes[-1] > 7_500_000


@pytest.mark.parametrize('words, what', [(['data', 'qa', 'none', 'out'], 'no such folder or zip'), (['data', 'qa', '.', 'out'], 'no folder 1.질문'), (['data', 'skin', '.', 'out'], 'no picture'), (['data', 'xray', '.', 'out'], 'no picture'),
                                         (['data', 'llava', 'none.json', 'out'], 'no such file'), (['data', 'table', 'none.csv', 'out'], 'no such file'), (['doctor', 'none'], 'no such file'), (['push', 'none', 'a/b', '--dry-run', 'x'], 'no such file')])
def test_wrong_paths_are_one_line(tmp_path, monkeypatch, capsys, words, what):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert what in err and err.count('\n') == 1 and 'Traceback' not in err


def test_a_set_that_comes_out_empty_leaves_the_old_one(tmp_path, capsys):
    assert cli.main(['data', 'qa', str(SAMPLES / 'qa'), str(tmp_path / 'set')]) == 0
    with zipfile.ZipFile(tmp_path / 'TL.zip', 'w') as z: z.writestr('1.질문/a/b/c/q.json', '{"question": ""}'); z.writestr('2.답변/a/b/c/a.json', '{"answer": "쉬세요."}')
    assert cli.main(['data', 'qa', str(tmp_path / 'TL.zip'), str(tmp_path / 'set'), '--sizes', '1.0']) == 2
    assert 'first reason' in capsys.readouterr().err and sum(map(len, load_splits(tmp_path / 'set').values())) == 144


def test_raw_and_labelled_texts_side_by_side(tmp_path):
    for kind in ('01.원천데이터/TS', '02.라벨링데이터/TL'):
        with zipfile.ZipFile(tmp_path / f'{kind[-2:]}.zip', 'w') as z:
            for n in ('1.질문/a/b/c/HC-Q-1.json', '2.답변/a/b/c/HC-A-1.json'): z.writestr(n, '{"question": "열?", "answer": "쉬세요."}')
    tree = QaTree(tmp_path)
    assert len(tree.plan()) == 1 and len([*tree]) == 1 and not tree.quarantine
    assert [n['reason'].split(':')[0] for n in tree.quarantine.notes] == ['raw texts']


@pytest.mark.parametrize('layout', ['Training/1.질문', '1.Training/02.라벨링데이터/1.질문', 'Training/[라벨]TL/1.질문', 'TL (1)/1.질문', 'TL1/1.질문', 'Training/TL_1.질문'])
def test_layouts_of_the_question_tree(tmp_path, layout):
    for name, text in (('1.질문', '{"question": "열?"}'), ('2.답변', '{"answer": "쉬세요."}')):
        folder = tmp_path / 'set' / layout.replace('1.질문', name) / '범주/질환/증상'
        folder.mkdir(parents=True); (folder / f'{name}.json').write_text(text)
    for sources in ([tmp_path / 'set'], [tmp_path / 'set' / layout.split('/')[0]]):
        assert [r['meta']['part'] for r in QaTree(*sources)] == ['Training']


def test_every_file_is_a_row_a_line_or_a_note(tmp_path):
    folder = tmp_path / 'x/Normal'; folder.mkdir(parents=True)
    (folder / 'a.jfif').write_bytes(JPEG); (folder / 'b.PNG').write_bytes(PNG)
    for name in ('c.dcm', 'd.heic', 'e'): (folder / name).write_bytes(b'x')
    (tmp_path / 'y').mkdir(); (tmp_path / 'y/f.png').write_bytes(encoded(noise(7))); (tmp_path / 'x/link').symlink_to(tmp_path / 'y'); (folder / 'gone.png').symlink_to('nowhere')
    q = Quarantine()
    assert len(read_xray(tmp_path / 'x', classes=None, quarantine=q)) == 2
    assert q.summary() == {'unreadable image': 1, 'missing file': 1} and [x['id'] for x in q] == ['c', 'gone']
    notes = ' '.join(n['reason'] for n in q.notes)
    assert '1 .heic, 1 no ending' in notes and 'link to a folder' in notes


def test_one_bad_text_does_not_stop_the_set(tmp_path):
    rows = [row('a', [], [user('?'), assistant('네')]), row('b', [], [user('?'), assistant('\ud83d')]), row('c', [], [user('?'), assistant('네')])]
    assert write_dataset(rows, tmp_path / 'set', quarantine=(q := Quarantine()))['splits']['train']['rows'] == 2 and q.summary() == {'bad text': 1}
    bad = {'annotations': {}}, {'annotations': [None]}, {'annotations': [{'diagnosis_info': 'x'}]}
    (tmp_path / 'TS_건선_정면').mkdir(); (tmp_path / 'TL_건선_정면').mkdir()
    for i, record in enumerate([*bad, {}]):
        (tmp_path / f'TS_건선_정면/H0_{i}_P1_L1.png').write_bytes(encoded(noise(i))); (tmp_path / f'TL_건선_정면/H0_{i}_P1_L1.json').write_text(json.dumps(record))
    assert len(read_skin(tmp_path, quarantine=q)) == 2 and len(q) == 3


def test_two_hospitals_with_the_same_names(tmp_path):
    for k, h in enumerate(('h1', 'h2')):
        (tmp_path / h / 'Normal').mkdir(parents=True)
        (tmp_path / h / 'Normal/00001_0.png').write_bytes(encoded(noise(k))); (tmp_path / h / 'reports.csv').write_text(f'file,report\nNormal/00001_0.png,Report of {h}.\n')
    rows = read_xray(tmp_path / 'h1', tmp_path / 'h2', classes=None)
    assert len({r['id'] for r in rows}) == len({r['group'] for r in rows}) == 2
    assert [f'Report of {h}.' in str(r['messages']) for r, h in zip(rows, ('h1', 'h2'))] == [True, True]


def test_what_push_wrote_is_read_again(tmp_path):
    rows = [row(f'{i}', [encoded(noise(i))], [user('?', 1), assistant('Class: A')], label='A') for i in range(4)]
    write_dataset(rows, tmp_path / 'set')
    push(tmp_path / 'set', 'a/b', dry_run=tmp_path / 'repo')
    assert [(r['id'], r['images']) for r in Table(tmp_path / 'repo')] == [(r['id'], r['images']) for r in rows]


def test_out_that_holds_something_else(tmp_path, capsys):
    (tmp_path / 'mine').mkdir(); (tmp_path / 'mine/thesis.txt').write_text('x')
    assert cli.main(['data', 'qa', str(SAMPLES / 'qa'), str(tmp_path / 'mine')]) == 2
    assert 'something else already' in capsys.readouterr().err and (tmp_path / 'mine/thesis.txt').read_text() == 'x'


def test_doctor_status_for_ci(tmp_path):
    good = [row(f'{i}', [encoded(noise(i))], [user('?', 1), assistant('Class: A')], label='A') for i in range(3)]
    bad = dict(good[2], id='bad', images=[encoded(noise(9))], messages=[user('?', 1), assistant('Class: B')])
    for rows, status in ((good, 0), ([*good, bad], 1)):
        write_dataset(rows, tmp_path / 'set')
        assert cli.main(['doctor', str(tmp_path / 'set'), '--root', str(tmp_path)]) == status


# Real sets

@needs('rx')
def test_real_documents_read_doctored_and_split(tmp_path):
    q = Quarantine()
    rows = read_llava(SHARED / 'rx/rows.json', SHARED / 'rx/images', q)
    for r in rows: r['source'] = 'prescription' if '_zh' in r['id'] else 'receipt'
    m = make_set(rows, tmp_path / 'rx', (.6, .2, .2), by='source', quarantine=q)
    assert sum(v['rows'] for v in m['splits'].values()) == 136 and not m['quarantined']
    assert not {k for k in m['leaks'] if k != 'answer'}
    visit = doctor([r for d in load_splits(tmp_path / 'rx').values() for r in iter_dataset(d)], ImagePolicy(256 * 28 * 28, 1280 * 28 * 28))
    kinds = {p['kind'] for p in visit.problems}
    assert visit.ok and 'personal data' in kinds
    pages = [is_page(open_image(r['images'][0])) for r in rows]
    assert sum(pages) >= 130


@needs('cxr')
def test_real_chests_read_doctored_and_split_by_patient(tmp_path):
    q = Quarantine()
    rows = read_xray(SHARED / 'cxr', classes=None, quarantine=q)
    assert len(rows) == 120 and len({r['label'] for r in rows}) == 3 and not q
    named = [r for r in rows if r['group'].startswith('patient ')]
    assert len(named) >= 80
    m = make_set(rows, tmp_path / 'cxr', (.7, .1, .2), by='label', near=NEAR, quarantine=q)
    assert m['leaks'] == {} and sum(v['rows'] for v in m['splits'].values()) == 120
    groups = [{*d['group']} for d in load_splits(tmp_path / 'cxr').values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert doctor(rows, ImagePolicy(), labels=tuple({r['label'] for r in rows})).ok
    for train, test in folds(rows, 5, by='label'): check_split(train, test)


@needs('cxr')
def test_near_threshold_on_real_chests():
    "The figures that 00b_checks gives for the threshold of 36 bits."
    pictures = [open_image(p) for p in sorted((SHARED / 'cxr').glob('*/*'))]
    hashes = np.array([perceptual_hash(im) for im in pictures])
    apart = distances(hashes, hashes)[np.triu_indices(120, 1)]
    assert len(apart) == 7140 and apart.min() == 70
    again = np.array([perceptual_hash(Image.open(BytesIO(encoded(im, 'JPEG', quality=60))).resize((450, 450))) for im in pictures])
    assert distances(hashes, again).diagonal().max() <= 14
    assert not near_pairs(hashes) and sorted(p[:2] for p in near_pairs(again, hashes)) == [(i, i) for i in range(120)]
    assert not any(map(is_page, pictures))
