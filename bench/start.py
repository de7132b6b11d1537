"Seconds until the package is imported and until `medvlm --help` has answered: `python bench/start.py`. Writes bench/results/start.json; an empty Python process stands beside them."
import statistics, subprocess, sys, time
from medvlm.core import commit, machine, save_json, versions

COMMANDS = {'python -c pass': [sys.executable, '-c', 'pass'], 'import medvlm': [sys.executable, '-c', 'import medvlm'], 'medvlm --help': [sys.executable, '-c', "from medvlm.cli import main; main(['--help'])"],
            'import medvlm.qwen_ocr': [sys.executable, '-c', 'import medvlm.qwen_ocr']}

def seconds(command, runs=7):
    "Wall-clock seconds of `runs` calls, after one that is not counted."
    out = []
    for _ in range(runs + 1):
        t = time.perf_counter(); subprocess.run(command, check=True, capture_output=True); out.append(time.perf_counter() - t)
    return out[1:]

if __name__ == '__main__':
    rows = {k: seconds(v) for k, v in COMMANDS.items()}
    for k, v in rows.items(): print(f'{k:24} median {statistics.median(v):.3f} s  ({min(v):.3f} to {max(v):.3f})')
    save_json(dict(rows=rows, versions=versions(), machine=machine(), commit=commit()), 'bench/results/start.json')
