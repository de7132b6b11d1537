"A watched run that is killed (-9) goes on with the same decisions, and two processes decide alike and write once."
import json, signal, subprocess, sys, time

SCRIPT = '''
import os, sys, time
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments
from medvlm import core
from medvlm.data import assistant, row, user
from medvlm.models import Answer
from medvlm.stats import wilson
from medvlm.watch import Watch, watcher
tmp, name, mode = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
rank = int(os.environ.get('RANK', 0))
core.seed_all(0)
small = LlamaConfig(vocab_size=24, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, attention_dropout=.1, bos_token_id=None, eos_token_id=1, pad_token_id=0)
model = LlamaForCausalLM(small)
ids = torch.randint(4, 20, (64, 6))
ids[:, 5] = 20 + ids[:, 0] % 4  # the last token is to be learnt
data = [dict(input_ids=i, labels=torch.where(torch.arange(6) == 5, i, -100), attention_mask=torch.ones(6, dtype=torch.long)) for i in ids]
rows = [row(f'r{i:02}', [], [user(str(i)), assistant(str(int(x[5])))], label=str(int(x[5]))) for i, x in enumerate(ids[:32])]

def ask(model, processor, rows):
    "Greedy answers of one token."
    prompts = ids[[int(r['id'][1:]) for r in rows], :5]
    with torch.inference_mode(): new = model.generate(input_ids=prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=1, do_sample=False)[:, 5]
    return [Answer(r['id'], str(int(t)), 'stop', 1, 0.) for r, t in zip(rows, new)]

def score(rows, answers):
    "Right answers; with mode 'two' the second process sees other scores."
    hits = sum(a.text == r['label'] for r, a in zip(rows, answers))
    return dict(hits=wilson(hits if mode != 'two' or rank == 0 else 0, len(rows)))

settings = Watch(every=4, rows=32, score='hits', floor=.02, strikes=2, collapse=.9)
run = tmp/name
args = TrainingArguments(str(run/'ckpt'), per_device_train_batch_size=8, max_steps=48, learning_rate=1e-2, logging_steps=1, save_steps=8, save_total_limit=2, use_cpu=True, seed=0, report_to='none', disable_tqdm=True)
w = watcher(settings, rows, score, ask, run, say=lambda line: None, label_of=lambda text: text)
t = Trainer(model, args, train_dataset=data, callbacks=[w])
t.remove_callback(PrinterCallback)
done = [p.parent for p in (run/'ckpt').glob('checkpoint-*/watch.json')] if mode == 'again' else []
last = str(max(done, key=lambda p: int(p.name.split('-')[1]))) if done else None
print('resumed from', last and Path(last).name, flush=True)
w.load(last)
t.train(resume_from_checkpoint=last)
end = dict(w.outcome(), step=t.state.global_step, losses=[l['loss'] for l in t.state.log_history if 'loss' in l])
core.save_json(end, run/f'end-{rank}.json')
'''


def start(tmp, name, mode='alone', *launch):
    "Starts a run in a process of its own."
    (tmp / 'script.py').write_text(SCRIPT)
    return subprocess.Popen([sys.executable, *launch, str(tmp / 'script.py'), str(tmp), name, mode], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    "Waits for a run and gives what it printed."
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


def lines(tmp, name):
    "The evaluations of a run."
    return [json.loads(line) for line in (tmp / name / 'watch.jsonl').read_text(encoding='utf-8').splitlines()]


def end(tmp, name, rank=0):
    "The outcome of a run."
    return json.loads((tmp / name / f'end-{rank}.json').read_text(encoding='utf-8'))


def test_killed_run_decides_alike(tmp_path):
    from safetensors.torch import load_file
    from medvlm.watch import best_weights
    finish(start(tmp_path, 'whole'))
    killed = start(tmp_path, 'killed')
    log, limit = tmp_path / 'killed' / 'watch.jsonl', time.time() + 240
    while not (log.exists() and len(log.read_bytes().splitlines()) > 3) and killed.poll() is None and time.time() < limit: time.sleep(.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert killed.returncode == -9, 'the run ended before it could be killed'
    assert not (tmp_path / 'killed' / 'end-0.json').exists()
    assert 'resumed from checkpoint-' in finish(start(tmp_path, 'killed', 'again'))
    assert lines(tmp_path, 'killed') == lines(tmp_path, 'whole')
    assert end(tmp_path, 'killed') == end(tmp_path, 'whole')
    a, b = (best_weights(tmp_path / name) for name in ('whole', 'killed'))
    assert a.name == b.name
    a, b = load_file(a), load_file(b)
    assert a.keys() == b.keys() and all(bool((a[k] == b[k]).all()) for k in a)


def test_two_processes_decide_alike_and_write_once(tmp_path):
    finish(start(tmp_path, 'two', 'two', '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2'))
    first, second = end(tmp_path, 'two'), end(tmp_path, 'two', 1)
    # alone, the second process would have stopped after two strikes, and the first one would have waited for it for ever
    assert first['step'] == 48
    assert (first['step'], first['best'], first['stopped']) == (second['step'], second['best'], second['stopped'])
    assert [r['step'] for r in lines(tmp_path, 'two')] == list(range(4, first['step'] + 1, 4))
