"A set is sent to a small server that speaks as much of the Hub's protocol as sending needs."
import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from datasets import Dataset

from medvlm import publish
from medvlm.data import assistant, from_dataset, load_splits, row, user, write_dataset

TOKEN = 'hf_' + 'x' * 34


class Hub(BaseHTTPRequestHandler):
    "Repositories in memory: {name: {'private': bool, 'files': {path: bytes}}}."
    def log_message(self, *args): pass

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status); self.send_header('Content-Type', 'application/json'); self.send_header('Content-Length', str(len(data))); self.end_headers()
        self.wfile.write(data)

    def body(self):
        return self.rfile.read(int(self.headers.get('Content-Length') or 0))

    def refuse(self):
        if self.headers.get('Authorization') == f'Bearer {TOKEN}': return False
        self.body(); self.answer({'error': 'Invalid token'}, 401)
        return True

    def do_POST(self):
        repos = self.server.repos
        if self.refuse(): return
        body = self.body()
        if self.path == '/api/repos/create':
            made = json.loads(body)
            name = f"{made.get('organization') or 'clinic'}/{made['name']}"
            if name in repos: return self.answer({'error': 'exists', 'url': name}, 409)
            repos[name] = dict(private=made.get('private') or made.get('visibility') == 'private', files={}, commits=0)
            return self.answer({'url': f'{self.server.address}/datasets/{name}', 'name': name})
        if self.path == '/api/validate-yaml': return self.answer({'errors': [], 'warnings': []})
        name = '/'.join(self.path.split('/')[3:5])
        if '/preupload/' in self.path: return self.answer({'files': [dict(path=f['path'], uploadMode='regular', shouldIgnore=False) for f in json.loads(body)['files']]})
        if '/commit/' in self.path:
            for line in map(json.loads, body.splitlines()):
                if line['key'] == 'deletedFile': repos[name]['files'].pop(line['value']['path'])
                if line['key'] == 'file': repos[name]['files'][line['value']['path']] = base64.b64decode(line['value']['content'])
            repos[name]['commits'] += 1
            return self.answer(dict(commitOid='0' * 40, commitUrl=f'{self.server.address}/datasets/{name}/commit/{"0" * 40}', hookOutput='', success=True))
        self.answer({'error': self.path}, 404)

    def do_GET(self):
        if self.refuse(): return
        name = '/'.join(self.path.split('?')[0].split('/')[3:5])
        if '/tree/' in self.path: return self.answer([dict(type='file', path=p, size=len(d), oid='0' * 40) for p, d in self.server.repos[name]['files'].items()])
        if name not in self.server.repos: return self.answer({'error': 'not found'}, 404)
        self.answer(dict(id=name, private=self.server.repos[name]['private'], sha='0' * 40, siblings=[], tags=[], _id='1', downloads=0, likes=0))


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    server.repos = {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    server.address = f'http://127.0.0.1:{server.server_port}'
    yield server
    server.shutdown()


@pytest.fixture
def chests(tmp_path):
    rows = [row(f'{i}', [], [user('열이 나요?'), assistant(f'{i}')], label='AB'[i % 2], group=f'{i}', source='medvlm samples') for i in range(10)]
    write_dataset(rows, tmp_path / 'set', {f'{i}': 'test' if i > 7 else 'train' for i in range(10)}, info=dict(title='Ten'))
    return tmp_path / 'set'


def test_push_makes_a_private_repository_in_one_commit(hub, chests):
    assert publish.push(chests, 'clinic/ten', endpoint=hub.address).endswith('/commit/' + '0' * 40)
    repo = hub.repos['clinic/ten']
    assert repo['private'] and repo['commits'] == 1
    assert sorted(repo['files']) == ['README.md', 'data/test-00000-of-00001.parquet', 'data/train-00000-of-00001.parquet', 'figures/classes.png', 'manifest.json']
    assert b'pretty_name: Ten' in repo['files']['README.md'] and TOKEN.encode() not in b''.join(repo['files'].values())


def test_what_was_sent_is_what_was_written(hub, chests, tmp_path):
    publish.push(chests, 'clinic/ten', endpoint=hub.address)
    for split, ds in load_splits(chests).items():
        (tmp_path / f'{split}.parquet').write_bytes(hub.repos['clinic/ten']['files'][f'data/{split}-00000-of-00001.parquet'])
        assert from_dataset(Dataset.from_parquet(str(tmp_path / f'{split}.parquet'), cache_dir=str(tmp_path / 'cache'))) == from_dataset(ds)


def test_a_second_push_leaves_nothing_of_the_first(hub, chests, tmp_path):
    publish.push(chests, 'clinic/ten', endpoint=hub.address)
    write_dataset([row('new', [], [user('?'), assistant('!')], source='medvlm samples')], tmp_path / 'one')
    publish.push(tmp_path / 'one', 'clinic/ten', endpoint=hub.address)
    assert [f for f in sorted(hub.repos['clinic/ten']['files']) if f.startswith('data/')] == ['data/train-00000-of-00001.parquet']


def test_a_public_repository_is_not_filled_by_mistake(hub, chests):
    hub.repos['clinic/open'] = dict(private=False, files={}, commits=0)
    with pytest.raises(ValueError, match='public already'): publish.push(chests, 'clinic/open', endpoint=hub.address)
    assert not hub.repos['clinic/open']['files']
    publish.push(chests, 'clinic/open', private=False, endpoint=hub.address)
    assert hub.repos['clinic/open']['commits'] == 1


def test_wrong_token_is_named_but_not_shown(hub, chests, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'hf_' + 'y' * 34)
    with pytest.raises(ValueError, match='check name, token and network') as e: publish.push(chests, 'clinic/ten', endpoint=hub.address)
    assert 'yyyy' not in str(e.value) and not hub.repos


def test_no_network(chests, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    with pytest.raises(ValueError, match='or pass dry_run'): publish.push(chests, 'clinic/ten', endpoint='http://127.0.0.1:9')


def test_personal_data_stop_before_the_network(hub, tmp_path):
    write_dataset([row('a', [], [user('?'), assistant('900101-1234567')])], tmp_path / 'set')
    with pytest.raises(ValueError, match='resident registration'): publish.push(tmp_path / 'set', 'clinic/a', endpoint=hub.address)
    assert not hub.repos


def test_leaking_splits_stop_unless_the_kind_is_named(hub, tmp_path):
    same = '이 약은 식후 30분에 한 알씩 하루 세 번 드시고, 열이 계속되면 다시 병원에 오시기 바랍니다. 의사의 확인이 필요합니다.'
    write_dataset([row(i, [], [user('?'), assistant(same)], group=i) for i in 'ab'], tmp_path / 'set', {'a': 'train', 'b': 'test'})
    with pytest.raises(ValueError, match='1 leaks between splits'): publish.push(tmp_path / 'set', 'clinic/a', endpoint=hub.address)
    publish.push(tmp_path / 'set', 'clinic/a', allow=('answer',), endpoint=hub.address)
    assert hub.repos['clinic/a']['commits'] == 1
