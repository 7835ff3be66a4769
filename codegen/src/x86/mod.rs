//! Machine-code leaves for x86-64: what is compute-bound and needs vectors wider than Cranelift's 128 bits.
//!
//! A [`LeafSpec`] says what a leaf computes, strides and trip counts included; [`LeafSpec::emit`] assembles it for an [`Isa`].
//! The bytes are position-independent and need no relocations: constants lie behind the code. A leaf follows the System V
//! AMD64 convention, ends with `vzeroupper` if it has vectors, keeps callee-saved registers, and is called as
//!
//! ```text
//! extern "C" fn(args: *const u64)
//! ```
//!
//! | slot | [`BatchReduceGemm`], [`MatrixTile`]            | [`Map`], [`Lrn`], [`Rows`], [`Columns`], [`Positions`] |
//! |------|------------------------------------------------|--------------------------------------------------------|
//! | 0    | input of the first pixel                       | input                                                  |
//! | 1    | packed weights                                 | output                                                 |
//! | 2    | output of the first pixel, first block         | number of elements (pixels, rows, cells), i64          |
//! | 3    | bias ([`Init::Bias`]; else not read)           | first operand of the program                           |
//! | 4    | tiles, i64 ([`Tiles::Runtime`]; else not read) | second operand, and so on                              |
//! | 5... | operands of the epilogue, in order             |                                                        |
//! | then | offset to prefetch at ([`Prefetch::Next`])     |                                                        |
//! | then | where to pack ([`RightStrides::packs`])        |                                                        |
//!
//! Pointers of operands address what belongs to the first pixel and first block, and move with the tile by their [`Access`]. All
//! pointers need the alignment of f32 only; full speed wants vectors aligned to their size. Specs are equal as data, so equal leaves
//! have equal names and can be shared.
//!
//! A direct convolution on NCHW16c with a bias and relu, one row of output:
//!
//! ```
//! use lehr_codegen::x86::*;
//! let (lanes, row_bytes, plane_bytes) = (16, 58 * 64, 58 * 58 * 64);
//! let tile = choose_tile(Isa::Avx512, 56, 4);                         // 14 pixels x 2 blocks
//! let spec = BatchReduceGemm {
//!     pixels: tile.pixels,
//!     blocks: tile.blocks,
//!     input: Input::Element,
//!     broadcast: tile.broadcast,
//!     pixel_stride: 64,                                               // stride 1
//!     reduce: vec![
//!         Reduce { trip: 4, stride: plane_bytes },                    // blocks of input channels
//!         Reduce { trip: 3, stride: row_bytes },                      // kernel rows (times dilation)
//!         Reduce { trip: 3, stride: 64 },                             // kernel columns
//!         Reduce { trip: lanes, stride: 4 },                          // channels of a block
//!     ],
//!     init: Init::Bias,
//!     epilogue: VProg::build(|p, x| p.relu(x)),
//!     out_pixel_stride: 64,
//!     out_block_stride: 56 * 56 * 64,
//!     last_lanes: None,
//!     tiles: Tiles::Fixed(56 / tile.pixels),
//!     prefetch: Prefetch::None,
//! };
//! let leaf = LeafSpec::Gemm(spec).emit(Isa::Avx512).unwrap();
//! assert!(leaf.name.starts_with("brgemm_avx512_p14n2_"));
//! ```
//!
//! - Plain NCHW input (stems): `pixel_stride` is `4 * stride`, loops are `[ic][kh][kw]`; the weights' packing is
//!   [`InputLayout::Plain`].
//! - 1x1: `pixels` runs over H*W. GEMM: a pixel is a row of A, the one loop is K with stride 4, and `last_lanes` is N modulo lanes.
//! - Depthwise: [`Input::Lanes`], one block, loops `[kh][kw]`.
//! - A row that is no multiple of the tile: [`split_evenly`] gives parts of two sizes at most, one leaf each.
//! - Prefetch 2,048 bytes ahead pays for tiles of one block (28x1) with cold weights, and costs with 7x4.
//! - Long reductions: cut them every 64 input channels into calls that continue with [`Init::Output`], the last one with the epilogue;
//!   the error then no longer grows with depth.
//! - Max and min follow numpy: NaN wins. Denormals are computed as such unless the caller has set FTZ or DAZ.

mod alloc;
mod angle;
mod asm;
mod brgemm;
mod columns;
mod compact;
mod fold;
mod gather;
mod lrn;
mod map;
mod matrix;
mod pack;
mod panel;
mod positions;
mod prefetch;
mod rows;
mod shuffle;
mod stamp;
mod streams;
mod tile;
mod touch;
mod vmath;
mod vprog;
mod vtrig;
mod winograd;

pub use asm::Pred;
pub use brgemm::{BatchReduceGemm, Broadcast, Init, Input, Reduce, Tiles};
pub use columns::{Cells, Columns, MAX_TRANSPOSED};
pub use compact::{CompactForm, STEPS as COMPACT_STEPS};
pub use fold::Fold;
pub use gather::{GatherGemm, MAX_MASKS, Segment};
pub use lrn::{Lrn, MAX_LRN_REACH};
pub use map::Map;
pub use matrix::{MatrixTile, RightStrides};
pub use pack::{ConvWeights, InputLayout, MatrixLayout, pack_conv_weights, pack_depthwise_weights, pack_gemm_b};
pub use panel::Panel;
pub use positions::Positions;
pub use prefetch::Prefetch;
pub use rows::{Pass, RowResult, Rows};
pub use stamp::stamp;
pub(crate) use tile::shapes;
pub use tile::{Tile, choose_tile, choose_tile_within, split_evenly};
pub use touch::Touch;
pub use vprog::{Access, MAX_OPERANDS, VProg, Val};
pub use winograd::{InputTransform, OutputTransform, Pool, Winograd};

use crate::program::Leaf;
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};
use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};

/// Byte offsets of a batch-reduce leaf's arguments.
mod slots {
    pub const IN: i64 = 0;
    pub const W: i64 = 8;
    pub const OUT: i64 = 16;
    pub const BIAS: i64 = 24;
    pub const TILES: i64 = 32;
    pub const OPERANDS: i64 = 40;
}

/// Byte offsets of a map leaf's arguments.
mod map_slots {
    pub const IN: i64 = 0;
    pub const OUT: i64 = 8;
    pub const COUNT: i64 = 16;
    pub const OPERANDS: i64 = 24;
}

/// Byte offsets of the arguments of Winograd's transforms.
mod winograd_slots {
    pub const IN: i64 = 0;
    pub const OUT: i64 = 8;
    pub const BIAS: i64 = 16;
    pub const OPERANDS: i64 = 24;
}

/// An instruction set with wide vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// AVX2 and FMA: 16 registers of 8 lanes.
    Avx2,
    /// AVX-512F: 32 registers of 16 lanes.
    Avx512,
}

impl Isa {
    /// f32 lanes of a vector: the channels of a block.
    pub const fn lanes(self) -> usize {
        match self {
            Isa::Avx2 => 8,
            Isa::Avx512 => 16,
        }
    }

    /// Bytes of a vector.
    pub const fn bytes(self) -> usize {
        4 * self.lanes()
    }

    pub const fn registers(self) -> u32 {
        match self {
            Isa::Avx2 => 16,
            Isa::Avx512 => 32,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// What leaves use, as bits of [`abi::isa`](crate::runtime::abi::isa): whoever loads them needs all of it.
    pub const fn features(self) -> u64 {
        use crate::runtime::abi::isa::{AVX, AVX2, AVX512F, FMA};
        match self {
            Isa::Avx2 => AVX | AVX2 | FMA,
            Isa::Avx512 => AVX | AVX2 | FMA | AVX512F,
        }
    }

    /// The widest that a CPU with these features has. FMA and BMI2 stand for AVX2, which Cranelift leaves out of its presets
    /// for Zen: no CPU has the two without it.
    pub const fn widest(features: u64) -> Option<Isa> {
        use crate::runtime::abi::isa::{AVX512F, BMI2, FMA};
        if features & AVX512F != 0 {
            Some(Isa::Avx512)
        } else if features & FMA != 0 && features & BMI2 != 0 {
            Some(Isa::Avx2)
        } else {
            None
        }
    }

    /// Whether the CPU that this runs on has it, and the operating system saves its registers.
    pub fn on_this_cpu(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Isa::Avx512 => is_x86_feature_detected!("avx512f"),
        };
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

/// What a leaf computes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LeafSpec {
    Gemm(BatchReduceGemm),
    Matrix(MatrixTile),
    /// Arguments: source, target.
    Panel(Panel),
    /// Behind the operands of the epilogue comes the table of offsets.
    Gather(GatherGemm),
    Map(Map),
    Lrn(Lrn),
    Rows(Rows),
    Columns(Columns),
    Positions(Positions),
    /// Arguments: input, output.
    WinogradInput(InputTransform),
    /// Arguments: products, output, bias, operands of the epilogue.
    WinogradOutput(OutputTransform),
    /// Arguments: address, rounds.
    Touch(Touch),
}

impl LeafSpec {
    /// Assembles the leaf. Place the code on 64 bytes.
    pub fn emit(&self, isa: Isa) -> Result<Leaf, LeafError> {
        let code = match self {
            LeafSpec::Gemm(s) => s.emit(isa)?,
            LeafSpec::Matrix(s) => s.emit(isa)?,
            LeafSpec::Panel(s) => s.emit(isa)?,
            LeafSpec::Gather(s) => s.emit(isa)?,
            LeafSpec::Map(s) => s.emit(isa)?,
            LeafSpec::Lrn(s) => s.emit(isa)?,
            LeafSpec::Rows(s) => s.emit(isa)?,
            LeafSpec::Columns(s) => s.emit(isa)?,
            LeafSpec::Positions(s) => s.emit(isa)?,
            LeafSpec::WinogradInput(s) => s.emit(isa)?,
            LeafSpec::WinogradOutput(s) => s.emit(isa)?,
            LeafSpec::Touch(s) => s.emit(isa)?,
        };
        Ok(Leaf { name: self.name(isa), code: code.into(), streams: self.streams(isa) })
    }

    /// The same for the same spec in every run, and different for different ones (by a hash of 64 bits).
    pub fn name(&self, isa: Isa) -> String {
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        self.hash(&mut hash);
        let (isa, hash) = (isa.name(), hash.finish());
        match self {
            LeafSpec::Gemm(s) => format!("brgemm_{isa}_p{}n{}_{hash:016x}", s.pixels, s.blocks),
            LeafSpec::Matrix(s) => format!("gemm_{isa}_p{}n{}_{hash:016x}", s.tile.pixels, s.tile.blocks),
            LeafSpec::Panel(_) => format!("panel_{isa}_{hash:016x}"),
            LeafSpec::Gather(s) => format!("gather_{isa}_p{}n{}_{hash:016x}", s.tile.pixels, s.tile.blocks),
            LeafSpec::Map(_) => format!("map_{isa}_{hash:016x}"),
            LeafSpec::Lrn(_) => format!("lrn_{isa}_{hash:016x}"),
            LeafSpec::Rows(_) => format!("rows_{isa}_{hash:016x}"),
            LeafSpec::Columns(_) => format!("columns_{isa}_{hash:016x}"),
            LeafSpec::Positions(_) => format!("positions_{isa}_{hash:016x}"),
            LeafSpec::WinogradInput(_) => format!("winograd_in_{isa}_{hash:016x}"),
            LeafSpec::WinogradOutput(_) => format!("winograd_out_{isa}_{hash:016x}"),
            LeafSpec::Touch(_) => "touch".to_string(),
        }
    }
}

/// FNV-1a: a hash that is the same in every process.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Why a leaf cannot be emitted. The caller falls back to Cranelift or chooses another shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafError {
    /// The accumulators do not fit in the registers beside the weights.
    Tile {
        pixels: u32,
        blocks: u32,
        registers: u32,
    },
    /// Reduction loops that do not merge.
    TooManyLoops {
        most: usize,
    },
    TooManyOperands {
        operands: usize,
        most: usize,
    },
    /// One instruction of the program uses more values than there are registers.
    TooFewRegisters,
    Unsupported(&'static str),
    /// The assembler's message: a stride or offset beyond 32 bits.
    Encoder(String),
}

impl LeafError {
    fn encoder(e: iced_x86::IcedError) -> Self {
        LeafError::Encoder(e.to_string())
    }
}

impl fmt::Display for LeafError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeafError::Tile { pixels, blocks, registers } => {
                write!(f, "a tile of {pixels} pixels x {blocks} blocks does not fit in {registers} vector registers")
            }
            LeafError::TooManyLoops { most } => write!(f, "the reduction has more than {most} loops"),
            LeafError::TooManyOperands { operands, most } => {
                write!(f, "the vector program has {operands} operands, of {most} at most")
            }
            LeafError::TooFewRegisters => {
                write!(f, "an instruction of the vector program needs more registers than there are")
            }
            LeafError::Unsupported(what) => write!(f, "there is no leaf for {what}"),
            LeafError::Encoder(message) => write!(f, "the leaf cannot be encoded: {message}"),
        }
    }
}

impl std::error::Error for LeafError {}

/// The code of a leaf as text in AT&T syntax, an instruction a line with its offset; what follows the return is data.
pub fn disassemble(code: &[u8]) -> String {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut formatter = GasFormatter::new();
    let mut text = String::new();
    let mut line = String::new();
    for i in &mut decoder {
        line.clear();
        formatter.format(&i, &mut line);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:6x}:  {line}", i.ip());
        if i.code() == iced_x86::Code::Retnq {
            break;
        }
    }
    let data = decoder.position();
    if data < code.len() {
        let _ = writeln!(text, "{data:6x}:  # {} bytes of constants", code.len() - data);
    }
    text
}
