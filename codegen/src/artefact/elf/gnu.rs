//! The small tables of a shared library: strings, symbols, the hash table, the dynamic section (System V ABI and its GNU extensions).

/// Section numbers of the output, in the order in which `write.rs` lists them.
pub mod section {
    pub const DYNSYM: u16 = 2;
    pub const DYNSTR: u16 = 3;
    pub const TEXT: u16 = 6;
    pub const RELRO: u16 = 7;
}

pub const GLOBAL_FUNCTION: u8 = 1 << 4 | 2;
pub const GLOBAL_OBJECT: u8 = 1 << 4 | 1;
pub const LOCAL_FUNCTION: u8 = 2;
/// Header, one word of Bloom filter, one bucket, one chain.
pub const HASH_BYTES: u64 = 16 + 8 + 4 + 4;
pub const DYNAMIC_ENTRIES: u64 = 14;

/// A string table; it starts with the empty string.
pub struct Strings {
    pub bytes: Vec<u8>,
}

impl Default for Strings {
    fn default() -> Strings {
        Strings { bytes: vec![0] }
    }
}

impl Strings {
    pub fn add(&mut self, text: &str) -> u32 {
        let at = self.bytes.len() as u32;
        self.bytes.extend(text.bytes().filter(|&byte| byte != 0));
        self.bytes.push(0);
        at
    }
}

/// An entry of a symbol table.
pub fn symbol(name: u32, info: u8, section: u16, value: u64, size: u64) -> [u8; 24] {
    let mut entry = [0; 24];
    entry[0..4].copy_from_slice(&name.to_le_bytes());
    entry[4] = info;
    entry[6..8].copy_from_slice(&section.to_le_bytes());
    entry[8..16].copy_from_slice(&value.to_le_bytes());
    entry[16..24].copy_from_slice(&size.to_le_bytes());
    entry
}

/// The hash table of the one exported symbol, which is number `index` and the last.
pub fn hash_table(name: &str, index: u32) -> Vec<u8> {
    const SHIFT: u32 = 6;
    let hash = name.bytes().fold(5381u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(byte as u32));
    let bloom = 1u64 << (hash % 64) | 1u64 << ((hash >> SHIFT) % 64);
    let mut table: Vec<u8> = [1, index, 1, SHIFT].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    table.extend(bloom.to_le_bytes());
    table.extend(index.to_le_bytes());
    // The lowest bit ends the chain.
    table.extend((hash | 1).to_le_bytes());
    table
}

/// Values of the dynamic section.
pub struct DynamicTable {
    pub libc: u32,
    pub soname: u32,
    pub gnu_hash: u64,
    pub dynstr: u64,
    pub dynstr_bytes: u64,
    pub dynsym: u64,
    pub rela: u64,
    pub rela_bytes: u64,
    pub n_relative: u64,
}

pub fn dynamic(table: &DynamicTable) -> Vec<u8> {
    const BIND_NOW: u64 = 8;
    const NOW: u64 = 1;
    let entries: [(u64, u64); DYNAMIC_ENTRIES as usize] = [
        (1, table.libc as u64),          // DT_NEEDED
        (14, table.soname as u64),       // DT_SONAME
        (0x6fff_fef5, table.gnu_hash),   // DT_GNU_HASH
        (5, table.dynstr),               // DT_STRTAB
        (10, table.dynstr_bytes),        // DT_STRSZ
        (6, table.dynsym),               // DT_SYMTAB
        (11, 24),                        // DT_SYMENT
        (7, table.rela),                 // DT_RELA
        (8, table.rela_bytes),           // DT_RELASZ
        (9, 24),                         // DT_RELAENT
        (0x6fff_fff9, table.n_relative), // DT_RELACOUNT
        (30, BIND_NOW),                  // DT_FLAGS
        (0x6fff_fffb, NOW),              // DT_FLAGS_1
        (0, 0),                          // DT_NULL
    ];
    entries.iter().flat_map(|(tag, value)| [*tag, *value]).flat_map(u64::to_le_bytes).collect()
}
