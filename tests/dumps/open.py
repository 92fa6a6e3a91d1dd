#!/usr/bin/env python3
"""Lays a dump out at the path where it was made, as if it had been cut off some minutes ago.

    open.py DUMP.tar.gz PIPECTL [SECONDS_AGO]

Every time that stands in its databases moves by the same span, so that leases, logins and holds are
as old as they would be when a version is stopped and the next one is started. Nothing else changes,
but for the path of the executable in Git's hook. Prints the folder.
"""

import datetime
import pathlib
import re
import shutil
import sqlite3
import sys
import tarfile
import time

ROOT = pathlib.Path("/tmp/pipeyard-dump")
DAYS = 90 * 86_400


def main(dump, pipectl, ago="300"):
    shutil.rmtree(ROOT, ignore_errors=True)
    with tarfile.open(dump) as tar:
        tar.extractall(ROOT.parent)
    made = int((ROOT / "made_at").read_text()) // 1_000_000
    shift = int(time.time()) - int(ago) - made
    for file in (ROOT / "data/server/pipeyard.sqlite", ROOT / "data/fleet/fleet.db"):
        move_times(file, made, shift)
    hook = ROOT / "shop.git/hooks/post-receive"
    hook.write_text(hook.read_text().replace("/usr/local/bin/pipectl", pipectl))
    print(ROOT)


def move_times(file, made, shift):
    """Adds `shift` seconds to what is a time in any column: seconds, milli- or microseconds, RFC 3339."""

    def moved(number):
        for unit in (1, 1_000, 1_000_000):
            if abs(number - made * unit) < DAYS * unit:
                return number + shift * unit
        return number

    def moved_text(match):
        if match.group(1):
            return str(moved(int(match.group(1))))
        at = datetime.datetime.fromisoformat(match.group(2).replace("Z", "+00:00"))
        return (at + datetime.timedelta(seconds=shift)).isoformat().replace("+00:00", "Z")

    pattern = re.compile(
        r"(?<![\w.-])(\d{10}|\d{13}|\d{16})(?![\w.-])"
        r"|(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z)"
    )
    db = sqlite3.connect(file)
    db.execute("PRAGMA foreign_keys = OFF")
    tables = [row[0] for row in db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_sqlx%'")]
    for table in tables:
        columns = [row[1] for row in db.execute(f'PRAGMA table_info("{table}")')]
        for column in columns:
            for (value,) in db.execute(f'SELECT DISTINCT "{column}" FROM "{table}"').fetchall():
                if isinstance(value, int):
                    new = moved(value)
                elif isinstance(value, str):
                    new = pattern.sub(moved_text, value)
                else:
                    continue
                if new != value:
                    db.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE "{column}" = ?', (new, value))
    db.commit()
    db.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
