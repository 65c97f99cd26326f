"""Files are whole or absent, also where several write the same one."""

import threading

import pytest

from nablax._core import write_whole


def test_two_writers_of_one_file_leave_one_of_their_contents(tmp_path):
    path, contents, errors = tmp_path / "report.html", [bytes([n]) * 200_000 for n in range(4)], []

    def write(content):
        try:
            for _ in range(20):
                write_whole(path, content)
                assert path.read_bytes() in contents
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == [] and [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_an_earlier_file_stays_where_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    write_whole(path, "before")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "after")
    assert path.read_text() == "before" and [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
