"""The lab's name server: zones as dictionaries that a test may change at any moment."""

import socket
import threading
from collections import Counter

import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from tools.lab.hosts import Host

TTL = 1  # a changed record is seen at once


class NameServer:
    """Answers from `records` (owner name and type to texts, RFC 1035 presentation form) and says NXDOMAIN to all else."""

    def __init__(self, host: Host, address: str) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self._sets: Counter[str] = Counter()  # record sets at a name and below it
        with host.network():
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.bind((address, 53))
            self._tcp = socket.create_server((address, 53))
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def put(self, owner: str, kind: str, *texts: str) -> None:
        """Replace a record set; no texts remove it."""
        more = bool(texts) - bool(self.lookup(owner, kind))
        self.records[owner.lower(), kind] = list(texts)
        labels = owner.lower().split(".")
        self._sets.update({".".join(labels[place:]): more for place in range(len(labels))})

    def host(self, owner: str, *addresses: str) -> None:
        """An address record for each address, and the way back."""
        for address in addresses:
            self.put(owner, "AAAA" if ":" in address else "A", address)
            self.put(dns.reversename.from_address(address).to_text(True), "PTR", f"{owner}.")

    def text(self, owner: str, value: str) -> None:
        """A TXT record, cut into strings of 255 bytes (RFC 7208, 3.3)."""
        self.put(owner, "TXT", " ".join(f'"{value[at : at + 255]}"' for at in range(0, len(value), 255)))

    def lookup(self, owner: str, kind: str) -> list[str]:
        return self.records.get((owner.lower(), kind), [])

    def answer(self, wire: bytes) -> bytes:
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        owner, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        if texts := self.lookup(owner, kind):
            response.answer.append(dns.rrset.from_text_list(question.name, TTL, dns.rdataclass.IN, question.rdtype, texts))
        elif not self._sets[owner.lower()]:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire(max_size=65535)

    def _serve_udp(self) -> None:
        while True:
            try:
                wire, peer = self._udp.recvfrom(4096)
                self._udp.sendto(self.answer(wire), peer)
            except OSError:
                return

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                size = int.from_bytes(stream.read(2), "big")
                if size:
                    wire = self.answer(stream.read(size))
                    stream.write(len(wire).to_bytes(2, "big") + wire)

    def close(self) -> None:
        for listening in (self._udp, self._tcp):
            listening.shutdown(socket.SHUT_RDWR) if listening is self._tcp else None
            listening.close()
