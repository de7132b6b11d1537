"""The annotation room: kills, full disks, refusals, large pictures, keys, and two processes at the same books."""
import io
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvlm import core
from medvlm.annotate import Pace, annotate, annotated, estimate
from medvlm.data import Quarantine, assistant, row, user
from medvlm.ledger import Ledger, Limits
from medvlm.llm import Asking, Price, Provider, headers_of, load_prompt, provider_of, sent
from medvlm.standin import Faults, Standin, refuse_words, served

ROOT = Path(__file__).resolve().parents[1]
LABELS = load_prompt('skin_ko').labels
quick = Pace(at_once=4, back_off=.01, tries=30)


def coded(seed, side=32, kind='PNG', **kw):
    b = io.BytesIO(); Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(b, kind, **kw)
    return b.getvalue()


@pytest.fixture
def faces(tmp_path):
    (tmp_path/'faces').mkdir()
    for i in range(40): (tmp_path/'faces'/f'{i:02}.png').write_bytes(coded(i))
    return [row(p.stem, [str(p)], [user('?', 1), assistant('-')], label=LABELS[i % 6]) for i, p in enumerate(sorted((tmp_path/'faces').iterdir()))]


@pytest.fixture(autouse=True)
def key(monkeypatch): monkeypatch.setenv('MEDVLM_STANDIN_KEY', 'test')


def asking(url, **kw): return Asking(load_prompt('skin_ko'), 'standin', Provider(url + '/v1', 'MEDVLM_STANDIN_KEY'), price=kw.pop('price', Price(1., 1.)), **kw)


def echo_label(request): return f"<label>{next(l for l in LABELS if l in request['prompt'])}</label>\n<summary>{len(request['images'])}</summary>"


# Stops and faults ----------------------------------------------------------------------------------------------------

CHILD = f'''
import sys; sys.path[:0] = [{str(ROOT)!r}]
from pathlib import Path
from medvlm.annotate import Pace, annotate
from medvlm.data import assistant, row, user
from medvlm.ledger import Ledger
from medvlm.llm import Asking, Price, Provider, load_prompt
books, url, folder = sys.argv[1:]
labels = load_prompt('skin_ko').labels
rows = [row(p.stem, [str(p)], [user('?', 1), assistant('-')], label=labels[i % 6]) for i, p in enumerate(sorted(Path(folder).iterdir()))]
with Ledger(books) as led: annotate(rows, led, Asking(load_prompt('skin_ko'), 'standin', Provider(url + '/v1', 'MEDVLM_STANDIN_KEY'), price=Price(1., 1.)), pace=Pace(at_once=3, back_off=.01, tries=30), show=False)
'''


def child(tmp_path, url): return subprocess.Popen([sys.executable, '-c', CHILD, str(tmp_path/'books.db'), url, str(tmp_path/'faces')], stderr=subprocess.PIPE)


def under_way(books):
    "Attempts in the file of another process."
    with sqlite3.connect(books, timeout=10) as db: return db.execute("select count(*) from attempts").fetchone()[0]


def test_killed_processes_lose_nothing_and_ask_nothing_twice(faces, tmp_path):
    with Standin(echo_label, faults=Faults(limit_bare=.05, error=.05, html=.05, seed=3), latency=(.1, .3)) as server:
        for n in range(4):
            two = [child(tmp_path, server.url) for _ in range(2)]
            until = time.time() + 60
            while time.time() < until and (not (tmp_path/'books.db').exists() or not _has(tmp_path/'books.db', 6*(n + 1))): time.sleep(.02)
            for p in two: p.send_signal(signal.SIGKILL); p.wait(); p.stderr.close()
        with Ledger(tmp_path/'books.db') as led: annotate(faces, led, asking(server.url), pace=quick, show=False)
        counts = served(server.log, wait=3)
    with Ledger(tmp_path/'books.db') as led:
        ends = Counter(s for s, in led.db.execute('select status from attempts')); jobs = led.jobs()
        assert [j['state'] for j in jobs] == ['done']*40 and ends['done'] == 40 and ends['lost'] > 0
        assert counts['answered'] <= 40 + ends['lost'] + ends['unclear']
        assert all(f'<label>{r["label"]}</label>' in j['text'] for r, j in zip(faces, sorted(jobs, key=lambda j: j['row'])))


def _has(books, n):
    try: return under_way(books) >= n
    except sqlite3.OperationalError: return False


def test_two_processes_share_rows_and_cap(faces, tmp_path):
    most = estimate(faces, asking('http://127.0.0.1:9'))['most']
    with Standin(echo_label, latency=.05) as server, Ledger(tmp_path/'b.db') as one, Ledger(tmp_path/'b.db') as two:
        told = []
        threads = [threading.Thread(target=lambda led=led: told.append(annotate(faces, led, asking(server.url), Limits(cap=most/3), quick, show=False))) for led in (one, two)]
        for t in threads: t.start()
        for t in threads: t.join()
        spent, counts = one.spent(), served(server.log, wait=2)
    assert spent['spent'] + spent['unclear'] <= most/3 and 0 < spent['done'] < 40 and counts['requests'] == spent['done'] and all('cap' in t['stopped'] for t in told)


def test_responses_that_come_twice_go_to_no_other_row(faces, tmp_path):
    with Standin(echo_label, faults=Faults(double=.5, seed=1)) as server, Ledger(tmp_path/'b.db') as led:
        annotate(faces, led, asking(server.url), pace=quick, show=False); done = annotated(faces, led, asking(server.url))
    assert len(done) == 40 and all(f"<label>{r['label']}</label>" in r['messages'][-1]['content'][0]['text'] for r in done)


@pytest.mark.skipif(os.name == 'nt', reason='signals')
def test_ctrl_c_keeps_what_is_under_way(faces, tmp_path):
    with Standin(echo_label, latency=.4) as server:
        p = child(tmp_path, server.url); until = time.time() + 60
        while time.time() < until and not _has(tmp_path/'books.db', 3): time.sleep(.02) if (tmp_path/'books.db').exists() else time.sleep(.1)
        p.send_signal(signal.SIGINT); _, said = p.communicate(timeout=60); counts = served(server.log, wait=2)
    with Ledger(tmp_path/'books.db') as led: spent = led.spent()
    assert b'KeyboardInterrupt' in said and spent['done'] == counts['answered'] == spent['attempts'] and 0 < spent['done'] < 40 and spent['unclear'] == 0


def test_a_full_disk_stops_and_keeps(faces, tmp_path):
    with Standin(echo_label) as server, Ledger(tmp_path/'b.db') as led:
        annotate(faces[:10], led, asking(server.url), pace=quick, show=False)
        pages, = led.db.execute('pragma page_count').fetchone(); led.db.execute(f'pragma max_page_count = {pages}')
        with pytest.raises(OSError, match='the disk is full; free some room'): annotate(faces, led, asking(server.url), pace=quick, show=False)
        assert led.full and not (tmp_path/'b.db.spare').exists()
        led.db.execute('pragma max_page_count = 100000')
        with pytest.raises(OSError, match='the disk is full'): led.claim(led.jobs()[0]['key'])
    with Standin(echo_label) as server, Ledger(tmp_path/'b.db') as led:
        assert annotate(faces, led, asking(server.url), pace=quick, show=False)['there'] >= 10 and led.spent()['done'] == 40 and (tmp_path/'b.db.spare').exists()


# Requests that are wrong ---------------------------------------------------------------------------------------------

def test_refused_pictures_are_kept_apart(faces, tmp_path):
    with Standin(echo_label, refuse=refuse_words('건선', 'content_filter')) as server, Ledger(tmp_path/'b.db') as led:
        q = Quarantine(); told = annotate(faces[:12], led, asking(server.url), pace=quick, show=False); done = annotated(faces[:12], led, asking(server.url), q)
        again = annotate(faces[:12], led, asking(server.url), pace=quick, show=False)
    assert told['refused'] == 2 and len(done) == 10 and all('the model declined' in x['reason'] for x in q) and again['refused before'] == 2 and 'done' not in again


def test_a_large_picture_is_shrunk_and_it_is_said(tmp_path):
    big = tmp_path/'big.png'; big.write_bytes(coded(1, 2900)); assert big.stat().st_size > 25e6 - 1e6
    s = sent(str(big), provider_of('openai')); assert len(s.data) <= provider_of('openai').limit and max(s.size) <= 2048
    with Standin(echo_label) as server, Ledger(tmp_path/'b.db') as led:
        annotate([row('big', [str(big)], [user('?', 1), assistant('-')], label='건선')], led, asking(server.url), pace=quick, show=False); j, = led.jobs()
    assert j['state'] == 'done' and '2900 × 2900 pixels' in j['why'] and 'sent as 2048 × 2048' in j['why']


def test_damaged_pictures_cost_nothing(faces, tmp_path):
    Path(faces[0]['images'][0]).write_bytes(coded(0)[:500])
    with Standin(echo_label) as server, Ledger(tmp_path/'b.db') as led:
        q = Quarantine(); told = annotate(faces[:3], led, asking(server.url), pace=quick, quarantine=q, show=False); counts = served(server.log, wait=1)
    assert told['done'] == 2 and [x['id'] for x in q] == ['00'] and 'unreadable image' in q[0]['reason'] and counts['requests'] == 2


def test_an_account_without_money_stops_at_once(faces, tmp_path):
    with Standin(echo_label, faults=Faults(quota=1.)) as server, Ledger(tmp_path/'b.db') as led:
        with pytest.raises(RuntimeError, match='no money left'): annotate(faces, led, asking(server.url), pace=quick, show=False)
        assert led.spent()['failed'] == 0 and led.spent()['open'] == 40


def test_only_a_changed_prompt_and_new_rows_are_asked(faces, tmp_path):
    with Standin(echo_label) as server, Ledger(tmp_path/'b.db') as led:
        first = annotate(faces[:20], led, asking(server.url), pace=quick, show=False); more = annotate(faces, led, asking(server.url), pace=quick, show=False)
        other = annotate(faces[:5], led, replace(asking(server.url), prompt=load_prompt('skin_en')), pace=quick, show=False)
    assert (first['done'], more['done'], more['there'], other['done']) == (20, 20, 20, 5)


@pytest.mark.parametrize('line', ('MY_KEY="quoted-key-1"', "MY_KEY='quoted-key-1'", '\ufeffMY_KEY=quoted-key-1', 'export MY_KEY = quoted-key-1  # mine'))
def test_keys_in_env_files(line, tmp_path, monkeypatch):
    (tmp_path/'.env').write_text(line + '\n', encoding='utf-8'); monkeypatch.chdir(tmp_path); monkeypatch.delenv('MY_KEY', raising=False)
    for f in (core.dotenv,): getattr(f, 'cache_clear', lambda: None)()
    assert headers_of(Provider('http://127.0.0.1:9/v1', 'MY_KEY'))['Authorization'] == 'Bearer quoted-key-1'


def test_keys_stand_in_no_error_and_no_book(faces, tmp_path, monkeypatch):
    monkeypatch.setenv('MEDVLM_STANDIN_KEY', 'sk-thisisaverysecretkey123456')
    with Standin(echo_label) as server, Ledger(tmp_path/'b.db') as led:
        with pytest.raises(RuntimeError) as e: annotate(faces[:2], led, asking(server.url), pace=quick, show=False)
    assert 'secret' not in str(e.value) and b'verysecret' not in (tmp_path/'b.db').read_bytes()


# Runs that must end -------------------------------------------------------------------------------------------------

def test_a_process_that_dies_during_a_run_holds_nobody_up(faces, tmp_path):
    one = f"import sys; sys.path[:0] = [{str(ROOT)!r}]\nfrom medvlm.ledger import Ledger\nled = Ledger({str(tmp_path/'b.db')!r}); j = [j for j in led.jobs() if j['state'] == 'open'][-1]; print(led.claim(j['key'])[0], flush=True); sys.stdin.read()"
    with Standin(echo_label, latency=.3) as server, Ledger(tmp_path/'b.db') as led:
        told = []; t = threading.Thread(target=lambda: told.append(annotate(faces, led, asking(server.url), pace=quick, show=False))); t.start(); time.sleep(.4)
        p = subprocess.Popen([sys.executable, '-c', one], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True); got = p.stdout.readline(); p.kill(); p.wait(); p.stdin.close(); p.stdout.close()
        t.join(30); assert not t.is_alive() and led.spent()['done'] == 40
    assert got.strip() in ('go', '')


def test_a_batch_under_way_does_not_hold_up_a_capped_run(faces, tmp_path):
    from medvlm.annotate import write_batch
    with Standin(echo_label) as server, Ledger(tmp_path/'b.db') as led:
        most = estimate(faces[:1], asking(server.url))['most']
        assert write_batch(faces[:6], led, asking(server.url), tmp_path/'six.jsonl') == 6
        told = annotate(faces, led, asking(server.url), Limits(cap=4.5*most), quick, show=False)
    assert 'cap' in told['stopped'] and led.path.exists()


def test_when_all_fail_nothing_is_marked(faces, tmp_path):
    with Standin(echo_label, max_image=10) as server, Ledger(tmp_path/'b.db') as led:
        with pytest.raises(core.Stopped, match='the first 5 requests failed'): annotate(faces, led, asking(server.url), pace=Pace(at_once=1), show=False)
        assert led.spent()['failed'] == 0 and led.spent()['open'] == 40


def test_an_answer_stays_until_a_newer_one_is_there(faces, tmp_path):
    from medvlm.annotate import ask_again
    with Standin(echo_label) as server, Ledger(tmp_path/'b.db') as led:
        a = asking(server.url); annotate(faces[:4], led, a, pace=quick, show=False); ask_again(faces[:4], led, a, ['00'], 'x')
        assert [r['meta']['annotation']['seed'] for r in annotated(faces[:4], led, a)] == [0, 0, 0, 0] and led.spent()['open'] == 1
        annotate(faces[:4], led, a, pace=quick, show=False); assert [r['meta']['annotation']['seed'] for r in annotated(faces[:4], led, a)] == [1, 0, 0, 0]
