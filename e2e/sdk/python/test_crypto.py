import base64
import contextlib
import inspect
import json
import os
import pathlib
import tempfile
import warnings

from dapr.clients.grpc._crypto import DecryptOptions, EncryptOptions
from sidecar import Case, Sidecar, component

VAULT = 'vault'


@contextlib.contextmanager
def sidecar_with_keys():
    with tempfile.TemporaryDirectory() as folder:
        for name in ('one', 'two'):
            secret = base64.urlsafe_b64encode(os.urandom(32)).rstrip(b'=').decode()
            key = json.dumps({'kty': 'oct', 'k': secret})
            pathlib.Path(folder, f'{name}.json').write_text(key)
        path = {'name': 'path', 'value': folder}
        with Sidecar(parts=[component(VAULT, 'crypto.dapr.localstorage', [path])]) as sidecar:
            yield sidecar.ready()


async def read(response):
    if inspect.isawaitable(response):
        response = await response
    text = response.read()
    return await text if inspect.isawaitable(text) else text


class Crypto(Case):
    def setUp(self):
        # The SDK says in each call that the API is an alpha version.
        warnings.simplefilter('ignore', UserWarning)

    async def test_documents_come_back(self):
        with sidecar_with_keys() as sidecar:

            async def check(client, _):
                for length in (5, 64 << 10, 300_000):
                    plain = os.urandom(length)
                    options = EncryptOptions(VAULT, 'one.json', 'A256KW')
                    secret = await read(await client.encrypt(plain, options))
                    self.assertNotIn(plain or b'nothing', secret)
                    got = await read(await client.decrypt(secret, DecryptOptions(VAULT)))
                    self.assertEqual(got, plain)

            await self.both(sidecar, check)

    async def test_refusals(self):
        with sidecar_with_keys() as sidecar:

            async def check(client, _):
                async def encrypt(key, vault=VAULT, wrap='A256KW'):
                    return await read(await client.encrypt(b'x', EncryptOptions(vault, key, wrap)))

                async def decrypt(secret, key=''):
                    return await read(await client.decrypt(secret, DecryptOptions(VAULT, key)))

                secret = await encrypt('one.json')
                for refused in (
                    lambda: encrypt('absent.json'),
                    lambda: encrypt('one.json', wrap='ROT13'),
                    lambda: encrypt('one.json', vault='nowhere'),
                    lambda: decrypt(secret, 'two.json'),
                    lambda: decrypt(secret[:-1] + bytes([secret[-1] ^ 1])),
                ):
                    with self.assertRaises(Exception) as caught:
                        await refused()
                    self.assertTrue(hasattr(caught.exception, 'code'), repr(caught.exception))

            await self.both(sidecar, check)
