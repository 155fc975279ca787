"""What programs that run beside a relay have in common: the notifier and the mailbox.

errors            what is wrong, for people
settings_sources  settings from flags, variables, files of secrets and a TOML file
arguments         the flags of settings, and the table of them for the documentation
program           errors as lines for people and an exit status
config            settings in force, and a template, as TOML
listening         an address to listen on, and asking whoever listens there whether it is well
relay_session     whether there is a session with the relay
log               structured lines without ids, keys and addresses
"""
