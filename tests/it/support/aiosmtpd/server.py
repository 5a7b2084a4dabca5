"""Listens on loopback with STARTTLS and AUTH demanded, and writes each mail it takes into taken.jsonl."""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

port, user, password = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3].encode()


class Taking:
    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        body = lambda kind: (mail.get_body((kind,)) or email.message.EmailMessage()).get_payload(decode=True)
        with open("taken.jsonl", "a") as file:
            print(json.dumps({
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "message_id": mail["message-id"],
                "subject": mail["subject"],
                "sender": mail["from"],
                "defects": [str(defect) for defect in mail.defects],
                "text": (body("plain") or b"").decode(),
                "html": (body("html") or b"").decode(),
                "attachments": [
                    {
                        "name": part.get_filename(),
                        "type": part.get_content_type(),
                        "text": part.get_payload(decode=True).decode(),
                    }
                    for part in mail.iter_attachments()
                ],
            }), file=file, flush=True)
        return "250 2.0.0 taken"


def authenticate(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (user, password), handled=False)


def session():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("certificate.pem", "key.pem")
    return SMTP(
        Taking(),
        hostname="aiosmtpd.test",
        tls_context=context,
        require_starttls=True,
        authenticator=authenticate,
        auth_required=True,
    )


async def serve():
    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(serve())
