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

_VERSION_2: Final = """
-- Mailboxes of ours and of contacts, each once.
CREATE TABLE mailboxes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    card TEXT NOT NULL UNIQUE              -- M0…
) STRICT;

CREATE TABLE own_mailboxes (
    mailbox INTEGER PRIMARY KEY REFERENCES mailboxes,
    added_at INTEGER NOT NULL,
    asked_at INTEGER NOT NULL,             -- somebody wants it to be looked into since then
    tried_at INTEGER NOT NULL DEFAULT 0,   -- when that was last tried
    looked_at INTEGER,                     -- when it last answered
    trouble TEXT NOT NULL DEFAULT '',      -- why it did not, if that is so
    picked INTEGER NOT NULL DEFAULT 0,     -- deposits that were picked up
    refused INTEGER NOT NULL DEFAULT 0,    -- deposits for us that it refused for want of room, as it told us
    token BLOB NOT NULL DEFAULT x''        -- what it asks depositors for, as contacts are told; empty: nothing
) STRICT;

-- What contacts told of their mailboxes; the serial is that of the newest list that they sent.
CREATE TABLE cards_heard (
    contact INTEGER PRIMARY KEY REFERENCES contacts ON DELETE CASCADE,
    serial INTEGER NOT NULL
) STRICT;
CREATE TABLE contact_mailboxes (
    contact INTEGER NOT NULL REFERENCES contacts ON DELETE CASCADE,
    place INTEGER NOT NULL,                -- in the order that they want
    mailbox INTEGER NOT NULL REFERENCES mailboxes,
    token BLOB NOT NULL DEFAULT x'',       -- what is shown there with what is left for this contact
    PRIMARY KEY (contact, place),
    UNIQUE (contact, mailbox)
) WITHOUT ROWID, STRICT;

-- What contacts were told of ours.
CREATE TABLE cards_told (
    contact INTEGER PRIMARY KEY REFERENCES contacts ON DELETE CASCADE,
    serial INTEGER NOT NULL,               -- the list that was last sent to them
    tries INTEGER NOT NULL DEFAULT 0,      -- how often it was sent while they were online
    settled INTEGER NOT NULL DEFAULT -1    -- the newest list that they acknowledged
) STRICT;

-- What is left for a contact in a mailbox: one row for each copy.
CREATE TABLE parcels (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- in this order they are left
    contact INTEGER NOT NULL REFERENCES contacts ON DELETE CASCADE,
    mailbox INTEGER NOT NULL REFERENCES mailboxes,
    message INTEGER REFERENCES messages ON DELETE CASCADE,
    what TEXT NOT NULL CHECK (what IN ('text', 'edit', 'delete', 'cards', 'acks')),
    revision INTEGER NOT NULL,             -- of a text when it was edited, of a change its own, of cards their serial
    nonce BLOB NOT NULL CHECK (length(nonce) = 24), -- of the packet within: what the peer's acknowledgement names
    secret BLOB NOT NULL CHECK (length(secret) = 32), -- by which it is deleted there, and known when it is repeated
    content BLOB,                          -- the sealed deposit, until it is kept there: a repetition is the same
    state TEXT NOT NULL CHECK (state IN ('waiting', 'kept', 'refused', 'dropping')),
    tries INTEGER NOT NULL DEFAULT 0,      -- how often it was sent, so that it may be there
    reason INTEGER,                        -- why it was refused, the last time: wire.mailbox_codes.Reason
    at INTEGER NOT NULL,                   -- when it was made
    expires_at INTEGER                     -- when the mailbox erases it, as it said
) STRICT;
CREATE INDEX parcels_of_message ON parcels (message, mailbox);
CREATE INDEX parcels_of_contact ON parcels (contact);
CREATE INDEX parcels_of_mailbox ON parcels (mailbox, id) WHERE state IN ('waiting', 'dropping');
CREATE INDEX parcels_by_nonce ON parcels (nonce);

-- Acknowledgements of what came by a mailbox: they go out by whatever way there is.
CREATE TABLE owed (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    contact INTEGER NOT NULL REFERENCES contacts ON DELETE CASCADE,
    command INTEGER NOT NULL,              -- wire.peer_commands: DELIVERY_ACK or CHANGE_ACK
    body BLOB NOT NULL,
    UNIQUE (contact, command, body)
) STRICT;
"""

SCHEMA: Final = Schema(application_id=0x62724348, steps=(_VERSION_1, _VERSION_2))  # "brCH"
