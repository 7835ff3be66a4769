//! What this machine offers: instruction sets, and how many threads the process may use.

use super::abi::isa;
use super::sys;

/// The [`isa`] bits of this CPU that the operating system has enabled.
#[cfg(target_arch = "x86_64")]
pub fn detect() -> u64 {
    use core::arch::x86_64::{__cpuid, __cpuid_count};

    /// (register word, bit in it, what must be saved by the system, isa bit)
    type Row = (u32, u32, u64, u64);
    const NONE: u64 = 0;
    const YMM: u64 = 0b110;
    const ZMM: u64 = 0b1110_0110;
    const TMM: u64 = 0b11 << 17;

    let leaf0 = __cpuid(0);
    let leaf1 = __cpuid(1);
    let (leaf7, leaf7_1) = if leaf0.eax >= 7 {
        let first = __cpuid_count(7, 0);
        let second = if first.eax >= 1 { __cpuid_count(7, 1).eax } else { 0 };
        ((first.ebx, first.ecx, first.edx), second)
    } else {
        ((0, 0, 0), 0)
    };
    let extended = if __cpuid(0x8000_0000).eax >= 0x8000_0001 { __cpuid(0x8000_0001).ecx } else { 0 };
    let saved = if leaf1.ecx & (1 << 27) != 0 { xgetbv() } else { 0 };

    let (ebx, ecx, edx) = leaf7;
    let rows: [Row; 28] = [
        (leaf1.edx, 26, NONE, isa::SSE2),
        (leaf1.ecx, 0, NONE, isa::SSE3),
        (leaf1.ecx, 9, NONE, isa::SSSE3),
        (leaf1.ecx, 19, NONE, isa::SSE4_1),
        (leaf1.ecx, 20, NONE, isa::SSE4_2),
        (leaf1.ecx, 23, NONE, isa::POPCNT),
        (leaf1.ecx, 28, YMM, isa::AVX),
        (leaf1.ecx, 29, YMM, isa::F16C),
        (leaf1.ecx, 12, YMM, isa::FMA),
        (ebx, 5, YMM, isa::AVX2),
        (ebx, 3, NONE, isa::BMI1),
        (ebx, 8, NONE, isa::BMI2),
        (extended, 5, NONE, isa::LZCNT),
        (ebx, 16, ZMM, isa::AVX512F),
        (ebx, 30, ZMM, isa::AVX512BW),
        (ebx, 17, ZMM, isa::AVX512DQ),
        (ebx, 31, ZMM, isa::AVX512VL),
        (ebx, 28, ZMM, isa::AVX512CD),
        (ecx, 11, ZMM, isa::AVX512VNNI),
        (leaf7_1, 5, ZMM, isa::AVX512BF16),
        (edx, 23, ZMM, isa::AVX512FP16),
        (ecx, 1, ZMM, isa::AVX512VBMI),
        (ecx, 12, ZMM, isa::AVX512BITALG),
        (ecx, 14, ZMM, isa::AVX512VPOPCNTDQ),
        (leaf7_1, 4, YMM, isa::AVX_VNNI),
        (edx, 24, TMM, isa::AMX_TILE),
        (edx, 22, TMM, isa::AMX_BF16),
        (edx, 25, TMM, isa::AMX_INT8),
    ];
    let mut bits = 0;
    for (word, bit, needs, feature) in rows {
        if (word >> bit) & 1 != 0 && saved & needs == needs {
            bits |= feature;
        }
    }
    bits
}

#[cfg(target_arch = "x86_64")]
fn xgetbv() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller saw OSXSAVE, so the instruction exists and XCR0 can be read.
    unsafe {
        core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    (high as u64) << 32 | low as u64
}

/// The [`isa`] bits of this CPU.
#[cfg(target_arch = "aarch64")]
pub fn detect() -> u64 {
    isa::NEON
}

/// How many threads the process may use: its affinity mask, limited by the quota of its control groups.
pub fn default_threads() -> u32 {
    let affinity = sys::affinity_count();
    let mut table = [0u8; 4096];
    let got = sys::read_file(b"/proc/self/cgroup\0", &mut table);
    let table = table.get(..got).unwrap_or(&[]);
    let mut limit = u64::MAX;
    for line in table.split(|&byte| byte == b'\n') {
        // "0::/path" is version 2, "4:cpu,cpuacct:/path" is version 1.
        let mut parts = line.splitn(3, |&byte| byte == b':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if controllers.is_empty() {
            limit = limit.min(quota_along(b"/sys/fs/cgroup", path, Version::Two));
        } else if controllers.split(|&byte| byte == b',').any(|name| name == b"cpu") {
            limit = limit.min(quota_along(b"/sys/fs/cgroup/cpu", path, Version::One));
            limit = limit.min(quota_along(b"/sys/fs/cgroup/cpu,cpuacct", path, Version::One));
        }
    }
    (affinity as u64).min(limit).clamp(1, super::abi::MAX_THREADS as u64) as u32
}

#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

/// The smallest quota, in whole CPUs (at least 1), of a group and its ancestors. In a container the path may not exist; its root does.
fn quota_along(root: &[u8], path: &[u8], version: Version) -> u64 {
    let mut limit = u64::MAX;
    let mut length = path.len();
    loop {
        let path = path.get(..length).unwrap_or(&[]);
        let quota = match version {
            Version::Two => read_numbers(root, path, b"/cpu.max"),
            Version::One => {
                (read_numbers(root, path, b"/cpu.cfs_quota_us").0, read_numbers(root, path, b"/cpu.cfs_period_us").0)
            }
        };
        if let (Some(quota), Some(period)) = quota
            && period > 0
        {
            limit = limit.min((quota / period).max(1));
        }
        let Some(parent) = path.iter().rposition(|&byte| byte == b'/') else {
            return limit;
        };
        length = parent;
    }
}

/// The first two words of a small file, where they are numbers ("max" and "-1" are not).
fn read_numbers(root: &[u8], path: &[u8], file: &[u8]) -> (Option<u64>, Option<u64>) {
    let mut name = [0u8; 1024];
    let bytes = root.iter().chain(path).chain(file);
    if root.len() + path.len() + file.len() >= name.len() {
        return (None, None);
    }
    for (slot, &byte) in name.iter_mut().zip(bytes) {
        *slot = byte;
    }
    let mut content = [0u8; 64];
    let got = sys::read_file(&name, &mut content);
    let mut words = content.get(..got).unwrap_or(&[]).split(|byte| byte.is_ascii_whitespace());
    (words.next().and_then(number), words.next().and_then(number))
}

fn number(word: &[u8]) -> Option<u64> {
    let mut value = None;
    for &byte in word {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = Some(value.unwrap_or(0u64).checked_mul(10)?.checked_add(digit as u64)?);
    }
    value
}
