"""A webhook's receiver: appends a line for each event to a file, then answers.

Arguments: port (0: any), file. Prints its port. A line: the event's id, and the SHA-256 of the mail
data or, if it stands elsewhere, its address.
"""
import asyncio
import base64
import hashlib
import json
import os
import sys

out = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def take(headers, body):
    event = json.loads(body)
    assert headers["webhook-id"] == event["id"], headers
    raw = event["data"]["raw"]
    value = raw["ref"] if "ref" in raw else hashlib.sha256(base64.b64decode(raw["data"])).hexdigest()
    os.write(out, f"{event['id']} {value}\n".encode())


class Hook(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer, self.head = transport, bytearray(), None

    def data_received(self, octets):
        self.buffer += octets
        while True:
            if self.head is None:
                end = self.buffer.find(b"\r\n\r\n")
                if end < 0:
                    return
                first, *lines = self.buffer[:end].decode("latin-1").split("\r\n")
                fields = (line.partition(":") for line in lines)
                headers = {name.lower(): value.strip() for name, _, value in fields}
                self.head = (first.split(" ")[0], headers, int(headers.get("content-length", 0)))
                del self.buffer[:end + 4]
            method, headers, length = self.head
            if len(self.buffer) < length:
                return
            body = bytes(self.buffer[:length])
            del self.buffer[:length]
            self.head = None
            if method == "POST":
                take(headers, body)
            status = b"204 No Content" if method == "POST" else b"405 Method Not Allowed"
            end = b"" if method == "POST" else b"Content-Length: 0\r\n"
            self.transport.write(b"HTTP/1.1 " + status + b"\r\n" + end + b"\r\n")


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Hook, "127.0.0.1", int(sys.argv[1]))
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
