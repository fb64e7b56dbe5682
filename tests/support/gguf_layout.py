"""Where the parts of a GGUF v3 file's head lie, so that tests can spoil one of them. For sound files only."""

import struct
from pathlib import Path

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # value type -> bytes
_STRING, _ARRAY = 8, 9


class Layout:
    """`values`: key -> offset of its value's bytes (a string's text); `tensors`: [(name, offset of type, offset of offset)]."""

    def __init__(self, path: Path):
        with Path(path).open("rb") as file:
            self._bytes = file.read(16 << 20)  # far more than the heads of the test models
        self._at = 8
        tensors, pairs = self._take("<QQ")
        self.values, self.tensors = {}, []
        for _ in range(pairs):
            key = self._string()
            (kind,) = self._take("<I")
            self.values[key] = self._at + (8 if kind == _STRING else 0)
            self._skip(kind)
        for _ in range(tensors):
            name = self._string()
            (dims,) = self._take("<I")
            self._at += 8 * dims
            self.tensors.append((name, self._at, self._at + 4))
            self._at += 12

    def _take(self, layout: str) -> tuple:
        values = struct.unpack_from(layout, self._bytes, self._at)
        self._at += struct.calcsize(layout)
        return values

    def _string(self) -> str:
        (size,) = self._take("<Q")
        self._at += size
        return self._bytes[self._at - size:self._at].decode(errors="replace")

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            self._string()
        elif kind == _ARRAY:
            element, count = self._take("<IQ")
            for _ in range(count if element in (_STRING, _ARRAY) else 0):
                self._skip(element)
            self._at += 0 if element in (_STRING, _ARRAY) else count * _SIZES[element]
        else:
            self._at += _SIZES[kind]
