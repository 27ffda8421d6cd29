"""What crosses Redis: frozen, tagged msgspec Structs by topic, in msgpack."""

from bec_bluesky.messages._codec import decoder, encode, pack, unpack

__all__ = ["decoder", "encode", "pack", "unpack"]
