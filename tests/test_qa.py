"The medical QA job in processes of its own: a chat at a terminal, and a build that is killed."
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medvlm import core

HERE = Path(__file__).resolve().parents[1]
TREE = HERE/'data_samples/qa'


def medvlm(*words, **kw): return subprocess.run([sys.executable, '-m', 'medvlm.cli', *map(str, words)], capture_output=True, text=True, encoding='utf-8', cwd=HERE, timeout=300, **kw)


def test_chat_at_a_terminal(tmp_path):
    "An emergency, an empty line, signs without words, another language, a saved history, the end of the input."
    said = medvlm('qa', 'chat', 'data_samples/small_qa', '--new-tokens', 60, input=f'가슴이 조이고 식은땀이 비 오듯 해요\n\n😭\nMy head hurts\n/save {tmp_path/"chat.json"}\n')
    assert said.returncode == 0, said.stderr
    assert '119' in said.stdout and 'Traceback' not in said.stdout + said.stderr
    assert '119' in core.load_json(tmp_path/'chat.json')['messages'][2]['content'][0]['text']


def test_chat_with_passages():
    "A question of fact shows the folder its passage comes from."
    said = medvlm('qa', 'chat', 'data_samples/small_qa', '--ground', TREE, '--new-tokens', 20, input='천식 흡입기는 어떻게 쓰나요?\n')
    assert said.returncode == 0 and '[source]' in said.stdout and '천식' in said.stdout.split('[source]')[1]


def test_killed_build_is_no_set(tmp_path):
    "What a killed build leaves is not taken for a set; built again it is whole."
    process = subprocess.Popen([sys.executable, '-m', 'medvlm.cli', 'qa', 'build', str(TREE), '--out', str(tmp_path/'set'), '--workers', '1', '--dialogues', '20000'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not (tmp_path/'set/train.jsonl').exists() and time.monotonic() < until: time.sleep(.02)
    process.send_signal(signal.SIGKILL); process.wait()
    said = medvlm('qa', 'train', tmp_path/'set', '--root', tmp_path)
    assert said.returncode == 2 and 'no finished set' in said.stderr
    again = medvlm('qa', 'build', TREE, '--out', tmp_path/'set', '--dialogues', 200, '--workers', 2)
    assert again.returncode == 0 and (tmp_path/'set/manifest.json').exists() and 'train' in again.stdout


@pytest.mark.parametrize('words, told', [(('qa', 'eval', 'data_samples/small_qa'), 'nothing to ask'), (('qa', 'build', 'nowhere', '--out', 'x'), 'nowhere'), (('qa', 'chat', 'nowhere'), 'nowhere')])
def test_refusals(words, told, tmp_path):
    "Status 2 and a line that says what to do."
    said = medvlm(*[w if w != 'x' else tmp_path/'x' for w in words])
    assert said.returncode == 2 and told in said.stderr and 'Traceback' not in said.stderr


@pytest.mark.skipif(not (HERE.parent/'shared/data/qa').is_dir(), reason='no real answer here')
def test_real_answer():
    "A real file of AI Hub becomes an answer with its department and a reminder."
    from medvlm.exaone_qa import closed
    from medvlm.qa import departments_in, has_reminder
    from medvlm.sources import answer_text, load_objects
    text, facts = answer_text(load_objects(str(next((HERE.parent/'shared/data/qa').glob('answer*.json'))))[0])
    said = closed(text, facts['department'])
    assert text in said and has_reminder(said) and set(departments_in(said)) & set(departments_in(' '.join(facts['department'])))
