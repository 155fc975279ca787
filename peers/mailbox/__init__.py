"""The mailbox: it holds sealed deposits for those who are offline, and learns as little as can be (docs/mailbox.md).

core          what is taken, handed out and deleted: rules, with the time passed in, above a store
app           the web app's codes on the same items
rules         limits, access, and whether there is room
quotas        how much a depositor or an address may cause
once          what may be used once: tickets and stamps
price         what a deposit costs in work
clock         the mailbox's own time
store         what a store does: sqlite_store in a file, jetstream_store in a stream of NATS
"""
