"The stand-in in a process of its own: clients that are killed, many requests at once, what it costs, and a port that is free afterwards. And that it is nobody's default."
import asyncio
import base64
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from medvlm.standin import Faults, Standin, content_key, read_log, served

ROOT = Path(__file__).resolve().parents[1]
PICTURE = 'data:image/png;base64,' + base64.b64encode(random.Random(0).randbytes(1_500_000)).decode()  # 2 MB as text

CLIENT = '''
import json, os, sys, urllib.request
url, journal, name = sys.argv[1:]
with open(journal, 'a') as file:
    for i in range(10**6):
        body = json.dumps(dict(model='standin', user=name, messages=[dict(role='user', content=f'{name} {i}' + ' '*int(os.environ.get('PAD', 0)))])).encode()
        got = json.load(urllib.request.urlopen(urllib.request.Request(url + '/v1/chat/completions', body, {'Authorization': 'Bearer test', 'Content-Type': 'application/json'})))
        file.write(json.dumps([i, got['choices'][0]['message']['content'].strip()]) + '\\n'); file.flush()
'''


def body_of(text, picture=None):
    "A request as a client sends it."
    parts = [dict(type='text', text=text)] + ([dict(type='image_url', image_url=dict(url=picture))] if picture else [])
    return dict(model='standin', messages=[dict(role='user', content=parts)])


@contextmanager
def process(log, *options):
    "The server in a process of its own; gives the process and the address."
    p = subprocess.Popen([sys.executable, '-m', 'medvlm.standin', '--log', str(log), *map(str, options)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield p, p.stdout.readline().split()[0]
        if p.poll() is None: p.send_signal(signal.SIGTERM)
        assert p.wait(20) == 0
    finally:
        if p.poll() is None: p.kill(); p.wait()
        p.stdout.close()


def ask_all(url, bodies, limit=0):
    "Ask all of `bodies` at once; the answers in their order, an exception where there is none."
    async def main():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit), headers={'Authorization': 'Bearer test'}) as session:
            async def ask(body):
                async with session.post(url + '/v1/chat/completions', data=body, headers={'Content-Type': 'application/json'}) as r:
                    return (await r.json())['choices'][0]['message']['content']
            return await asyncio.gather(*map(ask, bodies), return_exceptions=True)
    return asyncio.run(main())


def wait_until(true, seconds=60):
    "Wait until `true()` holds."
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, 'waited too long'
        time.sleep(.02)


@pytest.mark.parametrize('pad', [0, 200_000])
def test_killed_clients_leave_a_complete_log(tmp_path, pad):
    log, journals = tmp_path/'log.jsonl', [tmp_path/f'{i}.jsonl' for i in range(3)]
    with process(log, '--latency', '.01-.05') as (server, url):
        clients = [subprocess.Popen([sys.executable, '-c', CLIENT, url, str(j), j.stem], env={**os.environ, 'PAD': str(pad)}) for j in journals]
        for c, j in zip(clients, journals):
            wait_until(lambda: j.exists() and j.read_text().count('\n') > 5)
            c.kill(); c.wait()
        rows = read_log(log, wait=10)
        assert server.poll() is None
        assert ask_all(url, [json.dumps(body_of('still there'))]) == ['still there']
    assert all('end' in r for r in rows), 'every request has its end, whatever became of its client'
    by_key = {r['key']: r for r in rows if r['kind'] == 'chat'}
    for j in journals:
        *lines, tail = j.read_text().split('\n')
        for i, text in map(json.loads, lines):
            assert text == f'{j.stem} {i}'
            r = by_key[content_key(dict(model='standin', messages=[dict(role='user', content=text + ' '*pad)]))]
            assert r['answered'] and r['whole'] and r['user'] == j.stem, 'what a client has read is in the log as answered'
        mine = [r for r in rows if r.get('user') == j.stem]
        assert len(lines) <= len(mine) <= len(lines) + 1, 'at most the last request of a killed client has no line in its journal'


def test_a_killed_server_leaves_a_log_that_the_next_one_takes_up(tmp_path):
    log = tmp_path/'log.jsonl'
    with pytest.raises(AssertionError), process(log, '--latency', 30) as (server, url):
        client = subprocess.Popen([sys.executable, '-c', CLIENT, url, str(tmp_path/'j'), 'a'], stderr=subprocess.DEVNULL)
        wait_until(lambda: len(read_log(log)) == 1)
        server.kill(); server.wait(); client.wait(20)
    assert served(log)['open'] == 1
    with open(log, 'a') as file: file.write('{"run": "torn')
    with process(log) as (server, url): assert ask_all(url, [json.dumps(body_of('b'))]) == ['b']
    counts = served(log)
    assert (counts['requests'], counts['answered'], counts['open']) == (2, 1, 1)


def test_two_hundred_requests_at_once(tmp_path):
    log = tmp_path/'log.jsonl'
    with process(log, '--latency', 2) as (server, url):
        start = time.perf_counter()
        answers = ask_all(url, [json.dumps(body_of(f'question {i}')) for i in range(200)])
        took = time.perf_counter() - start
    assert answers == [f'question {i}' for i in range(200)]
    rows = read_log(log)
    assert len(rows) == 200 and {r['number'] for r in rows} == set(range(1, 201)) and all(r['answered'] for r in rows)
    assert max(r['time'] for r in rows) < min(r['end'] for r in rows), 'all have come before the first one is answered'
    assert took < 20


def test_two_hundred_with_faults_are_those_of_the_seed(tmp_path):
    options = ['--faults', 'limit=.1,overload=.1,cut=.1,broken=.1,html=.1,length=.1,seed=7', '--latency', '.01-.1']
    met = []
    for name in 'ab':
        with process(tmp_path/name, *options) as (server, url): ask_all(url, [json.dumps(body_of(str(i))) for i in range(200)])
        met.append([r['fault'] for r in sorted(read_log(tmp_path/name), key=lambda r: r['number'])])
    counts = served(tmp_path/'a')
    assert met[0] == met[1] and len(met[0]) == 200, 'which request meets a fault depends on its number alone'
    assert counts['answered'] == met[0].count('') and counts['open'] == 0 and counts['fault'].total() > 80


def test_stop_frees_the_port_and_ends_those_who_wait():
    port = None
    for _ in range(3):
        with Standin(faults=Faults(script=('never',)), port=port or 0) as server:
            port = int(server.url.rpartition(':')[2])
            hanging = socket.create_connection(('127.0.0.1', port))
            body = json.dumps(body_of('x')).encode()
            hanging.sendall(b'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
            wait_until(lambda: len(read_log(server.log)) == 1)
            start = time.perf_counter()
        assert time.perf_counter() - start < 5
        assert hanging.recv(100) == b'', 'nobody is left waiting'
        hanging.close()
        with pytest.raises(OSError): socket.create_connection(('127.0.0.1', port), timeout=1)


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)); s.listen()
        port = s.getsockname()[1]
        done = subprocess.run([sys.executable, '-m', 'medvlm.standin', '--port', str(port)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and f'port {port}' in done.stderr and 'take 0 for any' in done.stderr and 'Traceback' not in done.stderr


def cost(tmp_path, bodies):
    "Seconds of processor that the server spends on each of `bodies`, eight at a time; the wall clock would measure the clients."
    with process(tmp_path/'log.jsonl') as (server, url):
        ask_all(url, bodies[:20], 8)
        of = psutil.Process(server.pid); before = sum(of.cpu_times()[:2])
        answers = ask_all(url, bodies, 8)
        spent = sum(of.cpu_times()[:2]) - before
    assert not [a for a in answers if isinstance(a, Exception)]
    return spent/len(bodies)


def test_small_requests_cost_little(tmp_path):
    spent = cost(tmp_path, [json.dumps(body_of(f'question {i}')) for i in range(600)])
    print(f'{1000*spent:.2f} ms, {1/spent:.0f} requests a second on one core')
    assert spent < 1/300


def test_large_requests_cost_little(tmp_path):
    spent = cost(tmp_path, [json.dumps(body_of(f'question {i}', PICTURE)) for i in range(120)])
    print(f'{1000*spent:.2f} ms, {1/spent:.0f} requests of 2 MB a second on one core')
    assert spent < 1/60


def test_importing_it_is_light():
    code = 'import sys, medvlm; print("medvlm.standin" in sys.modules, "aiohttp" in sys.modules); import medvlm.standin; print(sorted({"aiohttp", "torch", "transformers", "datasets", "scipy.ndimage"} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split('\n')[:2] == ['False False', '[]']


def test_nothing_else_in_the_library_mentions_it():
    users = [p.name for p in (ROOT/'medvlm').glob('*.py') if p.stem not in ('standin', '_modidx') and re.search(r'\bstandin\b', p.read_text(encoding='utf-8'))]
    assert users == [], 'a server for tests is never a default'
