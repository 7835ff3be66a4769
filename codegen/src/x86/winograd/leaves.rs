//! The leaves: a transform along the columns of a tile, then along its rows, and what follows the output's.

use super::super::alloc::{Allocated, Place, allocate};
use super::super::asm::{Asm, Bin, Src, mem};
use super::super::vprog::{Access, VProg};
use super::super::{Isa, LeafError, winograd_slots};
use super::Winograd;
use super::axis::{Constants, INPUT_CONSTANTS, OUTPUT_CONSTANTS};
use super::pool::{Pool, Windows};
use iced_x86::{Code, Register};

/// The input's transform. Strides in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InputTransform {
    pub winograd: Winograd,
    /// From row to row of the input, and from pixel to pixel.
    pub row: i32,
    pub pixel: i32,
    /// From point to point of the result.
    pub point: i32,
    pub tiles: u32,
}

/// The products' transform, with what follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutputTransform {
    pub winograd: Winograd,
    /// Outputs of a tile that exist.
    pub rows: u32,
    pub cols: u32,
    pub point: i32,
    /// What is stored of each 2x2 outputs, instead of themselves; those at the end of a row or column that is odd make a window of
    /// their own. The tile's outputs must be even.
    pub pool: Option<Pool>,
    /// From row to row of what is stored; pixels of a row follow one another.
    pub row: i32,
    pub bias: bool,
    /// [`Access::Strided`] operands move by `pixel` along a row and by `block` from row to row.
    pub epilogue: VProg,
    pub tiles: u32,
}

const ARGS: Register = Register::RDI;
const IN: Register = Register::RAX;
const OUT: Register = Register::RCX;
const BIAS: Register = Register::RDX;
const TILES: Register = Register::RBX;
const OPERANDS: [Register; 5] = [Register::R8, Register::R9, Register::R10, Register::R11, Register::RSI];

impl InputTransform {
    pub(in super::super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        let (n, pixels) = (self.winograd.points(), self.winograd.pixels());
        let vector = isa.bytes() as i64;
        let mut asm = Asm::new(isa);
        let constants = Constants::new(&asm);
        let frame = (n * pixels) as i64 * vector;
        around_tiles(
            &mut asm,
            frame,
            self.tiles,
            |asm| {
                asm.load64(IN, mem(ARGS, winograd_slots::IN));
                asm.load64(OUT, mem(ARGS, winograd_slots::OUT));
                constants.load(asm, &INPUT_CONSTANTS);
            },
            |asm| {
                let buffer = |i: usize, j: usize| mem(Register::RSP, (i * pixels + j) as i64 * vector);
                let input =
                    |i: usize, j: usize| mem(IN, i as i64 * i64::from(self.row) + j as i64 * i64::from(self.pixel));
                for j in 0..pixels {
                    constants.input(asm, self.winograd, |i| input(i, j), |i| buffer(i, j));
                }
                for i in 0..n {
                    let point = |j: usize| mem(OUT, (i * n + j) as i64 * i64::from(self.point));
                    constants.input(asm, self.winograd, |j| buffer(i, j), point);
                }
                let step = self.winograd.stride() * self.winograd.outputs();
                asm.add_imm(IN, step as i64 * i64::from(self.pixel));
                asm.add_imm(OUT, vector);
            },
        );
        asm.finish()
    }
}

impl OutputTransform {
    pub(in super::super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        let (n, m) = (self.winograd.points(), self.winograd.outputs());
        let vector = isa.bytes() as i64;
        let epilogue = self.epilogue.legal(isa)?;
        if self.pool.is_some() && !m.is_multiple_of(2) {
            return Err(LeafError::Unsupported("pools whose windows overlap tiles"));
        }
        if self.pool.is_some() && epilogue.operands().contains(&Access::Same) {
            return Err(LeafError::Unsupported("operands that lie as a pooled result does"));
        }
        let windows = self.pool.map(|pool| Windows {
            pool,
            rows: self.rows as usize,
            cols: self.cols as usize,
            top: Constants::first(isa),
        });
        // Results of a row lie in some of the first six registers; windows and the constants are in the last ones.
        let top = windows.as_ref().map_or(Constants::first(isa), Windows::first);
        let results = self.winograd.result_registers();
        let code: Vec<Allocated> = results
            .iter()
            .map(|&r| allocate(&epilogue, isa, r, &(6..top).collect::<Vec<_>>()))
            .collect::<Result<_, _>>()?;
        let spills_at = (m * n) as i64 * vector;
        let spills = code.iter().map(|c| c.slots).max().unwrap_or(0) as i64;
        let accesses = epilogue.operands().to_vec();
        let mut asm = Asm::new(isa);
        let constants = Constants::new(&asm);
        around_tiles(
            &mut asm,
            spills_at + spills * vector,
            self.tiles,
            |asm| {
                for (k, pointer) in OPERANDS.iter().take(accesses.len()).enumerate() {
                    asm.load64(*pointer, mem(ARGS, winograd_slots::OPERANDS + 8 * k as i64));
                }
                asm.load64(IN, mem(ARGS, winograd_slots::IN));
                asm.load64(OUT, mem(ARGS, winograd_slots::OUT));
                asm.load64(BIAS, mem(ARGS, winograd_slots::BIAS));
                constants.load(asm, &OUTPUT_CONSTANTS);
            },
            |asm| {
                let buffer = |i: usize, j: usize| mem(Register::RSP, (i * n + j) as i64 * vector);
                for j in 0..n {
                    let point = |i: usize| mem(IN, (i * n + j) as i64 * i64::from(self.point));
                    let rows = constants.output(asm, self.winograd, point).into_iter().take(self.rows as usize);
                    rows.enumerate().for_each(|(i, r)| asm.store(buffer(i, j), r, None));
                }
                for i in 0..i64::from(self.rows) {
                    let cols = constants.output(asm, self.winograd, |j| buffer(i as usize, j));
                    let cols = cols.into_iter().take(self.cols as usize);
                    for (j, r) in cols.enumerate() {
                        if self.bias {
                            asm.bin(Bin::Add, r, r, Src::Mem(mem(BIAS, 0)));
                        }
                        let operand = |k: u8| {
                            let base = OPERANDS[usize::from(k)];
                            match accesses[usize::from(k)] {
                                Access::Strided { pixel, block } => {
                                    (mem(base, i * i64::from(block) + j as i64 * i64::from(pixel)), false)
                                }
                                Access::Same => (mem(base, i * i64::from(self.row) + j as i64 * vector), false),
                                Access::Channel => (mem(base, 0), false),
                                Access::Splat => (mem(base, 0), true),
                            }
                        };
                        let slot = |s: usize| mem(Register::RSP, spills_at + s as i64 * vector);
                        code[j].emit(asm, &Place { operand: &operand, slot: &slot, mask: None });
                        let out = |i: i64, j: usize| mem(OUT, i * i64::from(self.row) + j as i64 * vector);
                        match &windows {
                            None => asm.store(out(i, j), code[j].result, None),
                            Some(windows) => windows.take(asm, (i as usize, j), code[j].result, out(i / 2, j / 2)),
                        }
                    }
                }
                asm.add_imm(IN, vector);
                asm.add_imm(OUT, (if self.pool.is_some() { m / 2 } else { m }) as i64 * vector);
                for (access, pointer) in accesses.iter().zip(OPERANDS) {
                    match access {
                        Access::Same => asm.add_imm(pointer, m as i64 * vector),
                        Access::Strided { pixel, .. } => asm.add_imm(pointer, m as i64 * i64::from(*pixel)),
                        Access::Channel | Access::Splat => {}
                    }
                }
            },
        );
        asm.finish()
    }
}

/// The frame of a leaf and its loop over tiles.
fn around_tiles(asm: &mut Asm, frame: i64, tiles: u32, start: impl FnOnce(&mut Asm), tile: impl FnOnce(&mut Asm)) {
    asm.op_r(Code::Push_r64, TILES);
    asm.op_r(Code::Push_r64, Register::RBP);
    asm.mov(Register::RBP, Register::RSP);
    asm.op_ri(Code::Sub_rm64_imm32, Register::RSP, frame as i32);
    asm.op_ri(Code::And_rm64_imm8, Register::RSP, -64);
    asm.mov_imm(TILES, tiles as i32);
    start(asm);
    let top = asm.here();
    tile(asm);
    asm.op_r(Code::Dec_rm64, TILES);
    asm.jump(Code::Jne_rel32_64, top);
    asm.mov(Register::RSP, Register::RBP);
    asm.op_r(Code::Pop_r64, Register::RBP);
    asm.op_r(Code::Pop_r64, TILES);
    asm.zero_upper();
    asm.ret();
}
