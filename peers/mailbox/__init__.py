"""The mailbox: it holds sealed deposits for those who are offline, and learns as little as can be (docs/mailbox.md).

core          what is taken, handed out and deleted: rules, with the time passed in, above a store
app           the web app's codes on the same items
rules         limits, access, and whether there is room
quotas        how much a depositor or an address may cause
once          what may be used once: tickets and stamps
price         what a deposit costs in work
clock         the mailbox's own time
store         what a store does: sqlite_store in a file, jetstream_store in a stream of NATS

The program around it, `blindrelay-mailbox`:

process       opening all, signals, the way down; tending and admin beside it
relay_face    the mailbox as a peer of a relay; strangers, introducing and allowance are its parts
http_face     the mailbox over HTTP; http_protocol and http_server are what it stands on, forwarded whose address counts
settings      and settings_limits, keyfile, access: what an operator decides
arguments     and commands: the command line
meter         what is counted; trouble: what is told
"""
