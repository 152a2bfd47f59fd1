"""
An arithmetic coder: symbols in, as many bits out as they are surprising.

    encoder = Encoder()
    encoder.encode(low, high, total)      # a symbol that owns the numbers low .. high - 1 of 0 .. total - 1
    data = encoder.finish()

    decoder = Decoder(data)
    number = decoder.number(total)        # one of the numbers that the next symbol owns: look up which
    decoder.decode(low, high, total)      # and say so

A whole message is one number between 0 and 1. Each symbol narrows the interval in which it lies to the symbol's share,
and a share of 1/8 costs three bits. Integers of 32 bits stand for the interval; leading bits on which both of its ends
agree are final and leave. (Witten, Neal & Cleary 1987)
"""

BITS = 32
HALF, QUARTER, MASK = 1 << (BITS - 1), 1 << (BITS - 2), (1 << BITS) - 1
MOST = QUARTER  # the largest total: the interval is never smaller, so that every symbol keeps at least one number


class Interval:
    """What encoder and decoder do alike: narrow the interval, then let go of what is settled, bit by bit."""

    def __init__(self):
        self.low, self.high = 0, MASK

    def narrow(self, low: int, high: int, total: int):
        """To the share low .. high of total. ValueError for an empty share or too large a total."""
        if not 0 <= low < high <= total <= MOST:
            raise ValueError(f"no share of the interval: {low} to {high} of {total}")
        width = self.high - self.low + 1
        self.low, self.high = self.low + width * low // total, self.low + width * high // total - 1
        while True:
            if self.high < HALF or self.low >= HALF:  # both ends in one half: its bit is settled
                self.settled(self.low >> (BITS - 1))
            elif self.low >= QUARTER and self.high < HALF + QUARTER:  # about the middle: the next bit will tell
                self.straddled()
                self.low, self.high = self.low - QUARTER, self.high - QUARTER
            else:
                return
            self.low, self.high = self.low << 1 & MASK, self.high << 1 & MASK | 1


class Encoder(Interval):
    """Symbols to bytes."""

    def __init__(self):
        super().__init__()
        self.bits = bytearray()  # "0" and "1"
        self.waiting = 0  # bits after the next one, all its opposite

    def encode(self, low: int, high: int, total: int):
        """Append the symbol that owns low .. high - 1 of total."""
        self.narrow(low, high, total)

    def settled(self, bit: int):
        self.bits += b"01"[bit : bit + 1] + b"10"[bit : bit + 1] * self.waiting
        self.waiting = 0

    def straddled(self):
        self.waiting += 1

    def finish(self) -> bytes:
        """The message: two more bits name a quarter that lies inside the interval."""
        self.waiting += 1
        self.settled(int(self.low >= QUARTER))
        padded = self.bits + b"0" * (-len(self.bits) % 8)
        return int(b"1" + padded, 2).to_bytes(len(padded) // 8 + 1, "big")[1:]


class Decoder(Interval):
    """Bytes to symbols. Behind the message it reads zeros; how many symbols there are must be known otherwise."""

    def __init__(self, data: bytes):
        super().__init__()
        self.data, self.at = data, BITS
        self.value = int.from_bytes(data[: BITS // 8].ljust(BITS // 8, b"\0"), "big")

    def number(self, total: int) -> int:
        """A number of 0 .. total - 1 that belongs to the next symbol."""
        return ((self.value - self.low + 1) * total - 1) // (self.high - self.low + 1)

    def decode(self, low: int, high: int, total: int):
        """Go on behind that symbol, which owns low .. high - 1 of total."""
        self.narrow(low, high, total)

    def settled(self, bit: int):
        byte, place = divmod(self.at, 8)
        following = self.data[byte] >> (7 - place) & 1 if byte < len(self.data) else 0
        self.value = self.value << 1 & MASK | following
        self.at += 1

    def straddled(self):
        self.value -= QUARTER
        # the shift that follows is the same as for a settled bit
        self.settled(0)
