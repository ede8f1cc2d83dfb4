"""Distinguish a broker that refuses this client (a wrong setting) from an unreachable one."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError

from stream.process.retrying import is_transient, named

ANSWER_MS = 5000


async def refusal(client_options: Mapping[str, Any]) -> str:
    """Return why a broker refuses this client, "" if none does. aiokafka's own clients report "no broker" for both."""
    options = {name: value for name, value in client_options.items() if name != "bootstrap_servers"}
    for host, port, _ in collect_hosts(client_options["bootstrap_servers"]):
        try:
            connection = await create_conn(host, port, request_timeout_ms=ANSWER_MS, **options)
        except ssl.SSLCertVerificationError as error:
            return f"the certificate of {host}:{port} is not trusted: {error.verify_message}"
        except KafkaError as error:
            if not is_transient(error):
                return f"{host}:{port} refuses this client: {named(error)}"
        except OSError:
            continue
        else:
            connection.close()
    return ""
