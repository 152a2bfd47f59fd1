"""The doctor names what is missing and what to do about it."""

from nanochat.course import doctor


def test_a_machine_that_runs_these_tests_is_well(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NANOCHAT_HUB", str(tmp_path))
    assert doctor.main() == 0
    out = capsys.readouterr().out
    assert "✓ python" in out and "✓ rustbpe" in out and f"mirror at {tmp_path}" in out


def test_what_is_missing_comes_with_a_remedy(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NANOCHAT_HUB", str(tmp_path / "gone"))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor, "_package", lambda name, remedy: doctor.Finding(name, "cannot be imported", remedy))
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert "✗ rustbpe" in out and "→ run `make course`" in out
    assert "! C++ compiler     none → torch.compile needs one" in out
    assert "✗ hub" in out and "which is not a folder" in out
