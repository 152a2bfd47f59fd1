"""Archives: what is inside comes out, what leads outside is refused before a byte is written."""

import stat
import zipfile

import pytest

from nanochat.data.archive import unpack
from nanochat.runtime import UserError


def make(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def link(name):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def test_the_files_come_out_and_an_only_folder_is_the_folder(tmp_path):
    plain = unpack(make(tmp_path / "a.zip", {"x.txt": "x", "deep/y.txt": "y"}), tmp_path / "a")
    assert (plain / "x.txt").read_text() == "x" and (plain / "deep/y.txt").read_text() == "y"
    files = {"bundle/core.yaml": "c", "bundle/eval_data/z.jsonl": "z" * 1000, "__MACOSX/._z": "n"}
    packed = unpack(make(tmp_path / "b.zip", files), tmp_path / "b")
    assert sorted(p.name for p in packed.rglob("*")) == ["core.yaml", "eval_data", "z.jsonl"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.zip", "b", "b.zip"]


@pytest.mark.parametrize("files, message", [
    ({"good.txt": "g", "/etc/evil": "e"}, "outside the folder"),
    ({"good.txt": "g", "../evil": "e"}, "outside the folder"),
    ({"good.txt": "g", "a/../../evil": "e"}, "outside the folder"),
    ({"good.txt": "g", "..\\evil": "e"}, "outside the folder"),
    ({"good.txt": "g", "C:/evil": "e"}, "outside the folder"),
    ({"good.txt": "g", link("evil"): "/etc/passwd"}, "a link or a device"),
    ({"good.txt": "g", "bomb": b"0" * 30_000_000}, "30,000,001 bytes, more than 50 times"),
    ({}, "is empty"),
])
def test_what_leads_outside_or_grows_too_much_is_refused_whole(tmp_path, files, message):
    archive = make(tmp_path / "bad.zip", files)
    with pytest.raises(UserError, match=message):
        unpack(archive, tmp_path / "out" / "bad")
    assert [p.name for p in tmp_path.rglob("*")] == ["bad.zip"]


def test_a_damaged_archive_leaves_nothing(tmp_path):
    archive = make(tmp_path / "bad.zip", {"a.txt": "a" * 100, "b.txt": "b" * 1000})
    data = bytearray(archive.read_bytes())
    data[data.index(b"b.txt") + 7] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"bad.zip cannot be unpacked \(.*; delete it and fetch it again"):
        unpack(archive, tmp_path / "bad")
    archive.write_bytes(bytes(data[:-30]))
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "bad")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.zip"]
