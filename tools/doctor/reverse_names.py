"""Looks up the name of each address as Postfix does. Runs in the mail server's container: `reverse_names.py ADDRESS…`.

Prints a JSON object: by address, its name and null, or null and why Postfix calls it unknown. Standard library only.
"""

import json
import socket
import sys


def main(address: str) -> tuple[str | None, str | None]:
    try:
        name, _ = socket.getnameinfo((address, 0), socket.NI_NAMEREQD)
    except OSError as error:
        return None, f"has no name: {error.strerror}"
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
    except OSError as error:
        return None, f"is called {name}, which has no address: {error.strerror}"
    return (name, None) if address in found else (None, f"is called {name}, which is the name of {', '.join(sorted(found))}")


if __name__ == "__main__":
    print(json.dumps({address: main(address) for address in sys.argv[1:]}))
