//! A parsed module: its variables and its functions, ready to be executed.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::inst::Inst;
use crate::types::{Space, Type};

/// Text that is not PTX, or PTX that this crate does not execute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// Counted from 1.
    pub line: u32,
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ParseError {}

/// Where a variable lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the kernel's arguments.
    Argument { offset: u32 },
    /// In each thread's frame of the function: `.local` variables, and `.param` ones of calls.
    Frame { offset: u32 },
    /// In the block's shared memory.
    Shared { offset: u32 },
    /// In shared memory behind all static variables; its size is the launch's.
    DynamicShared,
    /// A module's variable in `.global` or `.const` memory, by its index in `Module::variables`.
    Module { index: u32 },
}

/// A variable that a function can name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Var {
    pub name: String,
    pub space: Space,
    pub place: Place,
    /// In bytes.
    pub size: u64,
    pub align: u32,
}

/// A variable of the module in `.global` or `.const` memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModuleVariable {
    pub name: String,
    pub space: Space,
    pub size: u64,
    pub align: u32,
    /// Shorter than `size` where the rest is zero.
    pub bytes: Vec<u8>,
}

/// A parameter of an entry or of a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Param {
    pub name: String,
    pub ty: Type,
    pub size: u64,
    pub align: u32,
    pub place: ParamPlace,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParamPlace {
    Var(u16),
    Reg(u16),
}

/// An `.entry` or a `.func`.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    pub is_entry: bool,
    pub params: Vec<Param>,
    pub results: Vec<Param>,
    pub(crate) code: Vec<Inst>,
    /// The type of each register.
    pub(crate) regs: Vec<Type>,
    pub(crate) preds: usize,
    /// What the text calls them.
    pub(crate) reg_names: Vec<String>,
    pub(crate) pred_names: Vec<String>,
    pub(crate) vars: Vec<Var>,
    /// Bytes of each thread's frame.
    pub(crate) frame: u32,
    /// Of an entry: bytes of its arguments.
    pub(crate) argument_bytes: u32,
    /// Of an entry: where its dynamic shared memory begins.
    pub(crate) dynamic_base: u32,
    /// Of an entry: bytes of static shared memory, as a GPU would pack it.
    pub(crate) static_shared: u32,
    /// `.maxntid` and `.reqntid`
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required_threads: Option<[u32; 3]>,
}

/// A parsed module.
#[derive(Clone, Debug)]
pub struct Module {
    pub(crate) id: u64,
    /// `.version`
    pub version: (u32, u32),
    /// `.target`, the first word
    pub target: String,
    pub(crate) variables: Vec<ModuleVariable>,
    pub(crate) functions: Vec<Function>,
    pub(crate) by_name: HashMap<String, usize>,
    /// Every shared variable of the module.
    pub(crate) shared: Vec<SharedVar>,
    pub(crate) lines: Vec<String>,
}

/// A shared variable: of the module and of `.func`s (visible to all entries), or of one entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SharedVar {
    pub name: String,
    pub offset: u32,
    pub size: u32,
    /// The entry whose variable it is.
    pub entry: Option<usize>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Module {
    /// Parses the text of a module.
    ///
    /// # Errors
    /// The first line that is not PTX, or that holds an instruction which this crate does not know.
    pub fn parse(text: &str) -> Result<Module, ParseError> {
        let mut module = crate::parse::parse(text)?;
        module.id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(module)
    }

    /// The kernels of the module, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(|f| f.is_entry)
    }

    pub fn kernel(&self, name: &str) -> Option<&Function> {
        self.by_name.get(name).map(|&i| &self.functions[i]).filter(|f| f.is_entry)
    }

    /// The text of a line, counted from 1, without the blanks around it.
    pub fn line(&self, line: u32) -> &str {
        (line as usize).checked_sub(1).and_then(|i| self.lines.get(i)).map_or("", |l| l.trim())
    }
}

impl Function {
    /// Bytes of static shared memory.
    pub fn static_shared(&self) -> u32 {
        self.static_shared
    }

    /// Number of instructions.
    pub fn instructions(&self) -> usize {
        self.code.len()
    }
}
