"""How well a plan foretells the memory of a real step: `python bench/planner.py`.

Twelve settings of a Qwen2.5-VL and of a Llama of 24 to 146 million parameters, random weights, one optimizer step and one pass on the processor. Each setting is planned on torch's `meta` device and then run for real: once under the
watcher and the profiler (bytes of tensors; bytes from the allocator), and in another process once bare, for the growth of the process (VmHWM over what it held before). Writes bench/results/planner.json.
"""
import ctypes
import gc
import json
import subprocess
import sys
from pathlib import Path

from medvlm.core import commit, machine, save_json, versions
from medvlm.models import Part, Tuning

F, L, OFF = Part('full', 1e-4), Part('lora', 1e-4, targets=('q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj')), Part()
PAGE = dict(tokens=400, answers=96, grid=(24, 40), mixed=False)
TEXT = dict(tokens=512, answers=128, mixed=False)
CASES = {
    'Qwen2.5-VL, both towers, batch 1': ('vlm', Tuning(F, F, L), dict(PAGE, batch=1, checkpointing=False)),
    'Qwen2.5-VL, both towers, batch 2': ('vlm', Tuning(F, F, L), dict(PAGE, batch=2, checkpointing=False)),
    'Qwen2.5-VL, checkpointing': ('vlm', Tuning(F, F, L), dict(PAGE, batch=2)),
    'Qwen2.5-VL, bf16': ('vlm', Tuning(F, F, L), dict(PAGE, batch=2, dtype='bf16', mixed=True)),
    'Qwen2.5-VL, fp32 mixed': ('vlm', Tuning(F, F, L), dict(PAGE, batch=2, mixed=True)),
    'Qwen2.5-VL, all weights': ('vlm', Tuning(F, F, F), dict(PAGE, batch=2, kept=True)),
    'Qwen2.5-VL, logits everywhere': ('vlm', Tuning(OFF, OFF, L), dict(PAGE, batch=2, answers=0)),
    'Llama, LoRA': ('text', Tuning(OFF, OFF, L), dict(TEXT, batch=2, checkpointing=False)),
    'Llama, checkpointing': ('text', Tuning(OFF, OFF, L), dict(TEXT, batch=2)),
    'Llama, 256 tokens': ('text', Tuning(OFF, OFF, L), dict(TEXT, tokens=256, batch=2, checkpointing=False)),
    'larger Llama, checkpointing': ('large', Tuning(OFF, OFF, L), dict(TEXT, batch=1)),
    'larger Llama, fp32 mixed': ('large', Tuning(OFF, OFF, L), dict(TEXT, batch=1, checkpointing=False, mixed=True))}


def config(kind):
    "The configuration of a model that a processor can train."
    from transformers import LlamaConfig, Qwen2_5_VLConfig
    from medvlm.planner import qwen25
    if kind == 'text': return LlamaConfig(vocab_size=8000, hidden_size=512, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=2)
    if kind == 'large': return LlamaConfig(vocab_size=16000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=10, num_attention_heads=16, num_key_value_heads=4)
    c = qwen25(512, 4, 8, 2, 1536, 8000, True)
    c['vision_config'] |= dict(depth=4, hidden_size=320, intermediate_size=864, num_heads=5, fullatt_block_indexes=[3])
    c['text_config'] |= dict(bos_token_id=1, eos_token_id=2, rope_parameters=dict(rope_type='default', rope_theta=1e6, mrope_section=[8, 12, 12]))
    return Qwen2_5_VLConfig(**{**c, 'image_token_id': 7990, 'video_token_id': 7991, 'vision_start_token_id': 7992, 'vision_end_token_id': 7993})


def status(key):
    "A line of this process's /proc status, in bytes."
    return next(int(l.split()[1])*1024 for l in Path('/proc/self/status').read_text().splitlines() if l.startswith(key))


def resident(case):
    "Growth of this process over a bare run, in bytes, after a small run that loads the libraries."
    from medvlm.planner import random_model, trace
    kind, tuning, step = CASES[case]
    step = dict(step); dtype = step.pop('dtype', 'fp32')
    trace(random_model(config(kind), layers=1, dtype=dtype, place='cpu'), tuning, **{**step, 'batch': 1, 'tokens': 20, 'answers': 4, 'grid': (4, 4) if step.get('grid') else None})
    gc.collect(); ctypes.CDLL(None).malloc_trim(0)  # what the small run still holds is not the step's
    before = status('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # sets VmHWM back to what is held now
    trace(random_model(config(kind), dtype=dtype, place='cpu'), tuning, **step)
    return dict(resident=status('VmHWM') - before)


def counted(case):
    "Peaks of a case as planned, watched and allocated."
    from medvlm.planner import compare, random_model
    kind, tuning, step = CASES[case]
    return dict(case=case, parameters=sum(p.numel() for p in random_model(config(kind)).parameters()), **compare(config(kind), tuning, **step))


def main(out='bench/results/planner.json'):
    "Counts all cases in one process, weighs them in another, and keeps the figures."
    large = 'MALLOC_MMAP_THRESHOLD_=65536'  # glibc then gives blocks above 64 kB back at once, so that the process holds what is allocated
    compiled = 'ONEDNN_PRIMITIVE_CACHE_CAPACITY=0'  # and oneDNN keeps no compiled products, 16 MB in bf16, which are no part of a plan
    asked = [subprocess.Popen(['env', large, compiled, sys.executable, __file__, what], stdout=subprocess.PIPE, text=True) for what in ('counted', 'resident')]
    answers = [[json.loads(l) for l in p.communicate()[0].splitlines() if l.startswith('{')] for p in asked]
    cases = [{**a, **b} for a, b in zip(*answers, strict=True)]
    for c in cases: print(f"{c['case']:36} planned {c['planned']/1e6:7.1f} MB, allocated {c['allocated']/1e6:7.1f} ({c['error']:+.2%}), resident {c['resident']/1e6:7.1f}")
    save_json(dict(cases=cases, versions=versions(), machine=machine(), commit=commit()), out)


if __name__ == '__main__':
    if sys.argv[1:] in (['counted'], ['resident']):
        for case in CASES: print(json.dumps(globals()[sys.argv[1]](case)), flush=True)
    else: main(*sys.argv[1:])
