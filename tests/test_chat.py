"A chat in a process of its own: Ctrl-C and the end of the input end it without a traceback, and an answer that is not read to its end leaves no thread."
import signal, subprocess, sys, threading, time

import pytest
from medvlm.chat import Chat
from medvlm.models import load

SCRIPT = '''
import torch
from medvlm.chat import Chat, talk
from medvlm.models import load
torch.set_num_threads(1)
model, tok = load('small_llm')
model.lm_head.register_forward_hook(lambda layer, given, out: out.index_fill(-1, torch.tensor(range(9)), -1e4))  # it never ends by itself
talk(Chat(model, tok, new_tokens=1900))
print('ended', flush=True)
'''


@pytest.fixture(scope='module')
def small():
    "The small model and its tokenizer."
    return load('small_llm')


def started():
    "A chat that waits for its first line."
    return subprocess.Popen([sys.executable, '-c', SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def until(process, text):
    "Reads what `process` prints until it holds `text`."
    out = b''
    while text not in out:
        assert (more := process.stdout.read1(1)), out.decode() + process.stderr.read().decode()
        out += more
    return out


@pytest.mark.parametrize('moment', ['waiting', 'answering'])
def test_ctrl_c(moment):
    process = started()
    until(process, b'> ')
    if moment == 'answering':
        process.stdin.write('두통이 심해요\n'.encode()); process.stdin.flush()
        until(process, '.'.encode())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and b'Traceback' not in err and out.rstrip().endswith(b'ended'), err.decode()


def test_end_of_input_and_bytes_that_are_no_text():
    out, err = started().communicate(b'\xff\xfe\n' + '\n/save\n😭\n'.encode(), timeout=120)
    assert b'Traceback' not in err and b'[not done]' in out and '말로 적어'.encode() in out and out.rstrip().endswith(b'ended'), err.decode()


def test_an_answer_left_early_leaves_no_thread(small):
    chat, before = Chat(*small, new_tokens=1900), threading.active_count()
    for how in ('close', 'forget'):
        pieces = chat.stream('천식 약은 어떤 것이 있나요?')
        next(pieces)
        assert threading.active_count() == before + 1 and chat.busy
        if how == 'close': pieces.close()
        else: del pieces
        assert threading.active_count() == before and not chat.busy and chat.last.finish_reason == 'closed'


def test_the_reader_waits_for_no_dead_thread(small):
    model, tok = small
    hook = model.lm_head.register_forward_hook(lambda *given: 1/0)
    start = time.time()
    try:
        with pytest.raises(ZeroDivisionError): list(Chat(model, tok).stream('열이 나요'))
    finally: hook.remove()
    assert time.time() - start < 30


def test_two_chats_at_once_do_not_mix(small):
    ask = lambda question: Chat(*small, new_tokens=40).ask(question).text
    questions, out = ['안녕하세요', '고혈압 약은 언제 먹나요?', '두통이 심해요', '감기 예방법은?'], {}
    threads = [threading.Thread(target=lambda q=q: out.update({q: ask(q)})) for q in questions]
    for t in threads: t.start()
    for t in threads: t.join(120)
    assert out == {q: ask(q) for q in questions}
