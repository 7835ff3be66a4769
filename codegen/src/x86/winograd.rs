//! Winograd's transforms as leaves: the tiles of a row, a vector of channels at a time.
//!
//! ```text
//! for tile in 0..tiles                                  n = m + r - 1 points along an axis
//!     input:   out[n][n] = Bt in[n][n] B                in += m pixels, out += one vector
//!     output:  out[rows][cols] = epilogue(bias + At in[n][n] A)      in += one vector, out += m pixels
//! ```
//!
//! With points {0, a, -a, b, -b, inf} and M(x) = x (x^2 - a^2) (x^2 - b^2), a row of Bt is M(x) / (x - p), that of the infinite
//! point M(x) itself; a column of At holds the powers of p; the denominators are in the weights (Toom-Cook, transposed). Columns
//! first, through a buffer on the stack, then rows: n * n values exceed the registers.
//!
//! Registers: rdi arguments, rax in, rcx out, rdx bias, rbx tiles, r8-r11 and rsi pointers of operands.

use super::alloc::{Allocated, Place, allocate};
use super::asm::{Asm, Bin, FmaForm, Src, VReg, mem};
use super::vprog::{Access, VProg};
use super::{Isa, LeafError, winograd_slots};
use iced_x86::{Code, Register};

/// F(m x m, r x r): m x m outputs of an r x r kernel from (m + r - 1) x (m + r - 1) products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Winograd {
    /// Points 0, 1, -1 and infinity.
    F2x3,
    /// This and the others: points 0, 5/8, -5/8, 3/2, -3/2 and infinity, which are exact constants and give a third of the error
    /// that 1 and 2 do.
    F4x3,
    F5x2,
    F3x4,
    F2x5,
}

const A: f64 = 0.625;
const B: f64 = 1.5;

impl Winograd {
    pub const ALL: [Winograd; 5] = [Winograd::F4x3, Winograd::F2x3, Winograd::F5x2, Winograd::F3x4, Winograd::F2x5];

    /// As in the literature: `F(4x4,3x3)`.
    pub fn name(self) -> String {
        let (m, r) = (self.outputs(), self.taps());
        format!("F({m}x{m},{r}x{r})")
    }

    /// Outputs of a tile along an axis.
    pub const fn outputs(self) -> usize {
        match self {
            Winograd::F2x3 | Winograd::F2x5 => 2,
            Winograd::F3x4 => 3,
            Winograd::F4x3 => 4,
            Winograd::F5x2 => 5,
        }
    }

    /// Taps of the kernel along an axis.
    pub const fn taps(self) -> usize {
        match self {
            Winograd::F5x2 => 2,
            Winograd::F2x3 | Winograd::F4x3 => 3,
            Winograd::F3x4 => 4,
            Winograd::F2x5 => 5,
        }
    }

    /// Points along an axis, and inputs of a tile.
    pub const fn points(self) -> usize {
        self.outputs() + self.taps() - 1
    }

    /// A row of the weights' transform: what a kernel along one axis becomes at this point.
    fn weight_row(self, point: usize) -> Vec<f64> {
        let finite: &[f64] = match self.points() {
            4 => &[0.0, 1.0, -1.0],
            _ => &[0.0, A, -A, B, -B],
        };
        let Some(&p) = finite.get(point) else {
            return (1..=self.taps()).map(|k| if k == self.taps() { 1.0 } else { 0.0 }).collect();
        };
        let scale: f64 = finite.iter().filter(|&&q| q != p).map(|q| p - q).product();
        (0..self.taps()).map(|k| p.powi(k as i32) / scale).collect()
    }

    /// The weights' transform: a row for each point.
    pub fn weight_rows(self) -> Vec<Vec<f64>> {
        (0..self.points()).map(|point| self.weight_row(point)).collect()
    }

    /// What a kernel becomes at all points, row by row; `rows` are those of the transform.
    pub fn weights(self, rows: &[Vec<f64>], kernel: &[f32]) -> Vec<f32> {
        let r = self.taps();
        let columns: Vec<Vec<f64>> = (rows.iter())
            .map(|row| (0..r).map(|x| (0..r).map(|y| row[y] * f64::from(kernel[y * r + x])).sum()).collect())
            .collect();
        let at = |column: &Vec<f64>, row: &Vec<f64>| column.iter().zip(row).map(|(a, b)| a * b).sum::<f64>() as f32;
        columns.iter().flat_map(|column| rows.iter().map(|row| at(column, row))).collect()
    }
}

/// The input's transform. Strides in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InputTransform {
    pub winograd: Winograd,
    /// From row to row of the input, and from pixel to pixel: those of a convolution with strides are further apart.
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
    /// From row to row of the output; pixels of a row follow one another.
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
    pub(super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        let n = self.winograd.points();
        let vector = isa.bytes() as i64;
        let mut asm = Asm::new(isa);
        let constants = Constants::new(&mut asm);
        let frame = (n * n) as i64 * vector;
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
                for j in 0..n {
                    for i in 0..n {
                        let at = i as i64 * i64::from(self.row) + j as i64 * i64::from(self.pixel);
                        asm.load(i as VReg, mem(IN, at), None);
                    }
                    for (i, r) in constants.input(asm, self.winograd).into_iter().enumerate() {
                        asm.store(mem(Register::RSP, (i * n + j) as i64 * vector), r, None);
                    }
                }
                for i in 0..n {
                    for j in 0..n {
                        asm.load(j as VReg, mem(Register::RSP, (i * n + j) as i64 * vector), None);
                    }
                    for (j, r) in constants.input(asm, self.winograd).into_iter().enumerate() {
                        asm.store(mem(OUT, (i * n + j) as i64 * i64::from(self.point)), r, None);
                    }
                }
                asm.add_imm(IN, self.winograd.outputs() as i64 * i64::from(self.pixel));
                asm.add_imm(OUT, vector);
            },
        );
        asm.finish()
    }
}

impl OutputTransform {
    pub(super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        let (n, m) = (self.winograd.points(), self.winograd.outputs());
        let vector = isa.bytes() as i64;
        let epilogue = self.epilogue.legal(isa)?;
        // Results of a row lie in some of the first six registers; the constants are in the last ones.
        let top = Constants::first(isa);
        let results = output_registers(self.winograd);
        let code: Vec<Allocated> = results
            .iter()
            .map(|&r| allocate(&epilogue, isa, r, &(6..top).collect::<Vec<_>>()))
            .collect::<Result<_, _>>()?;
        let spills_at = (m * n) as i64 * vector;
        let spills = code.iter().map(|c| c.slots).max().unwrap_or(0) as i64;
        let accesses = epilogue.operands().to_vec();
        let mut asm = Asm::new(isa);
        let constants = Constants::new(&mut asm);
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
                for j in 0..n {
                    for i in 0..n {
                        asm.load(i as VReg, mem(IN, (i * n + j) as i64 * i64::from(self.point)), None);
                    }
                    let rows = constants.output(asm, self.winograd).into_iter().take(self.rows as usize);
                    for (i, r) in rows.enumerate() {
                        asm.store(mem(Register::RSP, (i * n + j) as i64 * vector), r, None);
                    }
                }
                for i in 0..i64::from(self.rows) {
                    for j in 0..n {
                        asm.load(j as VReg, mem(Register::RSP, (i * n as i64 + j as i64) * vector), None);
                    }
                    let cols = constants.output(asm, self.winograd).into_iter().take(self.cols as usize);
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
                        asm.store(mem(OUT, i * i64::from(self.row) + j as i64 * vector), code[j].result, None);
                    }
                }
                asm.add_imm(IN, vector);
                asm.add_imm(OUT, m as i64 * vector);
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

const INPUT_CONSTANTS: [f64; 8] = [-(A * A + B * B), A * A * B * B, -B * B, -A * A, A, -A, B, -B];
/// Powers of the two points from the first on.
const OUTPUT_CONSTANTS: [f64; 8] = [A, B, A * A, B * B, A * A * A, B * B * B, A * A * A * A, B * B * B * B];

/// Constants are held in the last registers with AVX-512, and read from memory with AVX2.
#[derive(Clone, Copy)]
struct Constants {
    isa: Isa,
}

impl Constants {
    fn new(asm: &mut Asm) -> Constants {
        Constants { isa: asm.isa }
    }

    fn first(isa: Isa) -> VReg {
        match isa {
            Isa::Avx512 => 24,
            Isa::Avx2 => 16,
        }
    }

    fn load(self, asm: &mut Asm, values: &[f64]) {
        if self.isa == Isa::Avx512 {
            for (k, &v) in values.iter().enumerate() {
                asm.constant_to(Self::first(self.isa) + k as VReg, (v as f32).to_bits());
            }
        }
    }

    fn get(self, values: &[f64], k: usize) -> Src {
        match self.isa {
            Isa::Avx512 => Src::Reg(Self::first(self.isa) + k as VReg),
            Isa::Avx2 => Src::Const((values[k] as f32).to_bits()),
        }
    }

    /// Bt times what lies in the first registers; gives the registers of the results.
    fn input(self, asm: &mut Asm, winograd: Winograd) -> Vec<VReg> {
        if winograd.points() == 4 {
            asm.bin(Bin::Sub, 4, 2, Src::Reg(0));
            asm.bin(Bin::Add, 5, 1, Src::Reg(2));
            asm.bin(Bin::Sub, 6, 2, Src::Reg(1));
            asm.bin(Bin::Sub, 7, 3, Src::Reg(1));
            return vec![4, 5, 6, 7];
        }
        let c = |k: usize| self.get(&INPUT_CONSTANTS, k);
        let add = |asm: &mut Asm, to: VReg, x: VReg, k: usize| asm.fma(FmaForm::F231, to, x, c(k));
        // d4 - s d2 + q d0
        asm.copy(6, 4);
        add(asm, 6, 2, 0);
        add(asm, 6, 0, 1);
        // Even and odd parts at a and at b.
        asm.copy(7, 4);
        add(asm, 7, 2, 2);
        asm.copy(8, 3);
        add(asm, 8, 1, 2);
        asm.copy(9, 3);
        add(asm, 9, 1, 3);
        add(asm, 4, 2, 3);
        // d5 - s d3 + q d1
        add(asm, 5, 3, 0);
        add(asm, 5, 1, 1);
        asm.copy(10, 7);
        add(asm, 10, 8, 4);
        add(asm, 7, 8, 5);
        asm.copy(11, 4);
        add(asm, 11, 9, 6);
        add(asm, 4, 9, 7);
        vec![6, 10, 7, 11, 4, 5]
    }

    /// At times what lies in the first registers; gives [`output_registers`].
    fn output(self, asm: &mut Asm, winograd: Winograd) -> Vec<VReg> {
        if winograd.points() == 4 {
            asm.bin(Bin::Add, 0, 0, Src::Reg(1));
            asm.bin(Bin::Add, 0, 0, Src::Reg(2));
            asm.bin(Bin::Sub, 1, 1, Src::Reg(2));
            asm.bin(Bin::Add, 1, 1, Src::Reg(3));
            return output_registers(winograd);
        }
        let c = |k: usize| self.get(&OUTPUT_CONSTANTS, k);
        asm.bin(Bin::Add, 6, 1, Src::Reg(2));
        asm.bin(Bin::Sub, 7, 1, Src::Reg(2));
        asm.bin(Bin::Add, 8, 3, Src::Reg(4));
        asm.bin(Bin::Sub, 9, 3, Src::Reg(4));
        asm.bin(Bin::Add, 0, 0, Src::Reg(6));
        asm.bin(Bin::Add, 0, 0, Src::Reg(8));
        // Sums for even powers, differences for odd ones; the infinite point counts in the last.
        let results = output_registers(winograd);
        for (power, &to) in results.iter().enumerate().skip(1) {
            let (at_a, at_b) = if power % 2 == 0 { (6, 8) } else { (7, 9) };
            if power + 1 == results.len() {
                asm.fma(FmaForm::F231, to, at_a, c(2 * power - 2));
            } else {
                asm.bin(Bin::Mul, to, at_a, c(2 * power - 2));
            }
            asm.fma(FmaForm::F231, to, at_b, c(2 * power - 1));
        }
        results
    }
}

fn output_registers(winograd: Winograd) -> Vec<VReg> {
    match winograd.points() {
        4 => vec![0, 1],
        _ => (0..winograd.outputs() as VReg - 1).chain([5]).collect(),
    }
}
