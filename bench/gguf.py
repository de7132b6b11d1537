"""Whether llama.cpp reads our GGUF files as we mean them: `python bench/gguf.py [--llama PYTHON] [--go GO] [--server LLAMA_SERVER] [--base data_samples/small_llm] [--prompts 50] [--tokens 24]` writes results/gguf.json.

The project's Python writes the files (f16, q8_0, and as a control f16 without the rotary divisors), tokens of Korean texts, prompts in the chat form, and what transformers answers greedily in fp32 with the weights rounded as in the file. PYTHON is any
Python that has llama_cpp (`pip install llama-cpp-python`, in an environment of its own; this one by default): it reads them, splits the same texts, answers the same prompts on one thread, and gives the prompts their form with the template in
the file and with the guess that llama.cpp makes without `--jinja`. With `--go` the Modelfile's template is rendered by Go's own text/template too, which is what Ollama uses; with `--server` llama-server is
started with the line of `export.llama_line`, shows its prompts and answers the first of the conversations.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [p for p in sys.path if Path(p or '.').resolve() != ROOT/'bench']  # this file has the name of the package gguf
GO = '''package main
import ("bytes"; "encoding/json"; "fmt"; "os"; "text/template")
func main() {
	var asked []struct{ Template string; Values map[string]any }
	if e := json.NewDecoder(os.Stdin).Decode(&asked); e != nil { panic(e) }
	var said []string
	for _, a := range asked {
		var b bytes.Buffer
		if e := template.Must(template.New("").Parse(a.Template)).Execute(&b, a.Values); e != nil { panic(e) }
		said = append(said, b.String())
	}
	j, _ := json.Marshal(said)
	fmt.Println(string(j))
}
'''


def write(a, folder):
    "Files, tasks and what transformers makes of them, in `folder`."
    from unittest import mock
    import numpy as np
    import torch
    from medvlm.batches import chat_text
    from medvlm.data import text_of
    from medvlm.export import TALKS, chat_form, round_as, source_tokenizer, to_gguf
    from medvlm.merge import BEFORE, trace
    from medvlm.models import load
    from medvlm.sources import QaTree
    from medvlm.train import question_of
    torch.set_num_threads(1)
    rows, tok = list(QaTree(ROOT/'data_samples'/'qa'))[:a.prompts], source_tokenizer(a.base)
    ids = lambda text: tok(text, add_special_tokens=False)['input_ids']
    for kind in ('f16', 'q8_0'): to_gguf(a.base, folder/f'{kind}.gguf', kind)
    with mock.patch('medvlm.export.rope_factors', lambda config: None): to_gguf(a.base, folder/'no_divisors.gguf')
    texts = [text_of(r['messages'][-1]) for r in rows] + ['혈당 126 mg/dL, HbA1c 7.2 %, 혈압 120/80', '렉쇽뷁\n\t🙂  (2024-03-01)', 'ㄱㄴㄷ 한글\u200b자모']
    prompts = [chat_text(tok, question_of(r), ask=True) for r in rows]
    answers = {}
    for kind in ('f16', 'q8_0'):
        model = round_as(load(str(a.base), dtype=torch.float32, place='cpu')[0], folder/f'{kind}.gguf')
        found = [trace(model, tok, r, a.tokens) for r in rows]
        answers[kind] = [said for said, _ in found]
        np.savez(folder/f'{kind}.npz', **{str(i): logits[-len(said) - 1:-1].float().numpy() for i, (said, logits) in enumerate(found)})
    form = [tok.apply_chat_template(t, tokenize=False, add_generation_prompt=True) for t in TALKS]
    marks = dict(eos=tok.eos_token_id, bos=tok.bos_token_id, pad=tok.pad_token_id)
    json.dump(dict(texts=texts, ids=list(map(ids, texts)), prompts=prompts, prompt_ids=list(map(ids, prompts)), answers=answers, talks=TALKS, form=form, go=chat_form(tok)['template'], marks=marks, tokens=a.tokens), open(folder/'tasks.json', 'w'))


def read(folder):
    "What llama.cpp makes of the tasks in `folder`; runs without the project."
    try: import llama_cpp
    except ImportError: raise SystemExit(f'{sys.executable} has no llama_cpp; needed is a Python that has; install it with `pip install llama-cpp-python` in an environment of its own and name its Python with --llama') from None
    import ctypes
    import numpy as np
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter
    t, out = json.load(open(folder/'tasks.json')), dict(llama_cpp=llama_cpp.__version__)
    longest = max(map(len, t['prompt_ids'])) + t['tokens'] + 8
    for name in ('f16', 'q8_0', 'no_divisors'):
        m, kind = llama_cpp.Llama(str(folder/f'{name}.gguf'), n_ctx=longest, n_gpu_layers=0, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False), name if name == 'q8_0' else 'f16'
        ids = lambda text: m.tokenize(text.encode(), add_bos=False, special=True)
        want, same, gaps, margins = np.load(folder/f'{kind}.npz'), [], [], []
        for i, (prompt, said) in enumerate(zip(t['prompt_ids'], t['answers'][kind])):
            m.reset(); m.eval(prompt + said[:-1])
            x = np.array(m.scores[len(prompt) - 1:len(prompt) - 1 + len(said)])
            gaps.append(float(np.abs(x - want[str(i)]).max()/want[str(i)].std()))
            m.reset(); m.eval(prompt)
            own = []
            while len(own) < t['tokens'] and (not own or own[-1] != t['marks']['eos']):
                own.append(int(np.argmax(m.scores[m.n_tokens - 1])))
                m.eval(own[-1:])
            same.append(own == said)
            if k := next((k + 1 for k, (x, y) in enumerate(zip(said, own)) if x != y), None): margins.append(float((want[str(i)][k - 1][said[k - 1]] - want[str(i)][k - 1][own[k - 1]])/want[str(i)].std()))
        out[name] = dict(same_tokens=[ids(x) == y for x, y in zip(t['texts'], t['ids'])], same_prompt_tokens=[ids(x) == y for x, y in zip(t['prompts'], t['prompt_ids'])], same_text=same, gap=max(gaps), mean_gap=float(np.mean(gaps)),
                         margins=margins, eos=m.token_eos() == t['marks']['eos'], bos=m.token_bos() == t['marks']['bos'], ends=bool(llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(m.model), t['marks']['eos'])))
        if name == 'f16':
            template = m.metadata['tokenizer.chat_template']
            turn = Jinja2ChatFormatter(template=template, eos_token='', bos_token='', add_generation_prompt=True)
            out['template_in_file'] = [turn(messages=talk).prompt == want for talk, want in zip(t['talks'], t['form'])]
            def guess(talk):
                chat, room = (llama_cpp.llama_chat_message*len(talk))(*[llama_cpp.llama_chat_message(x['role'].encode(), x['content'].encode()) for x in talk]), ctypes.create_string_buffer(1 << 14)
                n = llama_cpp.llama_chat_apply_template(template.encode(), chat, len(talk), True, room, len(room))
                return room.raw[:max(0, n)].decode()
            out['guess_without_jinja'] = [guess(talk) == want for talk, want in zip(t['talks'], t['form'])]
        m.close()
    json.dump(out, open(folder/'read.json', 'w'))


def render(go, folder):
    "Whether Go's text/template writes the prompts of the Modelfile's template as the tokenizer does."
    t = json.load(open(folder/'tasks.json'))
    (folder/'render.go').write_text(GO)
    system = lambda talk: '\n\n'.join(x['content'] for x in talk if x['role'] == 'system')
    asked = [dict(Template=t['go'], Values=dict(System=system(talk), Messages=[dict(Role=x['role'], Content=x['content']) for x in talk])) for talk in t['talks']]
    said = json.loads(subprocess.run([go, 'run', str(folder/'render.go')], input=json.dumps(asked), capture_output=True, text=True, check=True).stdout)
    return [x == y for x, y in zip(said, t['form'])]


def serve(program, folder):
    "Whether llama-server, started as `llama_line` says, writes the same prompts, and whether it ends an answer."
    import shlex, socket, time, urllib.request
    from medvlm.export import llama_line
    t, line = json.load(open(folder/'tasks.json')), shlex.split(llama_line(folder/'f16.gguf'))
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = str(s.getsockname()[1])
    line[0], line[line.index('--port') + 1] = program, port
    def post(path, **body):
        asked = urllib.request.Request(f'http://127.0.0.1:{port}/{path}', json.dumps(body).encode() if body else None, {'Content-Type': 'application/json'})
        return json.load(urllib.request.urlopen(asked, timeout=120))
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            try: post('health'); break
            except OSError: time.sleep(1)
        prompts = [post('apply-template', messages=talk)['prompt'] for talk in t['talks']]
        answer = post('v1/chat/completions', messages=t['talks'][0], max_tokens=t['tokens'])['choices'][0]
    finally: process.terminate(); process.wait()
    return [x == y for x, y in zip(prompts, t['form'])], dict(finish=answer['finish_reason'], characters=len(answer['message']['content']))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--llama', default=sys.executable, help='Python that has llama_cpp')
    p.add_argument('--go', help='the program `go`')
    p.add_argument('--server', help='the program `llama-server`')
    p.add_argument('--base', type=Path, default=ROOT/'data_samples'/'small_llm')
    p.add_argument('--prompts', type=int, default=50)
    p.add_argument('--tokens', type=int, default=24)
    p.add_argument('--read', type=Path, help=argparse.SUPPRESS)
    p.add_argument('--out', type=Path, default=ROOT/'bench'/'results'/'gguf.json')
    a = p.parse_args()
    if a.read: return read(a.read)
    from medvlm.core import commit, load_json, machine, save_json, versions
    from medvlm.models import base_hash
    from medvlm.stats import share
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        if subprocess.run([a.llama, '-c', 'import llama_cpp'], capture_output=True).returncode: raise SystemExit(f'{a.llama} has no llama_cpp; needed is a Python that has; install it with `pip install llama-cpp-python` in an environment of its own and name its Python with --llama')
        write(a, folder)
        subprocess.run([a.llama, __file__, '--read', str(folder)], check=True)
        found = load_json(folder/'read.json')
        if a.go: found['go_template'] = render(a.go, folder)
        if a.server: found['server'], found['server_answer'] = serve(a.server, folder)
    shares = lambda x: {k: vars(share(v)) if isinstance(v, list) and v and isinstance(v[0], bool) else shares(v) if isinstance(v, dict) else v for k, v in x.items()}
    result = shares(found)
    save_json(dict(base=a.base.name, base_hash=base_hash(a.base), prompts=a.prompts, new_tokens=a.tokens, **result, versions=versions(), machine=machine(), commit=commit()), a.out)
    for name in ('f16', 'q8_0', 'no_divisors'):
        r = found[name]
        print(f"{name:12} same tokens {share(r['same_tokens'])}, of prompts {share(r['same_prompt_tokens'])}; same greedy text {share(r['same_text'])}; logits differ by at most {r['gap']:.1e} of their spread (mean of prompts {r['mean_gap']:.1e}); "
              f"widest choice at a parting {max(r['margins'], default=0):.1e}; end of turn known {r['eos'] and r['ends']}")
    for name in ('template_in_file', 'guess_without_jinja', 'go_template', 'server'):
        if name in found: print(f'{name:20} same prompt {share(found[name])}')


if __name__ == '__main__': main()
