"""The audit: replay the log in one process and compare with it all that the stream has written."""

from stream.audit.report import AuditReport as AuditReport
from stream.audit.run import audit as audit
