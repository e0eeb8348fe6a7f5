"""WebSocket frames (RFC 6455), as much as an echo needs: text, close, no fragments, at most 125 bytes."""

import base64
import hashlib
import os
import struct

TEXT, CLOSE = 1, 8
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_of(key):
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def new_key():
    return base64.b64encode(os.urandom(16)).decode()


def frame(kind, content, masked):
    head = struct.pack("!BB", 0x80 | kind, len(content) | (0x80 if masked else 0))
    if not masked:
        return head + content
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(content))


def read_frame(stream):
    """Kind and content of the next frame, or None at the end of the stream."""
    head = stream.read(2)
    if len(head) < 2:
        return None
    length = head[1] & 0x7F
    mask = stream.read(4) if head[1] & 0x80 else b"\0\0\0\0"
    content = stream.read(length)
    if len(content) < length:
        return None
    return head[0] & 0xF, bytes(byte ^ mask[place % 4] for place, byte in enumerate(content))
