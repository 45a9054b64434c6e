"""Signs a mail with dkimpy: FILE KEY DOMAIN SELECTOR. Writes the signed mail to stdout."""

import sys

import dkim

path, key, domain, selector = sys.argv[1:]
with open(path, "rb") as file:
    mail = file.read()
with open(key, "rb") as file:
    key = file.read()
signature = dkim.sign(
    mail, selector.encode(), domain.encode(), key, canonicalize=(b"relaxed", b"relaxed")
)
sys.stdout.buffer.write(signature + mail)
