"Films as hospitals export them, DICOM with its header, and folders in which a class is bare, alone or oddly named."
import logging
import sys
import unicodedata
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from medvlm.checks import make_set
from medvlm.core import image_digest
from medvlm.data import Quarantine, is_dicom, iter_dataset, load_splits, open_image, peek_image, read_llava
from medvlm.sources import Files, read_xray, save_llava_json

SAMPLES = Path(__file__).parents[1] / 'data_samples/lung'
NAME, NUMBER = 'Kim^Haneul', '19530115-7'
HOW = 'explicit', 'implicit', 'big'
SYNTAX = dict(explicit=uid.ExplicitVRLittleEndian, implicit=uid.ImplicitVRLittleEndian, big=uid.ExplicitVRBigEndian)


def noise(seed=0, size=(32, 24), bits=12):
    "Stored values of a film, all `bits` of them in use."
    grey = np.random.default_rng(seed).integers(0, 2**bits, size[::-1], dtype='uint16')
    grey[0, :2] = 0, 2**bits - 1
    return grey


def png(grey):
    Image.fromarray(grey).save(b := BytesIO(), 'PNG')
    return b.getvalue()


def header(pixels, how='explicit', **entries):
    "A film of a patient with a name; `entries` are added or, where None, left out."
    ds, bits, colour = pydicom.Dataset(), 8 * pixels.dtype.itemsize, pixels.ndim == 3
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = SYNTAX.get(how, how)
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, uid.generate_uid()
    made = dict(SpecificCharacterSet='ISO_IR 192', SOPInstanceUID=ds.file_meta.MediaStorageSOPInstanceUID, PatientName=NAME, PatientID=NUMBER, PatientBirthDate='19530115', Rows=pixels.shape[0], Columns=pixels.shape[1],
                SamplesPerPixel=3 if colour else 1, BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=int(pixels.dtype.kind == 'i'), PhotometricInterpretation='RGB' if colour else 'MONOCHROME2',
                PixelData=pixels.astype(pixels.dtype.newbyteorder('>' if how == 'big' else '<')).tobytes())
    if colour: made['PlanarConfiguration'] = 0
    for k, v in {**made, **entries}.items():
        if v is not None: setattr(ds, k, v)
    return ds


def saved(ds):
    ds.save_as(b := BytesIO(), enforce_file_format=True)
    return b.getvalue()


def dicom(pixels, how='explicit', **entries):
    return saved(header(pixels, how, **entries))


def shown(x):
    "The grey values of a film as `open_image` gives it."
    im = open_image(x)
    assert im.mode == 'RGB'
    grey = np.asarray(im)
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 0] == grey[..., 2]).all()
    return grey[..., 0]


def refused(x):
    "Why `x` cannot be opened; the same from the first look."
    with pytest.raises(ValueError, match='^unreadable image: ') as e: open_image(x)
    with pytest.raises(ValueError, match='^unreadable image: '): peek_image(x if isinstance(x, bytes) else Path(x).read_bytes())
    assert not any(s in str(e.value) for s in (NAME, 'Haneul', NUMBER, '19530115'))
    return str(e.value)


@pytest.fixture
def tree(tmp_path):
    "Writes {folder/name: content} below a folder and returns it."
    def write(files):
        for name, content in files.items():
            p = tmp_path / 'tree' / name
            if content is None: p.mkdir(parents=True, exist_ok=True); continue
            p.parent.mkdir(parents=True, exist_ok=True); p.write_bytes(content)
        return tmp_path / 'tree'
    return write


# What is shown

@pytest.mark.parametrize('how', HOW)
def test_12_bits_without_a_window(how):
    grey = noise()
    assert abs(shown(dicom(grey, how, BitsStored=12, HighBit=11)) - grey / 4095 * 255).max() <= .5


def test_16_bits_as_a_dicom_and_as_a_png():
    grey = noise(bits=16)
    a, b = shown(dicom(grey)), shown(png(grey))
    assert abs(a.astype(int) - b).max() <= 1 and (a.min(), a.max()) == (b.min(), b.max()) == (0, 255) and len(np.unique(a)) > 200


def test_8_bits_keep_their_values():
    grey = noise(bits=8).astype('uint8')
    assert (shown(dicom(grey)) == grey).all()


def test_monochrome1_is_turned():
    grey = noise()
    assert (shown(dicom(4095 - grey, PhotometricInterpretation='MONOCHROME1')) == shown(dicom(grey))).all()


@pytest.mark.parametrize('photometric', ['MONOCHROME1', 'MONOCHROME2'])
def test_window(photometric):
    grey = noise()
    expected = ((grey - 1000.) / 1000).clip(0, 1) * 255
    if photometric == 'MONOCHROME1': expected = 255 - expected
    assert abs(shown(dicom(grey, BitsStored=12, HighBit=11, WindowCenter=[1500.5, 40], WindowWidth=[1001, 80], PhotometricInterpretation=photometric)) - expected).max() <= .5


def test_window_of_width_0_is_none():
    assert (shown(dicom(noise(), WindowCenter=0, WindowWidth=0)) == shown(dicom(noise()))).all()


@pytest.mark.parametrize('how', HOW)
def test_rescaled_values_are_windowed(how):
    grey = noise().astype('int16') - 2048
    expected = ((grey * 2. - 1000 + 500) / 1000).clip(0, 1) * 255
    data = dicom(grey, how, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=.5, WindowWidth=1001)
    assert abs(shown(data) - expected).max() <= .5


def test_slope_below_zero():
    grey = noise()
    fall = dict(BitsStored=12, HighBit=11, RescaleSlope=-1, RescaleIntercept=4095)
    assert abs(shown(dicom(grey, **fall)) - (4095 - grey) / 4095 * 255).max() <= .5
    assert abs(shown(dicom(grey, **fall, WindowCenter=2048, WindowWidth=1001)) - ((4095. - grey - 1547.5) / 1000).clip(0, 1) * 255).max() <= .5


def lut(first, values, bits, signed=False):
    item = pydicom.Dataset()
    item.add_new('LUTDescriptor', 'SS' if signed else 'US', [len(values), first, bits]); item.add_new('LUTData', 'US', values)
    return [item]


@pytest.mark.parametrize('how', HOW)
def test_tables(how):
    grey = noise()
    table = ((np.arange(2000) / 1999)**2 * 1023).astype(int)
    expected = table[(grey.astype(int) - 1000).clip(0, 1999)] / 1023 * 255
    assert abs(shown(dicom(grey, how, BitsStored=12, HighBit=11, VOILUTSequence=lut(1000, table.tolist(), 10), WindowCenter=1, WindowWidth=2)) - expected).max() <= .5
    once = dicom(grey, how, BitsStored=12, HighBit=11, ModalityLUTSequence=lut(0, (4095 - np.arange(4096)).tolist(), 16))
    assert abs(shown(once) - (4095 - grey) / 4095 * 255).max() <= .5


@pytest.mark.parametrize('how', HOW)
def test_padding_is_black_and_does_not_count(how):
    grey = noise().astype('int16') - 2048
    framed = np.pad(grey, 3, constant_values=-30000)
    for photometric in ('MONOCHROME1', 'MONOCHROME2'):
        some = shown(dicom(framed, how, PhotometricInterpretation=photometric, PixelPaddingValue=-30000))
        assert (some[3:-3, 3:-3] == shown(dicom(grey, how, PhotometricInterpretation=photometric))).all() and not some[:3].any()


def test_bits_above_those_stored_are_not_seen():
    grey = noise()
    assert (shown(dicom(grey | 0x8000, BitsStored=12, HighBit=11)) == shown(dicom(grey, BitsStored=12, HighBit=11))).all()


def test_colours():
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype='uint8')
    assert (np.asarray(open_image(dicom(pixels))) == pixels).all()
    ybr = np.full((6, 8, 3), (76, 85, 255), 'uint8')
    assert np.abs(np.asarray(open_image(dicom(ybr, PhotometricInterpretation='YBR_FULL'))).astype(int) - (254, 0, 0)).max() <= 2


@pytest.mark.filterwarnings('ignore')
def test_compressed():
    ds = header(noise(bits=16)); ds.compress(uid.RLELossless)
    assert (shown(saved(ds)) == shown(dicom(noise(bits=16)))).all()
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype('uint8')
    for syntax, kind, far in ((uid.JPEGBaseline8Bit, 'JPEG', 4), (uid.JPEG2000Lossless, 'JPEG2000', 0)):
        Image.fromarray(smooth).save(b := BytesIO(), kind, **(dict(quality=95) if kind == 'JPEG' else dict(no_jp2=True)))
        data = dicom(smooth, syntax, PixelData=encapsulate([b.getvalue()]), WindowCenter=128, WindowWidth=256, VOILUTFunction='LINEAR_EXACT')
        assert abs(shown(data).astype(int) - smooth).max() <= far + 1
        assert 'cut off' in refused(data[:-len(b.getvalue()) // 2])
        assert 'damaged DICOM' in refused(dicom(smooth, syntax, PixelData=encapsulate([b.getvalue()[:60]])))


def test_by_path_by_content_and_in_a_zip(tmp_path):
    content = dicom(noise())
    for name in ('a.dcm', 'a.dicom', 'IM0001', 'a.png'):
        (tmp_path / name).write_bytes(content)
        assert (shown(str(tmp_path / name)) == shown(content)).all() and (shown(tmp_path / name) == shown(content)).all()
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as z: z.write(tmp_path / 'a.dcm', 'a.dcm')
    assert (shown(f'zip://a.dcm::{tmp_path}/x.zip') == shown(content)).all()
    assert peek_image(content) == ((32, 24), 'L')


# What is refused

FAULTS = dict(
    frames=(lambda: dicom(np.tile(noise(), (3, 1)), Rows=24, NumberOfFrames=3), '3 pictures in one file; allowed is 1; export the one'),
    uncounted=(lambda: dicom(np.tile(noise(), (3, 1)), Rows=24), '3 pictures in one file; allowed is 1; export the one'),
    cut=(lambda: dicom(noise())[:-400], 'damaged DICOM'),
    header_cut=(lambda: (x := dicom(noise()))[:x.index(b'\xe0\x7f\x10\0')], 'DICOM without pixels; it is a report or an index, or was cut off'),
    mark_only=(lambda: bytes(128) + b'DICM', 'export it'),
    report=(lambda: dicom(noise(), PixelData=None, Rows=None, Columns=None), 'DICOM without pixels'),
    no_pixels=(lambda: dicom(noise(), PixelData=None), 'DICOM without pixels'),
    no_syntax=(lambda: dicom(noise()).replace(b'\x02\0\x10\0UI', b'\x02\0\x11\0UI'), 'no decoder is here; export it uncompressed'),
    video=(lambda: dicom(noise(), uid.MPEG4HP41, PixelData=encapsulate([b'x' * 100])), 'no decoder is here; export it uncompressed'),
    palette=(lambda: dicom(noise(), PhotometricInterpretation='PALETTE COLOR'), 'allowed are MONOCHROME1, MONOCHROME2, RGB'),
    dose=(lambda: dicom(noise().astype('uint32')), '32 bits a pixel in MONOCHROME2; allowed are 1, 8, 16'),
    deep_colour=(lambda: dicom(np.zeros((4, 4, 3), 'uint16')), '16 bits a pixel in RGB; allowed are 8'),
    empty_film=(lambda: dicom(noise(), Rows=0), 'DICOM without pixels'),
    odd_frames=(lambda: dicom(noise(), NumberOfFrames='1').replace(b'IS\x02\x001 ', b'IS\x02\0x '), 'damaged DICOM'),
    random=(lambda: bytes(128) + b'DICM' + np.random.default_rng(0).bytes(5000), 'export it'),
)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('what', FAULTS)
def test_refusals_name_the_fault_and_the_remedy(what, tmp_path):
    make, why = FAULTS[what]
    (tmp_path / 'film.dcm').write_bytes(make())
    assert why in refused(tmp_path / 'film.dcm') and 'unreadable image: film.dcm: ' in refused(tmp_path / 'film.dcm')
    assert why in refused(make())


@pytest.mark.parametrize('syntax', [uid.JPEGLosslessSV1, uid.JPEGLSLossless])
def test_packed_without_a_decoder(syntax, monkeypatch):
    monkeypatch.setattr(pydicom.pixels.get_decoder(syntax), '_available', {})
    why = refused(dicom(noise(), syntax, PixelData=encapsulate([b'x' * 100])))
    assert syntax.name in why and 'install pylibjpeg' in why


def test_size_and_frames_are_checked_before_pixels_are_made(monkeypatch):
    monkeypatch.setattr(pydicom.pixels, 'pixel_array', lambda *_: pytest.fail('pixels were decoded'))
    assert 'more than 100 million pixels' in refused(dicom(noise(), Rows=60_000, Columns=60_000))
    assert 'more than 100 million pixels' in refused(dicom(noise(), Rows=10_001, Columns=10_000))
    assert '900 pictures in one file' in refused(dicom(noise(), NumberOfFrames=900))


def test_deflated_file_is_not_unpacked(monkeypatch):
    import zlib
    data = dicom(np.zeros((2000, 2000), 'uint16'), uid.DeflatedExplicitVRLittleEndian)
    assert len(data) < 50_000
    monkeypatch.setattr(zlib, 'decompress', lambda *_: pytest.fail('unpacked'))
    assert 'Deflated' in refused(data)


def test_without_pydicom(tree, monkeypatch):
    root = tree({'Normal/1_0.png': png(noise(1)), 'Normal/2_0.dcm': dicom(noise(2))})
    monkeypatch.setitem(sys.modules, 'pydicom', None)
    assert "unreadable image: 2_0.dcm: DICOM needs the package pydicom; install it with pip install 'medvlm[dicom]'" == refused(root / 'Normal/2_0.dcm')
    rows = read_xray(root, classes=None, quarantine=(q := Quarantine()))
    assert [r['id'] for r in rows] == ['Normal/1_0.png'] and q[0]['file'] == 'Normal/2_0.dcm' and "pip install 'medvlm[dicom]'" in q[0]['reason']


def test_pydicom_is_loaded_only_for_dicom():
    import subprocess
    code = f"import sys; from medvlm.data import open_image; open_image({str(next(SAMPLES.rglob('*.png')))!r}); sys.exit('pydicom' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


# Who is on it

def everything(folder):
    return b''.join(p.read_bytes() for p in Path(folder).rglob('*') if p.is_file())


def test_name_of_the_patient_goes_nowhere(tree, tmp_path, caplog):
    good, twin = header(noise(1)), header(noise(1))
    hurt = dicom(noise(3))[:-300]
    root = tree({'Normal/1_0.dcm': saved(good), 'Normal/2_0.dcm': saved(twin), 'Covid 19/3_0.dcm': dicom(noise(2)), 'Covid 19/4_0.dcm': hurt, 'Covid 19/5_0.dcm': dicom(noise(4), PixelData=None), 'Covid 19/6_0.dcm': dicom(noise(5))[:420]})
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        rows = read_xray(root, classes=None, quarantine=(q := Quarantine()))
        make_set(rows, tmp_path / 'set', (1.,), quarantine=q)
        save_llava_json(rows, tmp_path / 'out/rows.json')
        back = [*iter_dataset(load_splits(tmp_path / 'set')['train'])]
    assert len(rows) == 3 and q.summary()['unreadable image'] == 3
    # the same pixels under another header are one film
    assert [n['reason'].split(':')[0] for n in q.notes if 'same image' in n['reason']] == ['same image'] and len({r['group'] for r in rows if r['label'] == 'Normal'}) == 1
    words = ' '.join([str(rows), str(q), str(q.notes), caplog.text, *(str(w.message) for w in said)]).encode() + everything(tmp_path / 'set') + everything(tmp_path / 'out')
    assert NAME.encode() in everything(root)
    for secret in (NAME, 'Haneul', NUMBER, '19530115'): assert secret.encode() not in words
    assert all(not is_dicom(x) for r in back for x in r['images']) and {r['id'] for r in back} == {r['id'] for r in rows}
    assert all(r['meta']['sha256'] == [image_digest(x)[:16] for x in r['images']] for r in back) and [r['meta']['sha256'] for r in rows] == [r['meta']['sha256'] for r in back]
    opened = {r['id']: shown(r['images'][0]) for r in back}
    assert (opened['Covid 19/3_0.dcm'] == shown(dicom(noise(2)))).all()


def test_patient_id_is_no_group(tree):
    rows = read_xray(tree({f'Normal/{n}_0.dcm': dicom(noise(n)) for n in (7, 8)}), classes=None)
    assert [r['group'] for r in rows] == ['patient 7', 'patient 8']


def test_only_what_shows_the_picture_is_parsed(monkeypatch):
    seen, read = [], pydicom.dcmread
    def spy(*args, **kw): seen.append(ds := read(*args, **kw)); return ds
    monkeypatch.setattr(pydicom, 'dcmread', spy); monkeypatch.setattr(pydicom.filereader, 'dcmread', spy)
    shown(dicom(noise()))
    assert len(seen) == 2 and all('PatientName' not in ds and 'PatientID' not in ds for ds in seen)


def test_llava_rows_of_dicom(tree, tmp_path):
    root = tree({'images/1.dcm': dicom(noise(1)), 'images/2.dcm': dicom(noise(2))[:-9]})
    talk = '[{"from": "human", "value": "<image>\\n?"}, {"from": "gpt", "value": "Normal"}]'
    (root / 'rows.json').write_text('[' + ', '.join(f'{{"id": "{n}", "image": "{n}.dcm", "conversations": {talk}}}' for n in '12') + ']')
    rows = read_llava(root / 'rows.json', root / 'images', q := Quarantine())
    assert [r['id'] for r in rows] == ['1'] and q.summary() == {'unreadable image': 1} and '2.dcm: damaged DICOM' in q[0]['reason']


# Bare classes, small ones and odd names

GOOD = {f'Normal/{i}_0.png': png(noise(i, bits=8).astype('uint8')) for i in (1, 2)}


@pytest.mark.parametrize('classes', [None, {'normal': 'Normal', 'covid': 'Covid 19'}])
@pytest.mark.parametrize('files, why', [({'Covid 19': None}, 'it has no image'), ({'Covid 19/Thumbs.db': b'x'}, 'it has no image'), ({'Covid 19/readme.txt': b'x'}, 'it has no image'),
                                        ({'Covid 19/3_0.png': b'', 'Covid 19/4_0.dcm': b'x'}, 'none of its 2 images can be used')])
def test_class_without_a_film_is_a_line(tree, files, why, classes):
    rows = read_xray(tree({**GOOD, **files}), classes=classes, quarantine=(q := Quarantine()))
    assert [r['label'] for r in rows] == ['Normal'] * 2 and q.summary()['empty class'] == 1
    line, = [x for x in q if x['reason'].startswith('empty class')]
    assert line['file'] == 'Covid 19' and f'folder Covid 19, class Covid 19: {why}; ' in line['reason'] and line['reason'].endswith('one, or remove the folder')


def test_class_lost_to_a_conflict_is_a_line(tree):
    twin = png(noise(9, bits=8).astype('uint8'))
    rows = read_xray(tree({**GOOD, 'Normal/9_0.png': twin, 'Covid/9_0.png': twin}), classes=None, quarantine=(q := Quarantine()))
    assert len(rows) == 2 and q.summary() == {'label conflict': 2, 'empty class': 1} and q[-1]['file'] == 'Covid'


def test_what_is_no_class_gives_no_line(tree):
    root = tree({**{f'cxr/{k}': v for k, v in GOOD.items()}, 'cxr/Pneumonia/7/7_0.png': png(noise(7, bits=8).astype('uint8')), 'cxr/Pneumonia/8': None, 'cxr/left out': None, 'reports.csv': b'file,report\n'})
    read_xray(root, classes={'Normal': 'Normal', 'Pneumonia': 'P', 'left': None}, quarantine=(q := Quarantine()))
    assert not q


def test_only_bare_classes(tree):
    with pytest.raises(ValueError, match='folders are A, B; pass classes.*first reason: empty class: folder A, class A: it has no image'): read_xray(tree({'A': None, 'B': None}), classes=None)


def test_bare_class_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / 'cxr.zip', 'w') as z:
        for name in ('', *'AB'): z.mkdir(f'cxr/{name}')
        for name, content in GOOD.items(): z.writestr(f'cxr/{name}', content)
    rows = read_xray(tmp_path / 'cxr.zip', classes=None, quarantine=(q := Quarantine()))
    assert len(rows) == 2 and [x['file'] for x in q] == ['cxr/cxr/A', 'cxr/cxr/B'] and q.summary() == {'empty class': 2}
    assert Files(tmp_path / 'cxr.zip').empty == ['cxr/cxr/A', 'cxr/cxr/B']


def test_class_of_one_film(tree, tmp_path):
    rows = read_xray(tree({**GOOD, 'Covid/3_0.dcm': dicom(noise(3))}), classes=None, quarantine=(q := Quarantine()))
    assert [r['label'] for r in rows] == ['Covid', 'Normal', 'Normal'] and not q and 'one of Covid, Normal' in str(rows[0]['messages'])
    m = make_set(rows, tmp_path / 'set', (1.,), by='label', quarantine=q)
    assert m['splits']['train']['rows'] == 3 and not q


@pytest.mark.parametrize('form', ['NFC', 'NFD'])
def test_names_with_blanks_and_accents(tree, form):
    names = ['Tórax, alterações', '폐렴 의심', 'Covid 19']
    for i, n in enumerate(names): root = tree({unicodedata.normalize(form, f'{n}/{i}_é.png'): png(noise(i, bits=8).astype('uint8'))})
    tree({unicodedata.normalize(form, 'Épanchement pleural'): None, unicodedata.normalize('NFD' if form == 'NFC' else 'NFC', 'reports.csv'): f'file,report\n폐렴 의심/1_é.png,Said.\n'.encode()})
    rows = read_xray(root, classes=None, quarantine=(q := Quarantine()))
    assert {r['label'] for r in rows} == set(names) and {r['group'] for r in rows} == {'patient 0', 'patient 1', 'patient 2'}
    assert [x['file'] for x in q] == ['Épanchement pleural']
    assert [r['label'] for r in rows if 'Said.' in str(r['messages'])] == ['폐렴 의심']
    assert all(open_image(r['images'][0]).size == (32, 24) for r in rows)


# PNG films

def test_png_film_of_16_bits(tree):
    deep, flat = noise(1, bits=16), noise(2, bits=12)
    rows = read_xray(tree({'Normal/1_0.png': png(deep), 'Normal/2_0.png': png(flat)}), classes=None, quarantine=(q := Quarantine()))
    assert not q and [r['meta']['mode'] for r in rows] == ['I;16', 'I;16']
    assert (shown(rows[0]['images'][0]) == deep >> 8).all() and (shown(rows[1]['images'][0]) == flat >> 4).all()


def test_inverted_film():
    from medvlm.lung import check_films, film_facts
    film = np.asarray(Image.open(sorted(SAMPLES.rglob('*.png'))[0])).astype('uint16') << 4
    flagged, bare = dicom(4080 - film, PhotometricInterpretation='MONOCHROME1'), dicom(4080 - film)
    # with its flag a negative is turned; exported without it, it can only be noticed
    plain = shown(dicom(film)).astype(int)
    assert abs(shown(flagged) - plain).max() <= 1 and abs(shown(bare) - (255 - plain)).max() <= 1
    assert film_facts(flagged)['corners'] < 0 < film_facts(bare)['corners']
    rows = [dict(id=k, images=[x], label='Normal') for k, x in (('flagged', flagged), ('bare', bare))]
    assert [n['id'] for n in check_films(rows).notes if n['reason'].startswith('negative')] == ['bare']
