"""Has opendkim sign a mail, and prints the DKIM-Signature field.

    opendkim_sign.py SOCKET HEADER BODY    "Name: value" lines; lines by LF

A client of the milter protocol, as far as signing needs it.
"""

import socket
import struct
import sys

path, header, body = sys.argv[1:]
milter = socket.socket(socket.AF_UNIX)
milter.settimeout(15)
milter.connect(path)
stream = milter.makefile("rb")


def say(command, data=b""):
    milter.sendall(struct.pack(">I", len(data) + 1) + command + data)


def hear():
    (length,) = struct.unpack(">I", stream.read(4))
    answer = stream.read(length)
    return answer[:1], answer[1:]


def ask(command, data=b""):
    say(command, data)
    answer = hear()
    assert answer[0] in b"ca", (command, answer)


# Version 6, every change, every step with its answer.
say(b"O", struct.pack(">III", 6, 0x1FF, 0))
assert hear()[0] == b"O"
ask(b"C", b"localhost\0004" + struct.pack(">H", 1025) + b"127.0.0.1\0")
ask(b"H", b"mx.signer.test\0")
say(b"D", b"Mi\0test\0")
ask(b"M", b"<ann@signer.test>\0")
ask(b"R", b"<bob@ours.test>\0")
for line in header.split("\n"):
    name, value = line.split(": ", 1)
    ask(b"L", f"{name}\0{value}\0".encode())
ask(b"N")
ask(b"B", body.replace("\n", "\r\n").encode())
say(b"E")
while True:
    command, data = hear()
    if command in b"hi":
        name, value = data[0 if command == b"h" else 4 :].split(b"\0")[:2]
        assert name == b"DKIM-Signature"
        print(f"DKIM-Signature: {value.decode().strip()}")
    if command in b"ca":
        break
    assert command in b"hi", (command, data)
