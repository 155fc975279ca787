"""The tables of a store, version by version. A step that was released is never changed: the next one mends it.

Times are milliseconds since 1970. What is kept of whom, and for how long, stands in docs/chat.md.
"""

from typing import Final

from peers.database import Schema

_VERSION_1: Final = """
CREATE TABLE contacts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice: what others remember of a removed contact means nobody
    x_pub BLOB NOT NULL UNIQUE CHECK (length(x_pub) = 32),
    ed_pub BLOB NOT NULL UNIQUE CHECK (length(ed_pub) = 32),
    peer_id BLOB NOT NULL UNIQUE CHECK (peer_id = substr(x_pub, 1, 8)),
    nickname TEXT NOT NULL,                -- what they call themselves, as it came
    label TEXT NOT NULL,                   -- what we call them
    label_key TEXT NOT NULL UNIQUE,        -- the label as it is compared: peers.store.contacts.label_key
    origin TEXT NOT NULL CHECK (origin IN ('invite', 'introduction', 'import')),
    added_at INTEGER NOT NULL,
    verified_at INTEGER,                   -- when the safety numbers were compared
    blocked INTEGER NOT NULL DEFAULT 0,
    knows_us INTEGER NOT NULL DEFAULT 0,   -- a packet of theirs opened, so they have our keys
    extended INTEGER NOT NULL DEFAULT 0,   -- their program has shown that it knows the codes from 0x60 on
    online INTEGER NOT NULL DEFAULT 0,     -- as the relay told whoever holds the connection
    seen_at INTEGER                        -- when that last changed
) STRICT;

CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    contact INTEGER NOT NULL REFERENCES contacts ON DELETE CASCADE,
    uuid BLOB NOT NULL CHECK (length(uuid) = 16),
    outgoing INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('text', 'file', 'call')),
    text TEXT NOT NULL,                    -- of a file its name; empty once deleted
    at INTEGER NOT NULL,                   -- when it was written, or came
    state INTEGER NOT NULL,                -- peers.store.messages.State
    exposed INTEGER NOT NULL DEFAULT 0,    -- it left us at least once, so the peer may have it
    delivered_at INTEGER,
    read_at INTEGER,                       -- by the peer, or by us
    edited_at INTEGER,
    deleted_at INTEGER,                    -- the row stays, so that the message, sent again, does not come back
    UNIQUE (contact, outgoing, uuid)
) STRICT;
CREATE INDEX messages_of_contact ON messages (contact, id);
CREATE INDEX messages_to_send ON messages (contact, id) WHERE outgoing = 1 AND state < 2 AND deleted_at IS NULL;
CREATE INDEX messages_unread ON messages (contact, id) WHERE outgoing = 0 AND read_at IS NULL;

-- What a peer is still to be told about a message: an edit, a deletion, that it was read. The last one counts.
CREATE TABLE changes (
    revision INTEGER PRIMARY KEY AUTOINCREMENT, -- new for each: an answer to an older one does not settle this one
    message INTEGER NOT NULL UNIQUE REFERENCES messages ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('edit', 'delete', 'read')),
    tries INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Nonces of packets that had an effect which must not be had twice.
CREATE TABLE nonces (
    contact INTEGER NOT NULL REFERENCES contacts ON DELETE CASCADE,
    nonce BLOB NOT NULL CHECK (length(nonce) = 24),
    PRIMARY KEY (contact, nonce)
) WITHOUT ROWID, STRICT;

CREATE TABLE files (
    message INTEGER PRIMARY KEY REFERENCES messages ON DELETE CASCADE,
    contact INTEGER NOT NULL REFERENCES contacts ON DELETE CASCADE,
    outgoing INTEGER NOT NULL,
    file_id BLOB NOT NULL CHECK (length(file_id) = 16),
    mime TEXT NOT NULL,
    size INTEGER NOT NULL,
    chunk INTEGER,                         -- bytes in a chunk; of a foreign file unknown until one came
    digest BLOB CHECK (length(digest) = 32), -- BLAKE3 of the whole; ours: once computed; foreign offers have none
    pull INTEGER NOT NULL,                 -- the receiver asks for chunks (FILE_WANT)
    source TEXT,                           -- outgoing: the path it is read from
    stamp TEXT,                            -- outgoing: size, time and inode of that file when it was offered
    have BLOB,                             -- incoming: the chunks that are on disk (peers.store.chunks)
    moved INTEGER NOT NULL DEFAULT 0,      -- bytes that were sent, or came
    state TEXT NOT NULL CHECK (state IN ('offered', 'moving', 'done', 'failed')),
    reason INTEGER,                        -- of a failure: wire.peer_commands.CancelReason
    tries INTEGER NOT NULL DEFAULT 0,      -- how often all of it was sent unasked, or came and was not what was offered
    ended INTEGER NOT NULL DEFAULT 0,      -- incoming: the uuid of the message is its author's, not one of our making
    tell INTEGER NOT NULL DEFAULT 0,       -- the peer is still to be told that it failed
    UNIQUE (contact, outgoing, file_id)
) STRICT;
CREATE INDEX files_open ON files (outgoing, state) WHERE state IN ('offered', 'moving');
CREATE INDEX files_to_tell ON files (contact) WHERE tell = 1;

-- Messages whose stored file is to be removed from the disk: a number is never used again, so none is removed twice.
CREATE TABLE discarded (
    message INTEGER PRIMARY KEY
) STRICT;
CREATE TRIGGER files_discarded AFTER DELETE ON files WHEN old.outgoing = 0 BEGIN
    INSERT OR IGNORE INTO discarded (message) VALUES (old.message);
END;

-- What is to be done once, as soon as there is a connection.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- whoever waits for one to be done must not wait for another
    contact INTEGER NOT NULL REFERENCES contacts ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('introduce', 'wake', 'wake-call')),
    at INTEGER NOT NULL
) STRICT;

-- What happened, in order, for every program that follows.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,                    -- peers.store.feed.Kind
    contact INTEGER,
    message INTEGER,
    detail TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX events_of_kind ON events (kind, at);

-- How far a reader with a name has come.
CREATE TABLE cursors (
    name TEXT PRIMARY KEY,
    seq INTEGER NOT NULL
) STRICT;

CREATE TABLE status (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE VIRTUAL TABLE messages_text USING fts5 (
    text, content = 'messages', content_rowid = 'id', tokenize = "unicode61 remove_diacritics 2", prefix = '2 3'
);
CREATE TRIGGER messages_text_insert AFTER INSERT ON messages BEGIN
    INSERT INTO messages_text (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER messages_text_update AFTER UPDATE OF text ON messages BEGIN
    INSERT INTO messages_text (messages_text, rowid, text) VALUES ('delete', old.id, old.text);
    INSERT INTO messages_text (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER messages_text_delete AFTER DELETE ON messages BEGIN
    INSERT INTO messages_text (messages_text, rowid, text) VALUES ('delete', old.id, old.text);
END;
"""

SCHEMA: Final = Schema(application_id=0x62724348, steps=(_VERSION_1,))  # "brCH"
