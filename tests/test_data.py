"Damaged folders and foreign file names, on real files and, where it is there, on the real document set."
import json
import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvlm.checks import check_split
from medvlm.data import (Quarantine, from_dataset, group_of, open_image, read_llava, row, save_rows, split_groups, summary,
                         to_dataset, user, assistant)

RX = Path(__file__).parents[2] / 'shared/data/rx'


def turns(question='<image>\n누구의 처방전입니까?', answer='이하윤'):
    return [{'from': 'human', 'value': question}, {'from': 'gpt', 'value': answer}]


def picture(path, seed=0, size=(64, 48), **kw):
    "Noise, so that no two seeds make the same file."
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype='uint8')).save(path, **kw)
    return path


def write(path, records, encoding='utf-8'):
    path.write_text(json.dumps(records, ensure_ascii=False), encoding=encoding)
    return path


@pytest.fixture
def folder(tmp_path):
    "A folder with one good picture and its record; `read` adds records and reads them all."
    picture(tmp_path / 'images/good.jpg')

    def read(*records, encoding='utf-8', **kw):
        records = [{'id': 'good', 'image': 'good.jpg', 'conversations': turns()},
                   *({'id': f'r{i}', 'conversations': turns(), **r} for i, r in enumerate(records))]
        q = Quarantine()
        return read_llava(write(tmp_path / 'rows.json', records, encoding), tmp_path / 'images', q, **kw), q
    read.images = tmp_path / 'images'
    return read


def only_reason(rows, q):
    assert [r['id'] for r in rows] == ['good'] and len(q) == 1
    return q[0]['reason']


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'bmp', 'tiff', 'gif'])
@pytest.mark.parametrize('share', [.1, .5, .9])
def test_cut_file(folder, suffix, share):
    path = picture(folder.images / f'cut.{suffix}')
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
    rows, q = folder({'image': f'cut.{suffix}'})
    assert only_reason(rows, q).startswith(f'unreadable image: cut.{suffix}')
    assert q[0]['id'] == 'r0' and q[0]['file'] == f'cut.{suffix}'


@pytest.mark.parametrize('content', [b'', b'name,date\n1,2\n', b'%PDF-1.7', b'GIF89a', b'\xff\xd8\xff\xe0', bytes(range(256)) * 16])
def test_no_picture(folder, content):
    (folder.images / 'x.jpg').write_bytes(content)
    assert only_reason(*folder({'image': 'x.jpg'})).startswith('unreadable image: x.jpg')


def test_missing_image(folder):
    assert only_reason(*folder({'image': 'none.jpg'})).startswith('missing image: no file none.jpg')


@pytest.mark.parametrize('size', [(10_001, 10_000), (20_000, 10_000)])
@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_huge_image(folder, size):
    Image.new('1', size).save(folder.images / 'huge.png')
    assert 'more than 100 million pixels' in only_reason(*folder({'image': 'huge.png'}))


def test_postscript_is_not_run(folder):
    (folder.images / 'x.png').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n')
    assert 'none of JPEG' in only_reason(*folder({'image': 'x.png'}))


@pytest.mark.parametrize('value', ['../../etc/passwd', '/etc/passwd', '..\\..\\secret.jpg', '../secret.jpg', 'a/../../secret.jpg'])
def test_never_outside(folder, value):
    picture(folder.images.parent / 'secret.jpg', 1)
    assert only_reason(*folder({'image': value})).startswith('missing image: paths outside the folder are never opened')


def test_link_to_the_outside(folder):
    picture(folder.images.parent / 'secret.jpg', 1)
    (folder.images / 'link.jpg').symlink_to(folder.images.parent / 'secret.jpg')
    (folder.images / 'inside.jpg').symlink_to('good.jpg')
    rows, q = folder({'image': 'link.jpg'}, {'image': 'inside.jpg'})
    assert [r['id'] for r in rows] == ['good', 'r1'] and 'link to a file outside' in q[0]['reason']


def test_odd_values(folder):
    for value in ['\0', '.', '..', '/', 'images', 'a' * 5000, 7, {'url': 'x'}, [None]]:
        reason = only_reason(*folder({'image': value}))
        assert reason.startswith(('missing image', 'bad record')), reason


def test_no_record_stops_the_batch(folder):
    "Every odd value in every place: the good row is read, each other one is read or quarantined, none raises."
    odd = [None, 0, 7, -1.5, True, '', 'x', [], [None], [[]], {}, {'a': 1}, [{'type': 'image'}], [{'type': 'text'}], [{'type': None}], [{'role': 'user', 'content': 3}]]
    records = [{key: value, **({'image': 'good.jpg'} if key != 'image' else {}), 'id': i if key != 'id' else value}
               for i, (key, value) in enumerate((k, v) for k in ('id', 'image', 'images', 'conversations', 'messages', 'label', 'group', 'source', 'meta') for v in odd)]
    records += [{'id': f'turn{i}{key}', 'image': 'good.jpg', 'conversations': [dict(turns()[0], **{key: value}), turns()[1]]}
                for key in ('from', 'value', 'role', 'content') for i, value in enumerate(odd)]
    rows, q = folder(*records)
    assert rows[0]['id'] == 'good' and len(rows) + len(q) == len(records) + 1
    assert from_dataset(to_dataset(rows)) == rows


@pytest.mark.parametrize('text, error, message', [('', ValueError, 'the file is empty'), ('[]', ValueError, 'at least one record'), ('{"a": []}', ValueError, "a dict with the keys ['a']"),
                                                  ('7', ValueError, 'holds 7'), ('[{"id"', ValueError, 'line 1'), ('[{}]', ValueError, 'no turns')])
def test_bad_json(tmp_path, text, error, message):
    (tmp_path / 'rows.json').write_text(text)
    with pytest.raises(error) as e: read_llava(tmp_path / 'rows.json', tmp_path)
    assert message in str(e.value) and 'rows.json' in str(e.value) and ';' in str(e.value)


def test_wrong_path(folder, tmp_path):
    for path, images, message in [('typo.json', 'images', 'no such file'), ('images', 'images', 'a folder'), ('rows.json', 'imags', 'no such folder')]:
        folder()
        with pytest.raises((FileNotFoundError, ValueError)) as e: read_llava(tmp_path / path, tmp_path / images)
        assert message in str(e.value)


def test_wrong_encoding(tmp_path):
    write(tmp_path / 'rows.json', [{'id': '이하윤'}], 'cp949')
    with pytest.raises(ValueError, match='not UTF-8'): read_llava(tmp_path / 'rows.json', tmp_path)


def test_byte_order_mark(folder):
    for encoding in ('utf-8', 'utf-8-sig'):
        rows, q = folder(encoding=encoding)
        assert len(rows) == 1 and not q


def test_jsonl(tmp_path):
    picture(tmp_path / '1.jpg')
    good = json.dumps({'id': '이', 'image': '1.jpg', 'conversations': turns('<image>\n두 줄\u2028')}, ensure_ascii=False)
    (tmp_path / 'rows.jsonl').write_bytes(b'\xef\xbb\xbf' + good.encode() + b'\r\n\r\n{"id": \n[1]\n"\xff"\n')
    rows = read_llava(tmp_path / 'rows.jsonl', quarantine=(q := Quarantine()))
    assert [r['id'] for r in rows] == ['이'] and [x['id'] for x in q] == ['record 2', 'record 3', 'record 4']
    assert all(x['reason'].startswith('bad record') for x in q)


def test_duplicates(folder):
    picture(folder.images / 'b.jpg', 1)
    (folder.images / 'again.jpg').write_bytes((folder.images / 'good.jpg').read_bytes())
    rows, q = folder({'id': 'good', 'image': 'b.jpg'}, {'image': 'again.jpg'})
    assert [r['id'] for r in rows] == ['good', 'r1'] and q.summary() == {'duplicate id': 1}
    assert len({r['group'] for r in rows}) == 1 and [x['id'] for x in q.notes] == ['r1'] and 'same image: as good' in q.notes[0]['reason']
    q.save(folder.images / 'quarantine.jsonl')
    lines = [json.loads(x) for x in (folder.images / 'quarantine.jsonl').read_text(encoding='utf-8').splitlines()]
    assert [(x['id'], x['kept']) for x in lines] == [('good', False), ('r1', True)]


def test_names_that_do_not_decide(folder):
    for i, p in enumerate(['a/1.jpg', 'a/2.jpg', 'b/2.jpg']): picture(folder.images / p, i)
    rows, q = folder({'image': 'a/1.jpg'}, {'image': 'c/1.jpg'}, {'image': 'old/2.jpg'}, {'image': 'b/2.jpg'})
    assert [r['id'] for r in rows] == ['good', 'r0', 'r3'] and q.summary() == {'ambiguous image': 2}
    assert rows[2]['images'] == [str(folder.images / 'b/2.jpg')]


@pytest.mark.parametrize('disk', ['NFC', 'NFD'])
@pytest.mark.parametrize('asked', ['NFC', 'NFD'])
@pytest.mark.parametrize('where', ['', '환자/', 'old/path/'])
def test_hangul_names(folder, disk, asked, where):
    picture(folder.images / unicodedata.normalize(disk, '환자/홍길동 (1).jpg'), 1)
    value = unicodedata.normalize(asked, f'{where}홍길동 (1).jpg')
    rows, q = folder({'image': value})
    assert len(rows) == 2 and not q and ('found_by' in rows[1]['meta']) == (where != '환자/')


def test_hangul_twins(folder):
    "NFC and NFD of one name side by side are two files; the value says which."
    names = [unicodedata.normalize(form, '홍.jpg') for form in ('NFC', 'NFD')]
    for i, name in enumerate(names): picture(folder.images / name, i + 1)
    if len(list(folder.images.iterdir())) < 3: pytest.skip('this file system does not tell the two apart')
    rows, q = folder(*({'image': name} for name in names))
    assert not q and [Path(r['images'][0]).name for r in rows[1:]] == names


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux stores raw bytes as file names')
@pytest.mark.parametrize('name', ['홍길동.jpg'.encode('cp949'), '홍길동.jpg'.encode('cp949').decode('cp437').encode()])
def test_cp949_names(folder, name, tmp_path):
    picture(folder.images / 'x.jpg', 1).rename(os.fsdecode(os.fsencode(folder.images) + b'/' + name))
    rows, q = folder({'image': '홍길동.jpg'}, {'id': 'again', 'image': '홍길동.jpg'})
    assert len(rows) == 3 and not q and len(q.notes) == 1
    q.save(tmp_path / 'q.jsonl')
    assert to_dataset(rows)[1]['images'][0].size == (64, 48)
    save_rows(rows, tmp_path / 'saved.jsonl')
    assert [r['messages'] for r in read_llava(tmp_path / 'saved.jsonl')] == [r['messages'] for r in rows]


@pytest.mark.parametrize('conversations, kind', [
    ([], 'no turns'), (None, 'bad record'), ('text', 'bad record'), (['text'], 'bad record'), (turns('no picture'), 'placeholders'), (turns('<image><image>'), 'placeholders'),
    (turns(answer=''), 'empty turn'), (turns(answer=' \n'), 'empty turn'), (turns(answer='<image>'), 'placeholders'), (turns()[:1], 'no answer'), (turns()[1:], 'turn order'),
    (turns() + turns()[1:], 'turn order'), ([dict(turns()[0], **{'from': 'tool'}), turns()[1]], 'unknown role'), ([{}], 'unknown role')])
def test_bad_turns(folder, conversations, kind):
    assert only_reason(*folder({'image': 'good.jpg', 'conversations': conversations})).startswith(kind + ':')


def test_both_families_agree(folder):
    parts = [{'role': 'system', 'content': 'Be brief.'},
             {'role': 'user', 'content': [{'type': 'image', 'image': 'good.jpg'}, {'type': 'text', 'text': '누구?'}]}, {'role': 'assistant', 'content': '이하윤'}]
    flat = [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': '<image>\n누구?'}, {'role': 'assistant', 'content': '이하윤'}]
    llava = [{'from': 'system', 'value': 'Be brief.'}, *turns('<image>\n누구?')]
    rows, q = folder({'conversations': None, 'messages': parts}, {'conversations': None, 'messages': flat, 'images': ['good.jpg']},
                     {'conversations': llava, 'image': 'good.jpg'})
    assert not q and len({json.dumps(r['messages'], sort_keys=True) for r in rows[1:]}) == 1
    text_only, q = folder({'conversations': turns('안녕?')})
    assert text_only[1]['images'] == [] and not q


def test_nothing_left_is_an_error(folder, tmp_path):
    (tmp_path / 'other').mkdir(); folder()
    with pytest.raises(ValueError, match='none of its 1 records can be used; check the image folder'): read_llava(tmp_path / 'rows.json', tmp_path / 'other')
    write(tmp_path / 'rows.json', [{'id': i, 'image': 'good.jpg', 'conversations': turns()} for i in (1, 1)])
    with pytest.warns(UserWarning, match='1 bad rows left out'): read_llava(tmp_path / 'rows.json', tmp_path / 'images')


def test_rotated_phone_picture(tmp_path):
    exif = Image.Exif(); exif[0x0112] = 8
    picture(tmp_path / 'phone.jpg', size=(64, 48), exif=exif)
    assert open_image(tmp_path / 'phone.jpg').size == (48, 64)
    r = row('a', [str(tmp_path / 'phone.jpg')], [user('?', 1), assistant('!')])
    assert open_image(to_dataset([r])[0]['images'][0]).size == (48, 64)


def test_many_rows(tmp_path):
    "Two thousand rows on two hundred pictures: grouped, split, stored and read back unchanged."
    for i in range(200): picture(tmp_path / f'p{i:03d}.png', i, (8, 8))
    records = [{'id': f'{i:05d}', 'image': f'p{i % 200:03d}.png', 'label': 'ABC'[i % 3], 'conversations': turns()} for i in range(2000)]
    rows = read_llava(write(tmp_path / 'rows.json', records), quarantine=(q := Quarantine()))
    assert len(rows) == 2000 and not q and len(q.notes) == 1800 and len({r['group'] for r in rows}) == 200
    parts = split_groups(rows, (.8, .1, .1), by='label')
    check_split(*parts)
    assert [len(p) for p in parts] == [1600, 200, 200]
    assert from_dataset(to_dataset(rows)) == rows
    for p in parts: save_rows(p, tmp_path / 'part.jsonl'); assert read_llava(tmp_path / 'part.jsonl', verify=False, quarantine=Quarantine()) == p


def test_dataset_on_disk(folder, tmp_path):
    "On disk a dataset carries the files themselves, so it can be moved."
    from datasets import load_from_disk
    picture(folder.images / 'b.jpg', 1)
    rows, _ = folder({'image': 'b.jpg'})
    to_dataset(rows).save_to_disk(tmp_path / 'ds')
    back = from_dataset(load_from_disk(tmp_path / 'ds').select([1, 0]))
    assert back == [dict(r, images=[Path(x).read_bytes() for x in r['images']]) for r in rows[::-1]]


def test_no_torch():
    code = 'import sys, medvlm.data; from medvlm.data import *; to_dataset([row("a", [], [user("?"), assistant("!")])]); print("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == 'False'


@pytest.mark.skipif(not RX.is_dir(), reason='the real document set is not here')
def test_real_documents():
    "136 rows whose JSON has the paths of another machine; 40 prescriptions in three copies and 16 receipts."
    rows = read_llava(RX / 'rows.json', RX / 'images', q := Quarantine())
    assert (len(rows), len(q), len(q.notes), len({r['group'] for r in rows})) == (136, 0, 0, 56)
    assert summary(rows, q).n['found by name'] == 136 and summary(rows, q).n['answers'] == 558
    assert {len([r for r in rows if r['group'] == group_of(x['id'])]) for x in rows if '_zh' in x['id']} == {3}
    for r in rows: r['source'] = 'prescription' if '_zh' in r['id'] else 'receipt'
    parts = split_groups(rows, (.6, .2, .2), by='source')
    check_split(*parts)
    assert sorted(r['id'] for p in parts for r in p) == sorted(r['id'] for r in rows)
    assert all({r['source'] for r in p} == {'prescription', 'receipt'} for p in parts)
    assert from_dataset(to_dataset(rows)) == rows

    def seen(seed):
        mixed = random.Random(seed).sample(rows, len(rows))
        return np.mean([r['group'] in {t['group'] for t in mixed[:-27]} for r in mixed[-27:]])
    assert .84 < np.mean([seen(seed) for seed in range(200)]) < .86  # what cutting row by row would leak
