"""A server of names that knows one: names.py NAME ADDRESS, on port 53 of 127.0.0.1.

It answers as RFC 1035 says, over UDP: the address for A, nothing for other types, and that
there is no such name for any other. It prints each question.
"""

import socket
import struct
import sys

name, address = sys.argv[1:3]
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
print("listening", flush=True)
while True:
    query, client = server.recvfrom(512)
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    asked, (kind,) = ".".join(labels), struct.unpack(">H", query[at + 1 : at + 3])
    print(asked, kind, flush=True)
    is_known = asked.lower() == name
    has_answer = is_known and kind == 1
    flags = 0x8180 if is_known else 0x8183
    answer = query[:2] + struct.pack(">HHHHH", flags, 1, has_answer, 0, 0) + query[12 : at + 5]
    if has_answer:
        answer += struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(address)
    server.sendto(answer, client)
