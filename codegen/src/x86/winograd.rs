//! Winograd's transforms as leaves: the tiles of a row, a vector of channels at a time.
//!
//! ```text
//! for tile in 0..tiles                                  n points along an axis
//!     input:   out[n][n] = Bt in[..][..] B              in += stride * m pixels, out += one vector
//!     output:  out[rows][cols] = epilogue(bias + At in[n][n] A)      in += one vector, out += m pixels
//! ```
//!
//! With points {0, a, -a, b, -b, inf} and M(x) = x (x^2 - a^2) (x^2 - b^2), a row of Bt is M(x) / (x - p), that of the infinite
//! point M(x) itself; a column of At holds the powers of p; the denominators are in the weights (Toom-Cook, transposed). Columns
//! first, through a buffer on the stack, then rows: n * n values exceed the registers.
//!
//! With stride 2 a result is the sum over the even taps on even pixels, plus that over the odd taps on odd pixels: two
//! convolutions of stride 1 with half the taps, each with points of its own, side by side in Bt and At. One tap needs no points:
//! its m products are the results. So a kernel of 3 taps has 2 m + 1 products along an axis, where it would have 3 m directly.
//!
//! Registers: rdi arguments, rax in, rcx out, rdx bias, rbx tiles, r8-r11 and rsi pointers of operands.

use super::alloc::{Allocated, Place, allocate};
use super::asm::{Asm, Bin, FmaForm, Mem, Src, VReg, mem};
use super::vprog::{Access, VProg};
use super::{Isa, LeafError, winograd_slots};
use iced_x86::{Code, Register};

/// F(m x m, r x r): m x m outputs of an r x r kernel, of stride 1 or (`By2`) 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Winograd {
    F2x3,
    F4x3,
    F3x4,
    F2x5,
    F2x3By2,
    F4x3By2,
    F2x5By2,
    F4x5By2,
    F2x6By2,
    F4x6By2,
    F3x7By2,
    F3x8By2,
    F2x9By2,
    F2x10By2,
}

const A: f64 = 0.625;
const B: f64 = 1.5;

/// A convolution of stride 1 along an axis, among those whose sum one with strides is.
#[derive(Clone, Copy, Debug)]
struct Phase {
    /// The first pixel and tap.
    first: usize,
    taps: usize,
    points: usize,
}

impl Phase {
    /// The points but the infinite one; the first row of weights is that of the first of them. None for a single tap.
    fn finite(self) -> &'static [f64] {
        match self.points {
            _ if self.taps == 1 => &[],
            3 => &[0.0, 1.0],
            4 => &[0.0, 1.0, -1.0],
            // Exact constants, which give a third of the error that 1 and 2 do.
            5 => &[0.0, A, -A, B],
            6 => &[0.0, A, -A, B, -B],
            n => unreachable!("no phase has {n} points"),
        }
    }

    /// What a kernel along one axis becomes at this point.
    fn weight_row(self, point: usize) -> Vec<f64> {
        let finite = self.finite();
        let Some(&p) = finite.get(point) else {
            return (1..=self.taps).map(|k| if k == self.taps { 1.0 } else { 0.0 }).collect();
        };
        let scale: f64 = finite.iter().filter(|&&q| q != p).map(|q| p - q).product();
        (0..self.taps).map(|k| p.powi(k as i32) / scale).collect()
    }
}

impl Winograd {
    pub const ALL: [Winograd; 14] = [
        Winograd::F4x3,
        Winograd::F2x3,
        Winograd::F3x4,
        Winograd::F2x5,
        Winograd::F4x3By2,
        Winograd::F2x3By2,
        Winograd::F4x5By2,
        Winograd::F2x5By2,
        Winograd::F4x6By2,
        Winograd::F2x6By2,
        Winograd::F3x7By2,
        Winograd::F3x8By2,
        Winograd::F2x9By2,
        Winograd::F2x10By2,
    ];

    /// Outputs, taps and stride.
    const fn sizes(self) -> (usize, usize, usize) {
        match self {
            Winograd::F2x3 => (2, 3, 1),
            Winograd::F4x3 => (4, 3, 1),
            Winograd::F3x4 => (3, 4, 1),
            Winograd::F2x5 => (2, 5, 1),
            Winograd::F2x3By2 => (2, 3, 2),
            Winograd::F4x3By2 => (4, 3, 2),
            Winograd::F2x5By2 => (2, 5, 2),
            Winograd::F4x5By2 => (4, 5, 2),
            Winograd::F2x6By2 => (2, 6, 2),
            Winograd::F4x6By2 => (4, 6, 2),
            Winograd::F3x7By2 => (3, 7, 2),
            Winograd::F3x8By2 => (3, 8, 2),
            Winograd::F2x9By2 => (2, 9, 2),
            Winograd::F2x10By2 => (2, 10, 2),
        }
    }

    /// As in the literature: `F(4x4,3x3)`, with the stride behind if there is one: `F(4x4,3x3)/2`.
    pub fn name(self) -> String {
        let (m, r, stride) = self.sizes();
        let strides = if stride > 1 { format!("/{stride}") } else { String::new() };
        format!("F({m}x{m},{r}x{r}){strides}")
    }

    /// Outputs of a tile along an axis.
    pub const fn outputs(self) -> usize {
        self.sizes().0
    }

    /// Taps of the kernel along an axis.
    pub const fn taps(self) -> usize {
        self.sizes().1
    }

    /// Of the convolution, along both axes.
    pub const fn stride(self) -> usize {
        self.sizes().2
    }

    /// Inputs of a tile along an axis.
    pub const fn pixels(self) -> usize {
        self.stride() * (self.outputs() - 1) + self.taps()
    }

    /// Products along an axis.
    pub fn points(self) -> usize {
        self.phases().map(|p| p.points).sum()
    }

    fn phases(self) -> impl Iterator<Item = Phase> {
        let (m, r, stride) = self.sizes();
        (0..stride).map(move |first| {
            let taps = (r - first).div_ceil(stride);
            Phase { first, taps, points: m + taps - 1 }
        })
    }

    /// The weights' transform: a row for each point.
    pub fn weight_rows(self) -> Vec<Vec<f64>> {
        let row = |phase: Phase, point: usize| {
            let mut row = vec![0.0; self.taps()];
            row.iter_mut()
                .skip(phase.first)
                .step_by(self.stride())
                .zip(phase.weight_row(point))
                .for_each(|(r, w)| *r = w);
            row
        };
        self.phases().flat_map(|phase| (0..phase.points).map(move |point| row(phase, point))).collect()
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
        let (n, pixels) = (self.winograd.points(), self.winograd.pixels());
        let vector = isa.bytes() as i64;
        let mut asm = Asm::new(isa);
        let constants = Constants::new(&mut asm);
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
    pub(super) fn emit(&self, isa: Isa) -> Result<Vec<u8>, LeafError> {
        let (n, m) = (self.winograd.points(), self.winograd.outputs());
        let vector = isa.bytes() as i64;
        let epilogue = self.epilogue.legal(isa)?;
        // Results of a row lie in some of the first six registers; the constants are in the last ones.
        let top = Constants::first(isa);
        let results = self.winograd.result_registers();
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
const OUTPUT_CONSTANTS: [f64; 6] = [A, B, A * A, B * B, A * A * A, B * B * B];

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

    /// Bt times an axis of pixels that lie at `from`, stored at `to`.
    fn input(self, asm: &mut Asm, winograd: Winograd, from: impl Fn(usize) -> Mem, to: impl Fn(usize) -> Mem) {
        let mut point = 0;
        for phase in winograd.phases() {
            for i in 0..phase.points {
                asm.load(i as VReg, from(phase.first + i * winograd.stride()), None);
            }
            for r in self.input_of_phase(asm, phase) {
                asm.store(to(point), r, None);
                point += 1;
            }
        }
    }

    /// Bt of a phase times what lies in the first registers; gives the registers of the results.
    fn input_of_phase(self, asm: &mut Asm, phase: Phase) -> Vec<VReg> {
        let c = |k: usize| self.get(&INPUT_CONSTANTS, k);
        let add = |asm: &mut Asm, to: VReg, x: VReg, k: usize| asm.fma(FmaForm::F231, to, x, c(k));
        match phase.finite().len() {
            0 => (0..phase.points as VReg).collect(),
            2 => {
                asm.bin(Bin::Sub, 3, 1, Src::Reg(0));
                asm.bin(Bin::Sub, 4, 2, Src::Reg(1));
                vec![3, 1, 4]
            }
            3 => {
                asm.bin(Bin::Sub, 4, 2, Src::Reg(0));
                asm.bin(Bin::Add, 5, 1, Src::Reg(2));
                asm.bin(Bin::Sub, 6, 2, Src::Reg(1));
                asm.bin(Bin::Sub, 7, 3, Src::Reg(1));
                vec![4, 5, 6, 7]
            }
            4 => {
                // What is left of d0, d1 and d2 times x^2 - a^2; the point b is the second.
                asm.copy(5, 2);
                add(asm, 5, 0, 3);
                asm.copy(6, 3);
                add(asm, 6, 1, 3);
                add(asm, 4, 2, 3);
                // And of d1 and d2 times x - b.
                asm.copy(7, 2);
                add(asm, 7, 1, 7);
                add(asm, 3, 2, 7);
                asm.copy(8, 3);
                add(asm, 8, 7, 4);
                add(asm, 3, 7, 5);
                asm.copy(9, 6);
                add(asm, 9, 5, 7);
                add(asm, 4, 6, 7);
                vec![9, 8, 3, 6, 4]
            }
            _ => {
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
        }
    }

    /// At times an axis of products that lie at `from`; gives [`Winograd::result_registers`].
    fn output(self, asm: &mut Asm, winograd: Winograd, from: impl Fn(usize) -> Mem) -> Vec<VReg> {
        let (mut first, mut sums) = (0, vec![]);
        for phase in winograd.phases() {
            let single = phase.taps == 1 && !sums.is_empty();
            if single {
                for (i, &sum) in sums.iter().enumerate() {
                    asm.bin(Bin::Add, sum, sum, Src::Mem(from(first + i)));
                }
            } else {
                // Out of the next phase's way.
                let before: Vec<VReg> = (0..sums.len()).map(|i| SUMS + i as VReg).collect();
                before.iter().zip(&sums).for_each(|(&to, &sum)| asm.copy(to, sum));
                (0..phase.points).for_each(|i| asm.load(i as VReg, from(first + i), None));
                sums = self.output_of_phase(asm, phase, winograd.outputs());
                before.iter().zip(&sums).for_each(|(&before, &sum)| asm.bin(Bin::Add, sum, sum, Src::Reg(before)));
            }
            first += phase.points;
        }
        sums
    }

    /// At of a phase times what lies in the first registers; gives [`Phase::result_registers`].
    fn output_of_phase(self, asm: &mut Asm, phase: Phase, outputs: usize) -> Vec<VReg> {
        let results = phase.result_registers(outputs);
        let c = |k: usize| self.get(&OUTPUT_CONSTANTS, k);
        match phase.finite().len() {
            0 => {}
            2 => {
                asm.bin(Bin::Add, 0, 0, Src::Reg(1));
                asm.bin(Bin::Add, 1, 1, Src::Reg(2));
            }
            3 => {
                asm.bin(Bin::Add, 0, 0, Src::Reg(1));
                asm.bin(Bin::Add, 0, 0, Src::Reg(2));
                asm.bin(Bin::Sub, 1, 1, Src::Reg(2));
                asm.bin(Bin::Add, 1, 1, Src::Reg(3));
            }
            points => {
                // Sums for even powers, differences for odd ones; the point b may be without -b.
                asm.bin(Bin::Add, 6, 1, Src::Reg(2));
                asm.bin(Bin::Sub, 7, 1, Src::Reg(2));
                let (even_b, odd_b) = if points == 5 { (8, 9) } else { (3, 3) };
                if points == 5 {
                    asm.bin(Bin::Add, 8, 3, Src::Reg(4));
                    asm.bin(Bin::Sub, 9, 3, Src::Reg(4));
                }
                asm.bin(Bin::Add, 0, 0, Src::Reg(6));
                asm.bin(Bin::Add, 0, 0, Src::Reg(even_b));
                // The infinite point counts in the last.
                for (power, &to) in results.iter().enumerate().skip(1) {
                    let (at_a, at_b) = if power % 2 == 0 { (6, even_b) } else { (7, odd_b) };
                    if power + 1 == results.len() {
                        asm.fma(FmaForm::F231, to, at_a, c(2 * power - 2));
                    } else {
                        asm.bin(Bin::Mul, to, at_a, c(2 * power - 2));
                    }
                    asm.fma(FmaForm::F231, to, at_b, c(2 * power - 1));
                }
            }
        }
        results
    }
}

/// Where results of a phase wait for those of the next.
const SUMS: VReg = 10;

impl Phase {
    /// Where the output's transform leaves its results.
    fn result_registers(self, outputs: usize) -> Vec<VReg> {
        match self.finite().len() {
            0 | 2 | 3 => (0..outputs as VReg).collect(),
            points => (0..outputs as VReg - 1).chain([points as VReg]).collect(),
        }
    }
}

impl Winograd {
    /// Those of the last phase that is no single tap.
    fn result_registers(self) -> Vec<VReg> {
        let mut phases: Vec<Phase> = self.phases().collect();
        phases.retain(|p| p.taps > 1);
        phases.last().map_or_else(Vec::new, |p| p.result_registers(self.outputs()))
    }
}
