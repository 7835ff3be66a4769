//! The CPU that code is made for, as the choice of algorithms sees it: sizes of caches, and how much arithmetic there is for each
//! byte of memory.
//!
//! Facts are read (`sysfs`, `cpuid`) or written down here with their source, never measured: two compilations on one machine give
//! the same bytes. For a CPU by name the values are those of [`Machine::typical`].

use crate::strategy::Cut;
use crate::x86::Isa;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The part of the time that memory takes which is never hidden behind arithmetic. Like the other constants of the cost model fitted
/// to the times of 32 convolutions of the zoo's networks on Emerald Rapids, each by two or three algorithms.
const EXPOSED: f64 = 0.4;
/// What loops, stores and caches cost beside the arithmetic: convolutions reach four fifths of the peak.
pub const OVERHEAD: f64 = 1.2;

/// Bytes of the caches that one core sees: first level (data), second, and what is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    pub l1: usize,
    pub l2: usize,
    pub l3: usize,
}

impl Caches {
    /// What server cores of the last years have at least; for code that is made for another machine.
    pub const TYPICAL: Caches = Caches { l1: 32 << 10, l2: 1 << 20, l3: 16 << 20 };

    /// As the system describes the first core's.
    pub fn of_this_cpu() -> Option<Caches> {
        let folder = Path::new("/sys/devices/system/cpu/cpu0/cache");
        let entry = |index: usize, file: &str| {
            std::fs::read_to_string(folder.join(format!("index{index}")).join(file)).ok().map(|s| s.trim().to_string())
        };
        let entries = (0..8).map_while(|i| Some([entry(i, "level")?, entry(i, "type")?, entry(i, "size")?]));
        Caches::from_entries(entries).or_else(by_cpuid)
    }

    /// From `[level, type, size]`, like `["1", "Data", "48K"]`.
    fn from_entries(entries: impl Iterator<Item = [String; 3]>) -> Option<Caches> {
        let (mut l1, mut l2, mut l3) = (None, None, None);
        for [level, kind, size] in entries.filter(|[_, kind, _]| kind != "Instruction") {
            let to = match (level.as_str(), kind.as_str()) {
                ("1", "Data" | "Unified") => &mut l1,
                ("2", _) => &mut l2,
                ("3", _) => &mut l3,
                _ => continue,
            };
            *to = Some(parse_size(&size)?);
        }
        // Some machines have no third level.
        Some(Caches { l1: l1?, l2: l2?, l3: l3.or(l2)? })
    }
}

/// Intel's leaf 4 and AMD's 0x8000001D describe a cache of a core in the same form.
#[cfg(target_arch = "x86_64")]
fn by_cpuid() -> Option<Caches> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let leaf = [4, 0x8000_001d].into_iter().find(|&leaf| {
        let most = __cpuid(leaf & 0x8000_0000).eax;
        most >= leaf && __cpuid_count(leaf, 0).eax & 31 != 0
    })?;
    let entry = |index: u32| {
        let r = __cpuid_count(leaf, index);
        let kind = ["", "Data", "Instruction", "Unified"].get((r.eax & 31) as usize).filter(|k| !k.is_empty())?;
        let (ways, partitions, line) = ((r.ebx >> 22) + 1, ((r.ebx >> 12) & 0x3ff) + 1, (r.ebx & 0xfff) + 1);
        let size = u64::from(ways) * u64::from(partitions) * u64::from(line) * (u64::from(r.ecx) + 1);
        Some([((r.eax >> 5) & 7).to_string(), kind.to_string(), size.to_string()])
    };
    Caches::from_entries((0..8).map_while(entry))
}

#[cfg(not(target_arch = "x86_64"))]
fn by_cpuid() -> Option<Caches> {
    None
}

/// `48K`, `2M`, or bytes.
fn parse_size(text: &str) -> Option<usize> {
    let (digits, shift) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) => (digits, [('K', 10), ('M', 20), ('G', 30)].iter().find(|(c, _)| text.ends_with(*c))?.1),
        None => (text, 0),
    };
    let size = digits.parse::<usize>().ok()?.checked_mul(1 << shift)?;
    (1..=1 << 40).contains(&size).then_some(size)
}

impl FromStr for Caches {
    type Err = String;

    /// `L1,L2,L3`: `48K,2M,32M`.
    fn from_str(text: &str) -> Result<Caches, String> {
        let sizes: Option<Vec<usize>> = text.split(',').map(parse_size).collect();
        match sizes.as_deref() {
            Some(&[l1, l2, l3]) if l1 <= l2 && l2 <= l3 => Ok(Caches { l1, l2, l3 }),
            _ => Err("give three growing sizes, of the caches of first to third level, like 32K,1M,16M".into()),
        }
    }
}

impl fmt::Display for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |n: usize| match n {
            n if n.is_multiple_of(1 << 20) => format!("{}M", n >> 20),
            n if n.is_multiple_of(1 << 10) => format!("{}K", n >> 10),
            n => n.to_string(),
        };
        write!(f, "{},{},{}", size(self.l1), size(self.l2), size(self.l3))
    }
}

/// One core.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    pub caches: Caches,
    /// FMAs of 512 bits that are issued a cycle; those of 256 bits are two everywhere.
    pub wide_fmas: f64,
    /// Bytes that one core streams from memory in a cycle.
    pub memory: f64,
}

/// Family and model of a CPU with figures of its own, where they differ from [`Machine::typical`].
struct Known {
    vendor: &'static str,
    families: std::ops::RangeInclusive<u32>,
    wide_fmas: f64,
    memory: f64,
}

/// Measured: Zen 4 reads 30 GB/s at 3.7 GHz with one core, Emerald Rapids 17 GB/s at 3.5 GHz. Zen 3 and 4 split vectors of 512 bits.
const KNOWN: [Known; 2] = [
    Known { vendor: "AuthenticAMD", families: 0x17..=0x19, wide_fmas: 1.0, memory: 8.0 },
    Known { vendor: "AuthenticAMD", families: 0x1a..=0xff, wide_fmas: 2.0, memory: 8.0 },
];

impl Machine {
    pub const fn typical() -> Machine {
        Machine { caches: Caches::TYPICAL, wide_fmas: 2.0, memory: 4.8 }
    }

    /// For a CPU by its name on the command line: `native` is this one.
    pub fn for_cpu(cpu: &str) -> Machine {
        let typical = Machine::typical();
        if cpu != "native" {
            return typical;
        }
        let caches = Caches::of_this_cpu().unwrap_or(typical.caches);
        let known = vendor_and_family();
        let known = known.and_then(|(v, f)| KNOWN.iter().find(|k| k.vendor == v && k.families.contains(&f)));
        known.map_or(Machine { caches, ..typical }, |k| Machine { caches, wide_fmas: k.wide_fmas, memory: k.memory })
    }

    /// Cycles of arithmetic together with what comes from memory meanwhile. Prefetching hides the more of it, the more arithmetic
    /// there is for each byte.
    pub fn together(&self, work: f64, bytes: f64) -> f64 {
        let memory = bytes / self.memory;
        let share = (memory / work.max(1.0)).min(1.0);
        work + memory * (EXPOSED + (1.0 - EXPOSED) * share * share)
    }

    /// Cycles of a step of a register tile: a vector of weights for each block, an element for each pixel, an FMA for each pair. Two
    /// loads are issued a cycle, and latency keeps a step from finishing in under four cycles.
    pub fn step(&self, isa: Isa, tile: Cut, loads: usize) -> f64 {
        let fmas = (tile.pixels * tile.blocks) as f64 / self.fmas(isa);
        fmas.max(loads as f64 / 2.0).max(4.0)
    }

    /// Vectors that are multiplied and added in a cycle.
    pub fn fmas(&self, isa: Isa) -> f64 {
        match isa {
            Isa::Avx512 => self.wide_fmas,
            Isa::Avx2 => 2.0,
        }
    }
}

impl Default for Machine {
    fn default() -> Machine {
        Machine::typical()
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "caches {}, {} FMAs of 512 bits and {} bytes of memory a cycle",
            self.caches, self.wide_fmas, self.memory
        )
    }
}

#[cfg(target_arch = "x86_64")]
fn vendor_and_family() -> Option<(String, u32)> {
    use std::arch::x86_64::__cpuid;
    let r = __cpuid(0);
    let vendor = [r.ebx, r.edx, r.ecx].map(u32::to_le_bytes).concat();
    let version = __cpuid(1).eax;
    let family = (version >> 8) & 15;
    let family = if family == 15 { family + ((version >> 20) & 0xff) } else { family };
    String::from_utf8(vendor).ok().map(|v| (v, family))
}

#[cfg(not(target_arch = "x86_64"))]
fn vendor_and_family() -> Option<(String, u32)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(list: &[[&str; 3]]) -> Option<Caches> {
        Caches::from_entries(list.iter().map(|e| e.map(str::to_string)))
    }

    #[test]
    fn sysfs_entries_are_read() {
        let zen4 =
            [["1", "Data", "32K"], ["1", "Instruction", "32K"], ["2", "Unified", "1024K"], ["3", "Unified", "32768K"]];
        assert_eq!(entries(&zen4), Some(Caches { l1: 32 << 10, l2: 1 << 20, l3: 32 << 20 }));
        let two_levels = [["1", "Unified", "64K"], ["2", "Unified", "2M"]];
        assert_eq!(entries(&two_levels), Some(Caches { l1: 64 << 10, l2: 2 << 20, l3: 2 << 20 }));
        assert_eq!(entries(&zen4[..2]), None);
        assert_eq!(entries(&[["1", "Data", "lots"], ["2", "Unified", "1M"]]), None);
    }

    #[test]
    fn sizes_on_the_command_line_go_there_and_back() {
        let caches: Caches = "48K,2M,260M".parse().unwrap();
        assert_eq!(caches, Caches { l1: 48 << 10, l2: 2 << 20, l3: 260 << 20 });
        assert_eq!(caches.to_string(), "48K,2M,260M");
        for wrong in ["", "1M", "2M,1M,4M", "0,1,2", "1K,2K,x", "1K,1M,99999999999999999G", "1K,1M,2M,3M", "-1,2,3"] {
            assert!(wrong.parse::<Caches>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cpu_by_name_does_not_depend_on_this_one() {
        assert_eq!(Machine::for_cpu("x86-64-v4"), Machine::typical());
        let here = Machine::for_cpu("native");
        assert_eq!(here, Machine::for_cpu("native"));
        assert!(here.caches.l1 <= here.caches.l2 && here.caches.l2 <= here.caches.l3);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn cpuid_and_sysfs_agree_on_the_own_caches() {
        if let (Some(a), Some(b)) = (by_cpuid(), Caches::of_this_cpu()) {
            assert_eq!((a.l1, a.l2), (b.l1, b.l2));
        }
    }
}
