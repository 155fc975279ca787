"""The tables of a mailbox, version by version. A step that was released is never changed: the next one mends it.

Times are milliseconds since 1970 by the mailbox's clock, rounded to full hours where they tell of a deposit. Why each
field is kept, and when it is erased, stands in docs/mailbox.md; a test holds that page to these tables.
"""

from typing import Final

from peers.database import Schema

_VERSION_1: Final = """
-- Those for whom something is held, or was refused. A row goes with the last of it.
CREATE TABLE recipients (
    no INTEGER PRIMARY KEY,
    x_pub BLOB NOT NULL UNIQUE CHECK (length(x_pub) = 32),
    next INTEGER NOT NULL,                 -- number of the next item; the first is random
    items INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0,
    aside INTEGER NOT NULL DEFAULT 0,      -- of these, how many can only be restored
    aside_size INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,    -- for want of room, and not told yet
    refused_since INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX recipients_refused ON recipients (refused_since) WHERE refused > 0;

CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    recipient INTEGER NOT NULL REFERENCES recipients,
    number INTEGER NOT NULL,
    kind INTEGER NOT NULL,                 -- wire.mailbox_codes.ItemKind
    expires INTEGER NOT NULL,
    restorable INTEGER,                    -- acknowledged by FETCH_NEXT: when it would have ended otherwise
    drop_digest BLOB NOT NULL CHECK (length(drop_digest) = 16),
    content BLOB NOT NULL
) STRICT;
-- One index for both ways to find an item of a recipient. With one of their own, digests would cost a page of the disk
-- for each deposit; looking through those of one recipient, which are bounded, costs microseconds.
CREATE UNIQUE INDEX items_of_recipient ON items (recipient, number, drop_digest);
CREATE INDEX items_by_end ON items (expires);

-- One row: sums of the above, and the time from which the mailbox's clock goes on.
CREATE TABLE mailbox (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    items INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0,
    markers INTEGER NOT NULL DEFAULT 0,    -- recipients with refused > 0
    clock INTEGER
) STRICT;
INSERT INTO mailbox (only) VALUES (1);
"""

SCHEMA: Final = Schema(application_id=0x62724D42, steps=(_VERSION_1,))  # "brMB"
"""The header of SQLite's file names it, so that no other database is taken for a mailbox."""
