"""What make_key prints can be the service's key file as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from codepmp_ray.serve import make_key
from codepmp_ray.serve.auth import KeyRing


@pytest.mark.parametrize("holder", ["alice", ""])
def test_standard_output_is_a_key_file(
    holder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["make_key", *([holder] if holder else [])])
    make_key.main()
    said = capsys.readouterr()
    key = said.err.removeprefix("key: ").strip()
    assert key not in said.out and holder in said.out
    file = tmp_path / "digests.txt"
    file.write_text(said.out)
    assert KeyRing([], file).caller([(b"x-api-key", key.encode())])
