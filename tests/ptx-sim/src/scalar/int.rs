//! Integer arithmetic, logic and bit fields (PTX ISA 9.7.1, 9.7.2, 9.7.8).

use crate::inst::{Binary, CarryOp, Mode, PrmtMode, Ternary, Unary};
use crate::types::Type;

fn truncate(ty: Type, value: i128) -> u64 {
    value as u64 & ty.mask()
}

/// The smallest and the largest value of a type.
pub fn range(ty: Type) -> (i128, i128) {
    let bits = ty.bits();
    if ty.is_signed() { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) } else { (0, (1i128 << bits) - 1) }
}

fn clamp(ty: Type, value: i128) -> u64 {
    let (low, high) = range(ty);
    truncate(ty, value.clamp(low, high))
}

pub fn unary(op: Unary, ty: Type, a: u64) -> u64 {
    let bits = ty.bits();
    match op {
        Unary::Neg => a.wrapping_neg() & ty.mask(),
        Unary::Abs => truncate(ty, ty.extend(a).abs()),
        Unary::Not => !a & ty.mask(),
        Unary::Cnot => u64::from(a & ty.mask() == 0),
        Unary::Popc => u64::from((a & ty.mask()).count_ones()),
        Unary::Clz => u64::from((a & ty.mask()).leading_zeros() - (64 - bits)),
        Unary::Brev => a.reverse_bits() >> (64 - bits),
        Unary::Bfind { shift } => {
            let value = ty.extend(a);
            let magnitude = if value < 0 { !value } else { value } as u64;
            if magnitude == 0 {
                return 0xffff_ffff;
            }
            let position = u64::from(63 - magnitude.leading_zeros());
            if shift { u64::from(bits) - 1 - position } else { position }
        }
        _ => 0,
    }
}

pub fn binary(op: Binary, ty: Type, mode: Mode, a: u64, b: u64) -> u64 {
    let (mask, bits) = (ty.mask(), ty.bits());
    match op {
        Binary::Add if !mode.sat => a.wrapping_add(b) & mask,
        Binary::Sub if !mode.sat => a.wrapping_sub(b) & mask,
        Binary::Add => clamp(ty, ty.extend(a) + ty.extend(b)),
        Binary::Sub => clamp(ty, ty.extend(a) - ty.extend(b)),
        Binary::Mul => a.wrapping_mul(b) & mask,
        Binary::MulHi => high(ty, a, b),
        Binary::MulWide => wide(ty, a, b),
        Binary::Mul24 => mul24(ty, a, b) & mask,
        Binary::Div => {
            let divisor = ty.extend(b);
            if divisor == 0 { mask } else { truncate(ty, ty.extend(a) / divisor) }
        }
        Binary::Rem => {
            let divisor = ty.extend(b);
            if divisor == 0 { a } else { truncate(ty, ty.extend(a) % divisor) }
        }
        Binary::Min | Binary::Max => {
            let (x, y) = (ty.extend(a), ty.extend(b));
            let chosen = if op == Binary::Min { x.min(y) } else { x.max(y) };
            truncate(ty, if mode.relu { chosen.max(0) } else { chosen })
        }
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Shl => {
            if b >= u64::from(bits) {
                0
            } else {
                a << b & mask
            }
        }
        Binary::Shr => truncate(ty, ty.extend(a) >> b.min(u64::from(bits))),
        Binary::CopySign => a,
    }
}

/// The product of two 32-bit or narrower values, in twice the bits.
fn wide(ty: Type, a: u64, b: u64) -> u64 {
    truncate(if ty.bits() == 16 { Type::B32 } else { Type::B64 }, ty.extend(a) * ty.extend(b))
}

fn high(ty: Type, a: u64, b: u64) -> u64 {
    if ty == Type::U64 {
        return ((u128::from(a) * u128::from(b)) >> 64) as u64;
    }
    truncate(ty, (ty.extend(a) * ty.extend(b)) >> ty.bits())
}

fn mul24(ty: Type, a: u64, b: u64) -> u64 {
    let low = |x: u64| {
        let x = x & 0xff_ffff;
        if ty.is_signed() && x >> 23 == 1 { x as i64 - (1 << 24) } else { x as i64 }
    };
    low(a).wrapping_mul(low(b)) as u64
}

pub fn ternary(op: Ternary, ty: Type, mode: Mode, a: u64, b: u64, c: u64) -> u64 {
    match op {
        Ternary::Mad => a.wrapping_mul(b).wrapping_add(c) & ty.mask(),
        Ternary::MadHi if mode.sat => clamp(ty, ty.extend(high(ty, a, b)) + ty.extend(c)),
        Ternary::MadHi => high(ty, a, b).wrapping_add(c) & ty.mask(),
        Ternary::MadWide => {
            let sum = wide(ty, a, b).wrapping_add(c);
            if ty.bits() == 16 { sum & 0xffff_ffff } else { sum }
        }
        Ternary::Mad24 => mul24(ty, a, b).wrapping_add(c) & ty.mask(),
        Ternary::Sad => truncate(ty, ty.extend(c) + (ty.extend(a) - ty.extend(b)).abs()),
        Ternary::Bfe => bit_field(ty, a, b, c),
        Ternary::ShfLeft { wrap } => {
            let n = if wrap { c & 31 } else { c.min(32) };
            (b << 32 | a) << n >> 32
        }
        Ternary::ShfRight { wrap } => {
            let n = if wrap { c & 31 } else { c.min(32) };
            (b << 32 | a) >> n & 0xffff_ffff
        }
        Ternary::Prmt(kind) => permute(kind, a, b, c),
        Ternary::Lop3(table) => lop3(table, a, b, c),
        Ternary::Dp4a { b_signed } => dp4a(ty, b_signed, a, b, c),
        Ternary::Fma => 0,
    }
}

fn lop3(table: u8, a: u64, b: u64, c: u64) -> u64 {
    let mut result = 0;
    for row in 0..8 {
        if table >> row & 1 == 1 {
            let pick = |x: u64, bit: u32| if row >> bit & 1 == 1 { x } else { !x };
            result |= pick(a, 2) & pick(b, 1) & pick(c, 0);
        }
    }
    result & 0xffff_ffff
}

fn dp4a(a_type: Type, b_signed: bool, a: u64, b: u64, c: u64) -> u64 {
    let byte = |x: u64, i: u32, signed: bool| {
        let byte = (x >> (8 * i)) as u8;
        if signed { i64::from(byte as i8) } else { i64::from(byte) }
    };
    let dot: i64 = (0..4).map(|i| byte(a, i, a_type.is_signed()) * byte(b, i, b_signed)).sum();
    (c as i64).wrapping_add(dot) as u64 & 0xffff_ffff
}

fn bit_field(ty: Type, a: u64, b: u64, c: u64) -> u64 {
    let width = ty.bits();
    let (position, length) = (b as u32 & 0xff, c as u32 & 0xff);
    let bit = |i: u32| a >> i & 1;
    let sign = if !ty.is_signed() || length == 0 { 0 } else { bit((position + length - 1).min(width - 1)) };
    (0..width).map(|i| (if i < length && position + i < width { bit(position + i) } else { sign }) << i).sum()
}

/// `bfi`: the low bits of `a` put into `b` (PTX ISA 9.7.1.20).
pub fn insert_bits(ty: Type, a: u64, b: u64, position: u64, length: u64) -> u64 {
    let (position, length) = (position as u32 & 0xff, length as u32 & 0xff);
    let mut result = b;
    for i in (0..length).take_while(|i| position + i < ty.bits()) {
        result = result & !(1 << (position + i)) | (a >> i & 1) << (position + i);
    }
    result
}

/// Selectors of `prmt`'s special modes by the low two bits of `c` (PTX ISA 9.7.9.7).
fn selector(kind: PrmtMode, c: u64) -> u64 {
    let table = match kind {
        PrmtMode::Index => return c,
        PrmtMode::F4e => [0x3210, 0x4321, 0x5432, 0x6543],
        PrmtMode::B4e => [0x5670, 0x6701, 0x7012, 0x0123],
        PrmtMode::Rc8 => [0x0000, 0x1111, 0x2222, 0x3333],
        PrmtMode::Ecl => [0x3210, 0x3211, 0x3222, 0x3333],
        PrmtMode::Ecr => [0x0000, 0x1110, 0x2210, 0x3210],
        PrmtMode::Rc16 => [0x1010, 0x3232, 0x1010, 0x3232],
    };
    table[(c & 3) as usize]
}

fn permute(kind: PrmtMode, a: u64, b: u64, c: u64) -> u64 {
    let bytes = b << 32 | a;
    let selector = selector(kind, c);
    (0..4)
        .map(|i| {
            let nibble = selector >> (4 * i) & 0xf;
            let byte = bytes >> (8 * (nibble & 7)) & 0xff;
            let byte = if nibble & 8 == 0 { byte } else { (byte >> 7) * 0xff };
            byte << (8 * i)
        })
        .sum()
}

/// Result and carry (or borrow) of the extended-precision instructions.
pub fn carry(op: CarryOp, ty: Type, a: u64, b: u64, c: u64, carry_in: bool) -> (u64, bool) {
    let (x, y) = match op {
        CarryOp::Add | CarryOp::Sub => (a, b),
        CarryOp::MadLo => (a.wrapping_mul(b) & ty.mask(), c),
        CarryOp::MadHi => (high(ty, a, b), c),
    };
    let carry_in = u128::from(carry_in);
    let total = match op {
        CarryOp::Sub => u128::from(x).wrapping_sub(u128::from(y) + carry_in),
        _ => u128::from(x) + u128::from(y) + carry_in,
    };
    (total as u64 & ty.mask(), total >> ty.bits() & 1 == 1)
}
