"""Passwords and tokens out of every text that is printed, logged or stored.

An address may hold them: http://user:password@host, postgresql://user:password@host/db, ?token=…. The errors
of this project pass through here as they are made (components/errors.py, pipelines/errors.py), and so does an
address where it is displayed or put into a receipt.
"""

import re

HIDDEN = "***"
# What stands before the host. A password may hold a slash or a question mark that nobody encoded, so after a
# colon everything up to the "@" counts, unless a port stands there.
USER_INFO = re.compile(r"(?<=://)(?:[^\s/?#'\"]+|[^\s/?#@:'\"]*:(?!\d+[/?#])[^\s@]+)@")
SECRET_NAMES = "token|password|passwd|pwd|secret|key|credential|signature|sig|auth"
QUERY = re.compile(rf"([?&;][^\s=&#]*(?:{SECRET_NAMES})[^\s=&#]*=)[^\s&#;'\")]+", re.IGNORECASE)
SETTING = re.compile(r"(\b(?:password|passwd|pwd)\s?=\s?)[^\s&;,'\")]+", re.IGNORECASE)  # of a database's DSN
HEADER = re.compile(r"(authorization\W{1,4}(?:basic|bearer)\s+)[^\s'\",]+", re.IGNORECASE)


def redacted(text: str) -> str:
    """The text with *** in place of each user and password of an address, secret in a query, and header."""
    text = USER_INFO.sub(f"{HIDDEN}@", text)
    for pattern in (QUERY, SETTING, HEADER):
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return text
