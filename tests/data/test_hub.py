"""The hub loader on a mirror made here: nothing in this file needs the network or the real mirror."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import flaky

from nanochat.data import hub
from nanochat.runtime import UserError

CARD = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/part-*
  - split: test
    path: [main/held-*]
- config_name: other
  data_files:
  - split: train
    path: other/*.parquet
---
# A data set
"""


def write(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror with one repository, and a cache of datasets for this test alone."""
    import datasets

    root = tmp_path / "hub"
    write(root / "owner/name/main/part-0.parquet", n=[1, 2])
    write(root / "owner/name/main/part-1.parquet", n=[3])
    write(root / "owner/name/main/held-0.parquet", n=[4])
    write(root / "owner/name/other/x.parquet", n=[5])
    (root / "owner/name/README.md").write_text(CARD)
    monkeypatch.setenv("NANOCHAT_HUB", str(root))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return root


@pytest.mark.parametrize(("config", "split", "numbers"), [
    ("main", "train", [1, 2, 3]), ("main", "test", [4]), ("other", "train", [5]), (None, "train", [1, 2, 3])])
def test_the_card_says_which_files_a_split_is(mirror, config, split, numbers):
    assert hub.load("owner/name", config, split)["n"][:] == numbers


def test_without_a_card_the_usual_names_are_found(mirror):
    write(mirror / "owner/plain/data/train-00000-of-00001.parquet", n=[7])
    write(mirror / "owner/sets/big/test-00000-of-00001.parquet", n=[8])
    assert hub.load("owner/plain")["n"][:] == [7]
    assert hub.load("owner/sets", "big", "test")["n"][:] == [8]


def test_mirrors_of_one_name_and_replaced_files_are_not_mixed_up(mirror, tmp_path, monkeypatch):
    assert hub.load("owner/name", "other")["n"][:] == [5]
    write(mirror / "owner/name/other/x.parquet", n=[50])
    os.utime(mirror / "owner/name/other/x.parquet", ns=(1, 1))
    assert hub.load("owner/name", "other")["n"][:] == [50]
    write(tmp_path / "second/hub/owner/name/other/train-0.parquet", n=[500])
    monkeypatch.setenv("NANOCHAT_HUB", str(tmp_path / "second/hub"))
    assert hub.load("owner/name", "other")["n"][:] == [500]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: hub.load("owner/name", "main", "dev"), r"owner/name \(main\), split dev, is not in the mirror"),
    (lambda: hub.load("owner/name", "third"), r"owner/name \(third\), split train, is not in the mirror"),
    (lambda: hub.load("owner/nobody"), "owner/nobody, split train, is not in the mirror"),
    (lambda: hub.file("owner/name", "shard_7.parquet"), "shard_7.parquet of owner/name is not in the mirror"),
    (lambda: hub.extra("words_alpha.zip"), "extras/words_alpha.zip is not in the mirror"),
])
def test_what_the_mirror_lacks_is_one_line(mirror, call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value) and "NANOCHAT_HUB" in str(error.value)


def test_files_are_found_in_the_mirror(mirror):
    assert hub.file("owner/name", "main/part-0.parquet") == mirror / "owner/name/main/part-0.parquet"
    write(mirror / "extras/list.parquet", n=[1])
    assert hub.extra("list.parquet") == mirror / "extras/list.parquet"


def test_a_mirror_that_is_no_folder_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("NANOCHAT_HUB", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="NANOCHAT_HUB names .*nowhere, which is not a folder"):
        hub.load("owner/name")


def test_a_damaged_file_is_named(mirror, tmp_path):
    path = mirror / "owner/name/main/part-1.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"part-1.parquet is damaged .*; delete it"):
        hub.load("owner/name", "main")
    with pytest.raises(UserError, match="part-1.parquet is damaged"):
        hub.read_parquet(path)
    with pytest.raises(UserError, match="absent.parquet is missing"):
        hub.read_parquet(tmp_path / "absent.parquet")


def test_with_neither_mirror_nor_network_the_message_says_what_to_set(tmp_path):
    program = ("from nanochat.data import hub\nfrom nanochat.runtime import UserError\n"
               "for call in (lambda: hub.load('openai/gsm8k', 'main'), lambda: hub.file('a/b', 'c.parquet')):\n"
               "    try: call()\n    except UserError as error: print(error)\n")
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "NANOCHAT_HUB": ""}
    lines = subprocess.check_output([sys.executable, "-c", program], env=env, text=True, timeout=60).splitlines()
    assert len(lines) == 2 and lines[0].startswith("cannot get openai/gsm8k (main), split train,")
    assert all("set NANOCHAT_HUB to a folder that mirrors the hub" in line for line in lines)


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A hub on this machine instead of the real one, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("NANOCHAT_HUB", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    with flaky.serve({}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_shards_are_downloaded_once_to_the_cache(network):
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b"]}), sink)
    names = ["shard_00000.parquet", "shard_00001.parquet"]
    network.files = {f"/datasets/owner/name/resolve/main/{name}": sink.getvalue() for name in names}
    paths = hub.files("owner/name", names)
    assert [pq.read_table(path)["text"].to_pylist() for path in paths] == [["a", "b"]] * 2
    assert hub.file("owner/name", names[1]) == paths[1] == hub.cache() / "hub/owner/name" / names[1]
    assert sorted(network.requests) == sorted(network.files)
    with pytest.raises(UserError, match=r"cannot download shard_9.parquet from 127.0.0.1:\d+: HTTP 404; .*NANOCHAT_HUB"):
        hub.file("owner/name", "shard_9.parquet")


def test_the_evaluation_bundle_is_downloaded_and_unpacked_once(network, monkeypatch):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("eval_bundle/core.yaml", "icl_tasks: []")
    network.files = {"/eval_bundle.zip": sink.getvalue()}
    monkeypatch.setitem(hub.EXTRAS, "eval_bundle.zip", (f"{network.url}/eval_bundle.zip", None))
    assert [hub.eval_bundle() for _ in range(2)] == [hub.cache() / "eval_bundle"] * 2
    assert (hub.eval_bundle() / "core.yaml").read_text() == "icl_tasks: []" and len(network.requests) == 1


def test_an_extra_of_another_content_is_refused(network, monkeypatch):
    network.files = {"/words_alpha.zip": b"PK..."}
    monkeypatch.setitem(hub.EXTRAS, "words_alpha.zip", (f"{network.url}/words_alpha.zip", hub.EXTRAS["words_alpha.zip"][1]))
    monkeypatch.setattr("nanochat.data.download.RETRIES", 0)
    with pytest.raises(UserError, match="cannot download words_alpha.zip from 127.0.0.1"):
        hub.extra("words_alpha.zip")
    assert not (hub.cache() / "words_alpha.zip").exists()
