"""What a client does at each command of its relay, and what it tells of it."""

from keys.errors import KeysError
from keys.identity import PublicIdentity
from keys.invite import Invite
from peers.client import events as e
from peers.client.backoff import clamp
from peers.client.link import Link
from peers.client.presence import Presence
from peers.client.texts import plain_lines
from wire import commands as c


def obey(body: c.ServerBody, link: Link, presence: Presence, ours: PublicIdentity) -> e.Event | None:
    """Do what a command asks for; returns what there is to tell, if anything. Codes not known are ignored.

    Args:
        body: the command, which verified.
        link: the connection by which it came.
        presence: what is told about others is noted here.
        ours: our own keys.
    """
    event: e.Event | None = None
    match body:
        case c.Challenge(random):
            link.command_now(c.Proof(random))
        case c.PeerOnline(x_pubs):
            watched = presence.came(x_pubs)
            event = e.PeersOnline(watched) if watched else None
        case c.PeerOffline(x_pubs):
            watched = presence.went(x_pubs)
            event = e.PeersOffline(watched) if watched else None
        case c.RecipientOffline(target_id, nonce):
            event = e.Undelivered(target_id, nonce)
        case c.IntroFrom(x_pub, ed_pub, nickname):
            event = _introduction(x_pub, ed_pub, nickname, ours)
        case c.Info(text):
            event = e.Notice(plain_lines(text))
        case c.Restarting(reconnect_in_ms):
            link.restarting = clamp(reconnect_in_ms / 1000)
            event = e.Restarting(link.restarting)
        case c.Wake(target_id, kind):
            event = e.WakeRequested(target_id, kind)
        case c.PushForward(sender_id, kind, token):
            event = e.PushRegistered(sender_id, kind, token)
    return event


def _introduction(x_pub: bytes, ed_pub: bytes, nickname: str, ours: PublicIdentity) -> e.Introduction | None:
    try:
        public = Invite(PublicIdentity(x_pub, ed_pub), nickname).public
    except KeysError:
        return None  # keys that must not be used (PROTOCOL.md §2): nobody can be reached by them
    if public.x_pub == ours.x_pub or public.ed_pub == ours.ed_pub:
        return None  # with one key on both sides a packet could be sent back to its author
    return e.Introduction(public, nickname)
