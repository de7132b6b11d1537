"Package metadata, all of it read from settings.ini."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
LICENSES = {'apache2': 'Apache-2.0'}
STATUS = {'1': 'Planning', '2': 'Pre-Alpha', '3': 'Alpha', '4': 'Beta', '5': 'Production/Stable'}
EXTRAS = ('gpu', 'serve', 'web', 'track', 'dicom', 'dev')
DATA = ['**/*.typ', '**/*.json', '**/*.toml', '**/*.txt', '**/*.yaml']

ini = ConfigParser(delimiters=['='])
ini.read(ROOT / 'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
readme = ROOT / 'README.md'
pythons = [f'3.{minor}' for minor in range(int(cfg['min_python'].split('.')[1]), 15)]

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else cfg['description'],
    long_description_content_type='text/markdown',
    keywords=cfg['keywords'].split(),
    author=cfg['author'],
    license=LICENSES[cfg['license']],
    url=cfg['git_url'],
    project_urls={'Source': cfg['git_url'], 'Documentation': cfg['doc_host'] + cfg['doc_baseurl']},
    classifiers=[
        f"Development Status :: {cfg['status']} - {STATUS[cfg['status']]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        *(f'Programming Language :: Python :: {python}' for python in pythons),
    ],
    python_requires='>=' + cfg['min_python'],
    packages=find_packages(include=['medvlm', 'medvlm.*']),
    package_data={'medvlm': DATA},
    install_requires=cfg['requirements'].split(),
    extras_require={extra: cfg[f'{extra}_requirements'].split() for extra in EXTRAS},
    entry_points={
        'console_scripts': cfg['console_scripts'].split(),
        'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
