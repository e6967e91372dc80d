# A mail server that writes what arrives to a folder, one file for each mail.
# Arguments: folder, port, and for TLS a certificate with its key, and whether
# TLS begins at once. The user `me` has the password `secret`.
import json
import ssl
import sys
import time

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

folder, port, certificate, implicit = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


class Keep:
    count = 0

    async def handle_DATA(self, server, session, envelope):
        Keep.count += 1
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "text": envelope.content.decode("utf-8", "replace"),
            "encrypted": session.ssl is not None or implicit == "implicit",
            "user": session.auth_data.login.decode() if session.auth_data else "",
        }
        path = f"{folder}/mail{Keep.count}"
        with open(path + ".part", "w") as file:
            json.dump(mail, file)
        import os

        os.rename(path + ".part", path + ".json")
        return "250 kept"


def check(server, session, envelope, mechanism, data):
    good = getattr(data, "login", b"") == b"me" and data.password == b"secret"
    return AuthResult(success=good, handled=False, auth_data=data)


options = {"authenticator": check, "auth_require_tls": False}
context = None
if certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
if context and implicit == "implicit":
    options["ssl_context"] = context
elif context:
    options["tls_context"] = context
Controller(Keep(), hostname="127.0.0.1", port=port, **options).start()
while True:
    time.sleep(3600)
