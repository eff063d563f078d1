"""What grows with the users of a file, kept where memory does not: in a temporary database.

SQLite makes a file of it (in TMPDIR, without a name) when its cache is full; it is gone with the process, however
that ends.
"""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from ..errors import DiskFullError, HistoryError

if TYPE_CHECKING:
    from sqlite3 import Connection

CACHE = 4 << 20  # bytes of it that are held
HELD = 1 << 17  # users that are, by `Seen`
BATCH = 1 << 12  # rows written at once
_NUMBER = re.compile("[1-9][0-9]{0,17}")  # an integer of SQLite's, spelled in the one way


@contextmanager
def database() -> Iterator["Connection"]:
    """An empty database. Raises `DiskFullError`, or `HistoryError`, where it cannot be kept."""
    import sqlite3  # most processes read no history

    try:
        with closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as connection:
            for setting in (f"cache_size = -{CACHE >> 10}", "journal_mode = OFF", "temp_store = FILE"):
                connection.execute(f"PRAGMA {setting}")
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        remedy = "Set TMPDIR to a folder with more room (about as much as the histories take)."
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise DiskFullError(f"No space left for temporary files while reading histories. {remedy}") from error
        raise HistoryError(f"a temporary database for histories cannot be kept: {error}. {remedy}") from error


class Seen:
    """Users, and on which line each was first."""

    def __init__(self, connection: "Connection") -> None:
        self._held: dict[str, int] = {}
        self._top, self._new = 0, list[tuple[int, int]]()  # of users that are numbers: the largest; some to be written
        self._connection = connection
        connection.execute("CREATE TABLE seen (user PRIMARY KEY, line INTEGER) WITHOUT ROWID")

    def first(self, user: str, line: int) -> int | None:
        """On which line a user was before; None where this line is the first."""
        if (before := self._held.get(user)) is not None:
            return before
        if len(self._held) < HELD:
            self._held[user] = line
            return None
        number = int(user) if _NUMBER.fullmatch(user) else 0
        if number > self._top:  # it is in no list yet, and need not be looked for
            self._top = number
            self._new.append((number, line))
            if len(self._new) == BATCH:
                self._write()
            return None
        self._write()
        return self._looked_for(number or user.encode("utf-8", "surrogatepass"), line)

    def _write(self) -> None:
        self._connection.executemany("INSERT INTO seen VALUES (?, ?)", self._new)
        self._new.clear()

    def _looked_for(self, key: int | bytes, line: int) -> int | None:
        if self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, line)).rowcount:
            return None
        before: int
        (before,) = self._connection.execute("SELECT line FROM seen WHERE user = ?", (key,)).fetchone()
        return before


Row = tuple[int, int, str, str]  # file, number of the line, items, and the line where there are none


class Groups:
    """Lines of several files, given back user by user."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        connection.execute("CREATE TABLE lines (user TEXT, file INTEGER, number INTEGER, items TEXT, raw TEXT)")

    def add(self, user: str, row: Row) -> None:
        """What a line says of its user."""
        self._connection.execute("INSERT INTO lines VALUES (?, ?, ?, ?, ?)", (user, *row))

    def __iter__(self) -> Iterator[tuple[str, list[Row]]]:
        """Users in the order of their first lines, each with its lines as they were added."""
        order = "SELECT min(rowid) OVER (PARTITION BY user) AS first, rowid FROM lines ORDER BY first, rowid"
        line = "SELECT user, file, number, items, raw FROM lines WHERE rowid = ?"
        for _, rows in groupby(self._connection.execute(order), key=itemgetter(0)):
            lines = [self._connection.execute(line, row[1:]).fetchone() for row in rows]
            yield lines[0][0], [line[1:] for line in lines]
