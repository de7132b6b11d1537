#!/usr/bin/env python3
"""Test every notebook with `nbdev_test`, each in a process of its own, and count the completions.

`nbdev_test` exits with 0 when it finds no notebook, and does not run one whose front matter or kernel says so. Here a notebook passes only
when it was completed. One process each keeps modules, settings and memory of one notebook from reaching the next.
"""
import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def test(path, flags, threads):
    "Test one notebook; print its report; return whether it ran to its end without an error."
    start = time.monotonic()
    command = [str(Path(sys.executable).with_name('nbdev_test')), '--path', str(path), '--do_print', '--flags', flags]
    env = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, encoding='utf-8', env=env)
    completed = sum(line.startswith('- Completed') for line in done.stdout.splitlines()) == 1
    passed = completed and done.returncode == 0
    result = 'passed' if passed else 'failed' if done.returncode else 'was not run'
    report = f'{path.name}: {result} ({time.monotonic() - start:.0f} s)\n'
    print(report if passed else report + done.stdout + done.stderr, end='', flush=True)
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--flags', default='', help='flags of tst_flags whose cells run all the same, separated by spaces')
    parser.add_argument('--jobs', type=int, default=min(2, os.cpu_count() or 1), help='notebooks at a time (2, or 1 on one core)')
    args = parser.parse_args()
    paths = sorted(Path('nbs').glob('*.ipynb'))
    if not paths: sys.exit('No notebooks in nbs/: run this in the root of the project.')
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    with ThreadPoolExecutor(args.jobs) as pool: passed = list(pool.map(lambda path: test(path, args.flags, threads), paths))
    print(f'{sum(passed)} of {len(paths)} notebooks completed and passed')
    sys.exit(not all(passed))


if __name__ == '__main__': main()
