//! `ldmatrix`, `stmatrix` and `mma.sync` (PTX ISA 9.7.14): the fragments of a matrix by lane.
//!
//! With `g = lane / 4`, `t = lane % 4` and `p` elements in a register of 32 bits, for all shapes m16n8k*:
//!
//! ```text
//! A, register r, element e:  row g + 8 * (r % 2),  column p * t + e + 4 * p * (r / 2)
//! B, register r, element e:  row p * t + e + 4 * p * r,  column g
//! C and D, element e:        row g + 8 * (e / 2),  column 2 * t + e % 2
//! ```

use crate::fault::{Checked, FaultKind, trouble};
use crate::inst::{Address, Mma, MmaAcc, MmaType, Reg, Src};
use crate::scalar::round::{decode, encode};
use crate::types::{Round, Space, Type};

use super::Machine;
use super::access::Spot;
use super::warp::{Lanes, Warp};

impl Machine<'_> {
    fn whole_warp(&self, lanes: u32) -> Checked<()> {
        if lanes == u32::MAX {
            return Ok(());
        }
        let message = format!("needs all 32 lanes, and {} are here", lanes.count_ones());
        trouble(FaultKind::DivergentBarrier, lanes.trailing_zeros(), message)
    }

    pub(super) fn ldmatrix(
        &mut self,
        warp: &mut Warp<'_>,
        d: &[Reg],
        address: Address,
        trans: bool,
        space: Space,
        lanes: u32,
    ) -> Checked<()> {
        self.whole_warp(lanes)?;
        let addressing = (u64::MAX >> (64 - 8 * d.len())) as u32;
        let addresses = self.addresses(warp, address, addressing)?;
        self.count(warp.line, space, &addresses, addressing, 16);
        for (m, reg) in d.iter().enumerate() {
            let mut rows = [[0u16; 8]; 8];
            for (r, row) in rows.iter_mut().enumerate() {
                let lane = (m * 8 + r) as u32;
                let mut bytes = [0; 16];
                let (space, address) = self.matrix_place(space, addresses[lane as usize], lane)?;
                self.read(warp, space, Spot { lane, address, size: 16, strong: false }, &mut bytes)?;
                for (value, pair) in row.iter_mut().zip(bytes.chunks_exact(2)) {
                    *value = u16::from_le_bytes([pair[0], pair[1]]);
                }
            }
            let values: Lanes = std::array::from_fn(|lane| {
                let (g, t) = (lane / 4, lane % 4);
                let (low, high) =
                    if trans { (rows[2 * t][g], rows[2 * t + 1][g]) } else { (rows[g][2 * t], rows[g][2 * t + 1]) };
                u64::from(high) << 16 | u64::from(low)
            });
            warp.set(*reg, &values, lanes);
        }
        Ok(())
    }

    pub(super) fn stmatrix(
        &mut self,
        warp: &mut Warp<'_>,
        a: &[Src],
        address: Address,
        trans: bool,
        space: Space,
        lanes: u32,
    ) -> Checked<()> {
        self.whole_warp(lanes)?;
        let addressing = (u64::MAX >> (64 - 8 * a.len())) as u32;
        let addresses = self.addresses(warp, address, addressing)?;
        self.count(warp.line, space, &addresses, addressing, 16);
        for (m, src) in a.iter().enumerate() {
            let values = warp.get(*src, lanes)?;
            let element = |row: usize, column: usize| {
                let (g, c) = if trans { (column, row) } else { (row, column) };
                (values[g * 4 + c / 2] >> (16 * (c % 2))) as u16
            };
            for r in 0..8 {
                let lane = (m * 8 + r) as u32;
                let mut bytes = [0; 16];
                for (c, pair) in bytes.chunks_exact_mut(2).enumerate() {
                    pair.copy_from_slice(&element(r, c).to_le_bytes());
                }
                let (space, address) = self.matrix_place(space, addresses[lane as usize], lane)?;
                self.write(warp, space, Spot { lane, address, size: 16, strong: false }, &bytes)?;
            }
        }
        Ok(())
    }

    fn matrix_place(&self, space: Space, address: u64, lane: u32) -> Checked<(Space, u64)> {
        match Self::place(space, address) {
            (Space::Shared, address) => Ok((Space::Shared, address)),
            _ => trouble(FaultKind::OutOfBounds, lane, format!("{address:#x} is not in shared memory")),
        }
    }

    /// The sum over k is exact in f64, or nearly, and rounded once; a GPU adds in an order and a precision of its own.
    pub(super) fn mma(&mut self, warp: &mut Warp<'_>, mma: &Mma, lanes: u32) -> Checked<()> {
        self.whole_warp(lanes)?;
        let k = usize::from(mma.k);
        let a = fragments(warp, &mma.a)?;
        let b = fragments(warp, &mma.b)?;
        let c = fragments(warp, &mma.c)?;
        let mut left = [[0.0; 32]; 16];
        let mut right = [[0.0; 32]; 8];
        let per_reg = per_register(mma.a_type);
        for lane in 0..32 {
            let (g, t) = (lane / 4, lane % 4);
            for e in 0..per_reg {
                for (r, values) in a.iter().enumerate() {
                    let column = per_reg * t + e + 4 * per_reg * (r / 2);
                    left[g + 8 * (r % 2)][column] = element(mma.a_type, values[lane], e);
                }
                for (r, values) in b.iter().enumerate() {
                    right[g][per_reg * t + e + 4 * per_reg * r] = element(mma.b_type, values[lane], e);
                }
            }
        }
        let mut out = vec![[0u64; 32]; mma.d.len()];
        for lane in 0..32 {
            let (g, t) = (lane / 4, lane % 4);
            for e in 0..4 {
                let (row, column) = (g + 8 * (e / 2), 2 * t + e % 2);
                let dot = |start: f64| (0..k).fold(start, |sum, i| left[row][i].mul_add(right[column][i], sum));
                match mma.acc {
                    MmaAcc::F32 => {
                        let sum = dot(decode(Type::F32, c[e][lane]));
                        out[e][lane] = encode(Type::F32, sum, Round::Nearest);
                    }
                    MmaAcc::F16 => {
                        let sum = dot(decode(Type::F16, c[e / 2][lane] >> (16 * (e % 2)) & 0xffff));
                        out[e / 2][lane] |= encode(Type::F16, sum, Round::Nearest) << (16 * (e % 2));
                    }
                    MmaAcc::S32 => {
                        let sum = dot(f64::from(c[e][lane] as i32)) as i64;
                        let sum = if mma.sat { sum.clamp(i32::MIN.into(), i32::MAX.into()) } else { sum };
                        out[e][lane] = sum as u64 & 0xffff_ffff;
                    }
                }
            }
        }
        for (reg, values) in mma.d.iter().zip(&out) {
            warp.set(*reg, values, lanes);
        }
        Ok(())
    }
}

fn fragments(warp: &Warp<'_>, regs: &[Src]) -> Checked<Vec<Lanes>> {
    regs.iter().map(|reg| warp.get(*reg, u32::MAX)).collect()
}

fn per_register(ty: MmaType) -> usize {
    match ty {
        MmaType::Tf32 => 1,
        MmaType::F16 | MmaType::Bf16 => 2,
        MmaType::S8 | MmaType::U8 => 4,
    }
}

/// Element `e` of a register.
fn element(ty: MmaType, bits: u64, e: usize) -> f64 {
    match ty {
        MmaType::Tf32 => decode(Type::Tf32, bits),
        MmaType::F16 => decode(Type::F16, bits >> (16 * e) & 0xffff),
        MmaType::Bf16 => decode(Type::Bf16, bits >> (16 * e) & 0xffff),
        MmaType::S8 => f64::from((bits >> (8 * e)) as u8 as i8),
        MmaType::U8 => f64::from((bits >> (8 * e)) as u8),
    }
}
