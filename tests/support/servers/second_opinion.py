"""Generated mails and SPF records, with what dkimpy and pyspf say of them, as JSON.

    second_opinion.py dkim COUNT SEED
    second_opinion.py spf COUNT SEED
"""

import json
import pathlib
import random
import sys

SUITES = pathlib.Path(__file__).resolve().parents[3] / "target/servers/suites"
DATA = SUITES / "dkimpy-1.1.8/dkim/tests/data"
RSA = (
    "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3id"
    "Y6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM"
    "KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"
)
ED25519 = "v=DKIM1; k=ed25519; p=yi50DjK5O9pqbFpNHklsv9lqaS0ArSYu02qp1S0DW1Y="


def lines(draw, count):
    words = ["Hello", "there ", " is", "\t", "  ", "", "caf\u00e9", "=20", ".", "x" * 70]
    return ["".join(draw.choices(words, k=draw.randint(0, 5))) for _ in range(count)]


def header(draw):
    fields = ["From: Ann <ann@signer.test>", "To: bob@ours.test"]
    for name in draw.sample(["Subject", "Date", "Message-ID", "X-Odd", "Cc", "Received"], 4):
        value = draw.choice(["one", "one  two", "one\r\n two", " \ttabs\t ", "", "a:b;c=d"])
        fields += [f"{name}:{draw.choice(['', ' ', '  '])}{value}"] * draw.choice([1, 1, 2])
    draw.shuffle(fields)
    return fields


def mutate(draw, mail):
    head, body = mail.split(b"\r\n\r\n", 1)
    kind = draw.choice(
        ["none", "none", "blanks", "end", "body", "header", "drop", "double", "case", "tag", "fold"]
    )
    if kind == "blanks":
        body += draw.choice([b" \r\n", b"\r\n\r\n", b"\t\r\n \r\n"])
    elif kind == "end":
        body = body.rstrip(b"\r\n") + draw.choice([b"\r\n", b"\r\n\r\n", b" \r\n"])
    elif kind == "body" and body:
        at = draw.randrange(len(body))
        body = body[:at] + b"Z" + body[at + 1 :]
    elif kind in ("header", "drop", "double", "case", "fold"):
        # The signature comes first and may be folded.
        fields, found = [], head.split(b"\r\n")
        for line in found:
            if line[:1] in (b" ", b"\t") and fields:
                fields[-1] += b"\r\n" + line
            else:
                fields.append(line)
        at = draw.randrange(1, len(fields))
        name, value = fields[at].split(b":", 1)
        if kind == "header":
            fields[at] = name + b":" + value + b"!"
        elif kind == "drop":
            del fields[at]
        elif kind == "double":
            fields.insert(1, fields[at])
        elif kind == "case":
            fields[at] = name.upper() + b":" + value
        else:
            fields[at] = name + b": " + b" ".join(value.split())
        head = b"\r\n".join(fields)
    elif kind == "tag":
        old, new = draw.choice(
            [(b"d=signer", b"d=other"), (b"s=", b"s=x"), (b"bh=", b"bh=A"), (b"a=", b"a=x")]
        )
        head = head.replace(old, new, 1)
    return head + b"\r\n\r\n" + body


def dkim_cases(count, draw):
    import dkim

    keys = {
        b"rsa": ((DATA / "test.private").read_bytes(), b"rsa-sha256", RSA),
        b"ed": ((DATA / "ed25519test.key").read_bytes(), b"ed25519-sha256", ED25519),
    }
    zone = {f"{name.decode()}._domainkey.signer.test": [["TXT", key[2]]] for name, key in keys.items()}

    def texts(name, timeout=5):
        found = zone.get(name.decode().rstrip(".").lower())
        return found[0][1].encode() if found else None

    cases = []
    for _ in range(count):
        name = draw.choice(list(keys))
        private, algorithm, _ = keys[name]
        mail = "\r\n".join(header(draw) + ["", ""] + lines(draw, draw.randint(0, 6)))
        mail = mail.encode() + draw.choice([b"", b"\r\n", b"\r\n\r\n"])
        kinds = [b"simple", b"relaxed"]
        signed = draw.sample([b"to", b"subject", b"date", b"x-odd", b"cc", b"missing"], 3)
        signature = dkim.sign(
            mail, name, b"signer.test", private, signature_algorithm=algorithm,
            canonicalize=(draw.choice(kinds), draw.choice(kinds)),
            include_headers=[b"from"] + signed,
        )
        mail = mutate(draw, signature + mail)
        try:
            passes = bool(dkim.verify(mail, dnsfunc=texts))
        except Exception:
            passes = False
        cases.append({"mail": mail.hex(), "passes": passes})
    return {"zone": zone, "cases": cases}


def spf_record(draw, names):
    def domain():
        return draw.choice(names + ["%{d}", "%{l}.n0.test", "%{ir}.n1.test", "%{d1r}.test", "gone.test"])

    terms = []
    for _ in range(draw.randint(0, 4)):
        qualifier = draw.choice(["", "", "+", "-", "~", "?"])
        terms.append(qualifier + draw.choice([
            "a", "mx", "a/24", "a//64", f"a:{domain()}", f"mx:{domain()}", f"mx:{domain()}/28//96",
            f"include:{domain()}", f"exists:{domain()}", "ip4:192.0.2.0/28", "ip4:192.0.2.5",
            "ip6:2001:db8::/64", "ip6:2001:db8::5", "ip4:192.0.2.300", "foo", "a:bad_.%",
        ][: 14 if draw.random() < 0.95 else 16]))
    if draw.random() < 0.15:
        terms.append(f"redirect={domain()}")
    if draw.random() < 0.6:
        terms.append(draw.choice(["-all", "~all", "?all", "all"]))
    if draw.random() < 0.1:
        terms.append("x-unknown=%{d}")
    return " ".join(["v=spf1"] + terms)


def spf_cases(count, draw):
    sys.path.insert(0, str(SUITES / "pyspf-2.0.14"))
    import spf

    cases = []
    for _ in range(count):
        names = [f"n{number}.test" for number in range(6)]
        zone = {}
        for name in names:
            entries = zone.setdefault(name, [])
            for _ in range(draw.choice([0, 1, 1, 1, 1, 1, 2])):
                entries.append(["TXT", spf_record(draw, names)])
            for _ in range(draw.randint(0, 2)):
                entries.append(["A", f"192.0.2.{draw.randint(1, 9)}"])
                entries.append(["AAAA", f"2001:db8::{draw.randint(1, 9)}"])
            for _ in range(draw.randint(0, 2)):
                entries.append(["MX", draw.choice(names)])

        def look_up(name, kind, *_, **__):
            name = name.rstrip(".").lower()
            for of, value in zone.get(name, []):
                if of == kind:
                    if kind == "MX":
                        value = (10, value)
                    elif kind == "TXT":
                        value = (value.encode(),)
                    elif kind == "AAAA":
                        value = spf.socket.inet_ntop(
                            spf.socket.AF_INET6, spf.socket.inet_pton(spf.socket.AF_INET6, value))
                    yield ((name, of), value)

        spf.DNSLookup = lambda *args, **more: list(look_up(*args, **more))
        client = draw.choice([f"192.0.2.{draw.randint(1, 20)}", f"2001:db8::{draw.randint(1, 20):x}"])
        sender = f"{draw.choice(['ann', 'n3'])}@{draw.choice(names)}"
        query = spf.query(i=client, s=sender, h="mx.signer.test", strict=1)
        result = query.check()[0]
        cases.append({"zone": zone, "client": client, "sender": sender, "result": result})
    return {"cases": cases}


kind, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
generate = {"dkim": dkim_cases, "spf": spf_cases}[kind]
json.dump(generate(count, random.Random(seed)), sys.stdout)
