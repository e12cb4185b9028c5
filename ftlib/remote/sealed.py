"""Secrets on their way to a job: sealed to a key that only the job's own process has, so that what Ray stores of a job,
lists of it or logs for it holds none.

X25519 (RFC 7748), HKDF-SHA256 and ChaCha20-Poly1305, as in an anonymous sealed box: the sender's key is made for one
message and forgotten.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ftlib.errors import FtlibError, InputError

KEY = "ftlib: secrets may be sealed to "  # how the line of a job's log begins that shows its public key
KEY_BYTES = 32
NONCE = bytes(12)  # a key seals one message


class Receiver:
    """One side of a hand-over: its public key can be shown to anyone, the private one never leaves this object."""

    def __init__(self) -> None:
        self._key = X25519PrivateKey.generate()

    @property
    def public(self) -> str:
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def open(self, box: bytes) -> dict[str, str]:
        """The secrets in a box. Raises FtlibError for a box that was not sealed for this receiver."""
        sender, sealed = box[:KEY_BYTES], box[KEY_BYTES:]
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(sender))
            opened = _cipher(shared, sender, self._key.public_key().public_bytes_raw()).decrypt(NONCE, sealed, None)
        except (InvalidTag, ValueError):
            raise FtlibError("the secrets that came were not sealed for this job: submit it again.") from None
        secrets: dict[str, str] = json.loads(opened)
        return secrets


def seal(secrets: Mapping[str, str], receiver: str) -> bytes:
    """A box that only the receiver with that public key can open."""
    public = base64.b64decode(receiver)
    sender = X25519PrivateKey.generate()
    shared = sender.exchange(X25519PublicKey.from_public_bytes(public))
    own = sender.public_key().public_bytes_raw()
    return own + _cipher(shared, own, public).encrypt(NONCE, json.dumps(dict(secrets)).encode(), None)


def box(job: str) -> str:
    """Where the sealed secrets of a job lie until it takes them: the address of a package, to Ray."""
    return f"gcs://ftlib-box-{job}.zip"


def _cipher(shared: bytes, sender: bytes, receiver: bytes) -> ChaCha20Poly1305:
    info = b"ftlib secrets" + sender + receiver
    return ChaCha20Poly1305(HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(shared))


def from_environment(names: Sequence[str]) -> dict[str, str]:
    """The values of the named variables. Raises InputError for one that is not set, or that shows a value."""
    for name in names:
        if "=" in name:  # the value would stand in the shell's history and in the process list
            raise InputError(
                "--secret takes a name, as in --secret WANDB_API_KEY; its value comes from the environment."
            )
        if not os.environ.get(name):
            raise InputError(f"--secret {name}: the environment has no {name}: export it first.")
    return {name: os.environ[name] for name in names}
