"""The errors of the notifier are those of every service (:mod:`peers.service.errors`), under its own names."""

from peers.service.errors import BadSettings as BadNotifierSettings
from peers.service.errors import ServiceError as NotifierError
from peers.service.errors import ServiceFailed as NotifierFailed

__all__ = ["BadNotifierSettings", "NotifierError", "NotifierFailed"]
