"""Whether the relay can start with its settings: what they name is looked at, before anything is made or listened on.

The relay and `python -m relay config check` both ask here: what the one refuses the other must not call good.
"""

from relay.access import AccessError
from relay.admission import Admission
from relay.callout_http import check_installed
from relay.cluster import check_cluster
from relay.settings import BadSettings, Settings
from relay.tls import BadCertificate, Certificate
from relay.tokens import token_source


def check_usable(settings: Settings) -> Admission:
    """Return who may use the relay, once all that the settings name was found to be of use.

    Looked at are token file, lists, certificate and its key, the extras that they take, what a cluster needs, and the
    open files that the limits take. The relay's own keys are not: they may have to be minted, by one that can start.

    Raises:
        BadSettings: tells all that is wrong, a line each.
    """
    problems: list[str] = []
    admission: Admission | None = None
    try:
        admission = Admission(token_source(settings), settings.allow_file, settings.deny_file)
    except AccessError as error:
        problems += str(error).splitlines()
    if settings.admission_url:
        try:
            check_installed()
        except AccessError as error:
            problems.append(str(error))
    if settings.tls_cert is not None and settings.tls_key is not None:
        try:
            Certificate(settings.tls_cert, settings.tls_key)
        except BadCertificate as error:
            problems.append(str(error))
    problems += check_cluster(settings)
    try:
        settings.limits.check_files()
    except ValueError as error:
        problems.append(str(error))
    if problems or admission is None:
        raise BadSettings(problems)
    return admission
