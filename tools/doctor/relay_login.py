"""Logs in at the relay and leaves again. Runs in the mail server's container, which has the password: `relay_login.py HOST PORT`.

Prints a JSON list: `ok` or `broken`, and what the relay said. Standard library only.
"""

import json
import smtplib
import ssl
import sys
from pathlib import Path

PASSWORDS = Path("/etc/postfix/sasl_passwd")
SECONDS = 15


def main(host: str, port: int) -> tuple[str, str]:
    hop = f"[{host}]:{port}"
    entry = next((line.split(maxsplit=1)[1].strip() for line in PASSWORDS.read_text("utf-8").splitlines() if line.startswith(hop)), None)
    if entry is None:
        return "broken", f"{PASSWORDS} has no login for {hop}"
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13 is stricter than Postfix, which is what counts
    try:
        with smtplib.SMTP(host, port, timeout=SECONDS) as session:
            session.starttls(context=context)
            session.login(*entry.split(":", 1))
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        return "broken", f"refuses: {error.smtp_code} {said}"
    except (OSError, smtplib.SMTPException) as error:
        return "broken", f"{type(error).__name__}: {error}"
    return "ok", "takes the log-in"


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
