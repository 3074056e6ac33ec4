"""A client of remit for any Python program: ``from remit_client import Remit``. See ``remit_client.client``."""

from remit_client.client import AppError as AppError
from remit_client.client import Denied as Denied
from remit_client.client import NoDaemon as NoDaemon
from remit_client.client import Remit as Remit
from remit_client.client import RemitError as RemitError
from remit_client.client import Told as Told
