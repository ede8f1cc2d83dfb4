"""The audit: replay the log in one process and compare with it all that the stream has written."""

from stream.cli.audit.report import AuditReport as AuditReport
from stream.cli.audit.run import audit as audit
