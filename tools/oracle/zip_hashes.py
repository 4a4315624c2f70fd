#!/usr/bin/env python3
"""SHA-256 of the archives in tests/unit/core/zip_writer_test.c, as Python's zipfile writes them.

    python3 tools/oracle/zip_hashes.py
"""
import hashlib
import io
import zipfile


def archive(entries):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, strict_timestamps=True) as z:
        for name, data in entries:
            info = zipfile.ZipInfo(name)  # 1980-01-01
            info.create_system = 0
            info.external_attr = 1 << 16  # zipfile puts 0600 where there is nothing
            z.writestr(info, data)
    raw = bytearray(out.getvalue())
    return raw


def plain(raw):
    """External attributes are 0 in what is tested."""
    at = 0
    while (at := raw.find(b"PK\1\2", at)) >= 0:
        raw[at + 38:at + 42] = bytes(4)
        at += 46
    return hashlib.sha256(raw).hexdigest()


print("few ", plain(archive([("a/b.txt", b"hello"), ("empty", b""), ("größe", bytes(range(256)) * 3)])))
print("many", plain(archive((f"n/{i}", b"") for i in range(70000))))
