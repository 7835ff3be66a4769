//! A kernel under construction, as a list of lines that prints as PTX, and the words of its instructions (`inst.rs` has those).

use super::numbering::Numbering;
use super::reg::*;
use std::fmt::{self, Write};

/// A place to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(pub(super) u32);

/// A state space with addresses in registers.
pub trait Space {
    const NAME: &'static str;
    /// Class of its addresses.
    type Base: Class;
}

pub enum Global {}
/// Reads that nothing in the kernel writes: `ld.global.nc`.
pub enum ReadOnly {}
pub enum Shared {}
pub enum Constant {}

impl Space for Global {
    const NAME: &'static str = "global";
    type Base = B64;
}
impl Space for ReadOnly {
    const NAME: &'static str = "global.nc";
    type Base = B64;
}
impl Space for Shared {
    const NAME: &'static str = "shared";
    type Base = B32;
}
impl Space for Constant {
    const NAME: &'static str = "const";
    type Base = B64;
}

/// Comparisons as PTX names them. The unordered ones are for floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Not equal or unordered.
    Neu,
    /// One of them is NaN.
    Nan,
}

impl Cmp {
    pub(super) fn name(self) -> &'static str {
        match self {
            Cmp::Eq => "eq",
            Cmp::Ne => "ne",
            Cmp::Lt => "lt",
            Cmp::Le => "le",
            Cmp::Gt => "gt",
            Cmp::Ge => "ge",
            Cmp::Neu => "neu",
            Cmp::Nan => "nan",
        }
    }
}

/// Rounding of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Exact, or between integers.
    None,
    Nearest,
    /// To an integer: to nearest even, to zero, down, up.
    NearestInt,
    ZeroInt,
    DownInt,
    UpInt,
}

impl Round {
    pub(super) fn name(self) -> &'static str {
        match self {
            Round::None => "",
            Round::Nearest => ".rn",
            Round::NearestInt => ".rni",
            Round::ZeroInt => ".rzi",
            Round::DownInt => ".rmi",
            Round::UpInt => ".rpi",
        }
    }
}

/// Special registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    ThreadX,
    BlockX,
}

impl Special {
    pub(super) fn name(self) -> &'static str {
        match self {
            Special::ThreadX => "%tid.x",
            Special::BlockX => "%ctaid.x",
        }
    }
}

/// Element types of tensor-core operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MmaType {
    /// m16n8k8.
    Tf32,
    /// m16n8k16.
    F16,
    Bf16,
}

struct Inst {
    /// Runs only where the predicate is (or, negated, is not) true.
    guard: Option<(u32, bool)>,
    opcode: String,
    operands: Vec<Operand>,
}

enum Line {
    Inst(Inst),
    Label(Label),
    Comment(String),
    Pragma(&'static str),
}

/// An array in shared memory.
#[derive(Clone, Debug)]
pub struct SharedArray {
    pub name: String,
    pub bytes: u32,
}

/// Where construction stood; see [`Func::mark`].
pub struct Mark {
    lines: usize,
    labels: u32,
    counts: [u32; 6],
    shared: usize,
    time: usize,
}

/// A kernel: `.entry`.
pub struct Func {
    pub name: String,
    /// Lines before it, without the slashes.
    pub heading: Vec<String>,
    pub params: Vec<Param>,
    /// Threads of a block, exactly.
    pub threads: u32,
    /// Whether registers go before blocks side by side: ptxas then spills none to make room for more blocks.
    pub wants_registers: bool,
    pub shared: Vec<SharedArray>,
    counts: [u32; 6],
    labels: u32,
    lines: Vec<Line>,
    guard: Option<(u32, bool)>,
    numbering: Numbering,
}

#[derive(Clone, Debug)]
pub struct Param {
    pub name: String,
    pub kind: ParamKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Address of a buffer in global memory.
    Pointer,
    U32,
}

impl Func {
    pub fn new(name: String, threads: u32) -> Func {
        Func {
            name,
            heading: vec![],
            params: vec![],
            threads,
            wants_registers: false,
            shared: vec![],
            counts: [0; 6],
            labels: 0,
            lines: vec![],
            guard: None,
            numbering: Numbering::default(),
        }
    }

    pub fn reg<C: Class>(&mut self) -> Reg<C> {
        let count = &mut self.counts[C::ID as usize];
        *count += 1;
        Reg::new(*count - 1)
    }

    pub fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels - 1)
    }

    pub fn place(&mut self, label: Label) {
        self.numbering.label(label.0);
        self.lines.push(Line::Label(label));
    }

    pub fn comment(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Comment(text.into()));
    }

    /// The loop that begins here is long enough: ptxas, which would write out several iterations of it, and spill, is to leave it.
    pub fn no_unrolling(&mut self) {
        self.lines.push(Line::Pragma("nounroll"));
    }

    /// The state of construction, to come back to.
    pub fn mark(&self) -> Mark {
        Mark {
            lines: self.lines.len(),
            labels: self.labels,
            counts: self.counts,
            shared: self.shared.len(),
            time: self.numbering.now(),
        }
    }

    /// Forgets what was added since.
    pub fn rewind(&mut self, mark: Mark) {
        self.lines.truncate(mark.lines);
        self.shared.truncate(mark.shared);
        (self.labels, self.counts) = (mark.labels, mark.counts);
        self.numbering.rewind(mark.time, mark.labels, &mark.counts);
    }

    /// What `f` adds runs only where `p` equals `when`. Results that are read elsewhere must have been set before.
    pub fn guarded(&mut self, p: Reg<Pred>, when: bool, f: impl FnOnce(&mut Func)) {
        assert!(self.guard.is_none(), "guards do not nest");
        self.guard = Some((p.n, !when));
        f(self);
        self.guard = None;
    }

    pub(super) fn push(&mut self, opcode: impl Into<String>, operands: Vec<Operand>) {
        self.lines.push(Line::Inst(Inst { guard: self.guard, opcode: opcode.into(), operands }));
    }

    /// What an instruction gives that depends on its operands alone: computed once.
    pub(super) fn result<C: Class>(&mut self, opcode: impl Into<String>, sources: Vec<Operand>) -> Reg<C> {
        let opcode = opcode.into();
        if self.guard.is_some() {
            return self.loaded(opcode, sources);
        }
        if let Some(n) = self.numbering.find(&opcode, &sources) {
            return Reg::new(n);
        }
        let r: Reg<C> = self.loaded(opcode.clone(), sources.clone());
        self.numbering.add(&opcode, &sources, (C::ID, r.n));
        r
    }

    /// What an instruction gives that depends on memory or other threads, too.
    pub(super) fn loaded<C: Class>(&mut self, opcode: impl Into<String>, sources: Vec<Operand>) -> Reg<C> {
        let r = self.reg::<C>();
        let mut operands = vec![r.into()];
        operands.extend(sources);
        self.push(opcode, operands);
        r
    }

    /// A register that may be written more than once.
    pub(super) fn variable<C: Class>(&mut self) -> Reg<C> {
        let r = self.reg();
        self.numbering.variable((C::ID, r.n));
        r
    }

    /// The register is given another value.
    pub(super) fn written<C: Class>(&mut self, r: Reg<C>) {
        self.numbering.written((C::ID, r.n));
    }

    pub(super) fn jumped(&mut self, to: Label) {
        self.numbering.jump(to.0);
    }
}

impl fmt::Display for Func {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.heading {
            writeln!(f, "// {line}")?;
        }
        let params: Vec<String> = self
            .params
            .iter()
            .map(|p| match p.kind {
                ParamKind::Pointer => format!("\n    .param .u64 {}", p.name),
                ParamKind::U32 => format!("\n    .param .u32 {}", p.name),
            })
            .collect();
        writeln!(f, ".visible .entry {}({}\n)\n.reqntid {}, 1, 1", self.name, params.join(","), self.threads)?;
        if self.wants_registers {
            writeln!(f, ".minnctapersm 1")?;
        }
        writeln!(f, "{{")?;
        for class in ClassId::ALL {
            let n = self.counts[class as usize];
            if n > 0 {
                writeln!(f, "    .reg {} {}<{n}>;", class.declared(), class.prefix())?;
            }
        }
        for array in &self.shared {
            writeln!(f, "    .shared .align 128 .b8 {}[{}];", array.name, array.bytes)?;
        }
        let mut line = String::new();
        for l in &self.lines {
            line.clear();
            match l {
                Line::Label(label) => write!(line, "$L{}:", label.0)?,
                Line::Pragma(text) => write!(line, "    .pragma \"{text}\";")?,
                Line::Comment(text) => write!(line, "    // {text}")?,
                Line::Inst(i) => {
                    line.push_str("    ");
                    if let Some((p, negated)) = i.guard {
                        write!(line, "@{}{}{p} ", if negated { "!" } else { "" }, ClassId::Pred.prefix())?;
                    }
                    line.push_str(&i.opcode);
                    for (k, operand) in i.operands.iter().enumerate() {
                        write!(line, "{}{operand}", if k == 0 { " " } else { ", " })?;
                    }
                    line.push(';');
                }
            }
            writeln!(f, "{line}")?;
        }
        writeln!(f, "}}")
    }
}
