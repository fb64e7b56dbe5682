"""How many thread blocks of a kernel a multiprocessor holds, and what limits them.

The limits are those of the CUDA C++ programming guide 13.0, "Technical Specifications per Compute Capability"; registers are
given to a warp in units of 256, a multiprocessor has four parts of a quarter of them each, and each thread block takes 1 KiB of
shared memory for itself.
"""

from dataclasses import dataclass

_REGISTERS = 64 * 1024
_REGISTER_UNIT = 256
_PARTS = 4
_RESERVED_SHARED = 1024
_KIB = 1024


@dataclass(frozen=True)
class Limits:
    threads: int
    blocks: int
    shared: int  # bytes of a multiprocessor
    block_shared: int  # of a thread block, the reserved ones not among them


LIMITS = {
    "sm_80": Limits(2048, 32, 164 * _KIB, 163 * _KIB),
    "sm_86": Limits(1536, 16, 100 * _KIB, 99 * _KIB),
    "sm_89": Limits(1536, 24, 100 * _KIB, 99 * _KIB),
    "sm_90a": Limits(2048, 32, 228 * _KIB, 227 * _KIB),
    "sm_100a": Limits(2048, 32, 228 * _KIB, 227 * _KIB),
    "sm_120": Limits(1536, 24, 100 * _KIB, 99 * _KIB),
}


@dataclass(frozen=True)
class Occupancy:
    blocks: int  # thread blocks of a multiprocessor; 0: the kernel does not fit
    warps_share: float  # of the warps that it could hold
    limiter: str


def occupancy(arch: str, registers: int, threads: int, shared: int) -> Occupancy:
    """`shared`: bytes of a thread block, static and dynamic."""
    limits = LIMITS[arch]
    warps = -(-threads // 32)
    warp_registers = -(-max(registers, 1) * 32 // _REGISTER_UNIT) * _REGISTER_UNIT
    resident_warps = _REGISTERS // _PARTS // warp_registers * _PARTS
    by = {
        "registers": resident_warps // warps,
        "threads": limits.threads // (warps * 32),
        "blocks": limits.blocks,
        "shared memory": limits.shared // (shared + _RESERVED_SHARED) if shared <= limits.block_shared else 0,
    }
    limiter = min(by, key=lambda name: by[name])
    return Occupancy(by[limiter], by[limiter] * warps * 32 / limits.threads, limiter)
