//! From text to a [`Module`]: directives and declarations at module level (PTX ISA 4, 5, 11).

mod arith;
mod body;
mod convert;
mod memory;
mod operand;
mod sync;

use std::collections::HashMap;

use crate::lex::{Spanned, Token, lex};
use crate::module::{Function, Module, ModuleVariable, Param, ParamPlace, ParseError, Place, SharedVar, Var};
use crate::types::{Space, Type};

use body::Body;

/// The largest variable: beyond it a declaration is taken for a mistake.
const MAX_VARIABLE: u64 = 1 << 32;
/// Bytes between shared or local variables, so that running over the end of one is out of bounds.
const GAP: u64 = 128;
/// The first shared address, so that address 0 is nobody's.
const FIRST_SHARED: u64 = 1024;

pub fn parse(text: &str) -> Result<Module, ParseError> {
    let tokens = lex(text)?;
    let mut parser = Parser {
        cursor: Cursor { tokens: &tokens, at: 0 },
        module: Module {
            id: 0,
            version: (0, 0),
            target: String::new(),
            variables: Vec::new(),
            functions: Vec::new(),
            by_name: HashMap::new(),
            shared: Vec::new(),
            lines: text.lines().map(str::to_string).collect(),
        },
        globals: HashMap::new(),
        shared_end: FIRST_SHARED,
        shared_packed: 0,
        calls: Vec::new(),
    };
    parser.module_items()?;
    parser.resolve_calls()?;
    Ok(parser.module)
}

/// The tokens, and how far they have been read.
pub(crate) struct Cursor<'a> {
    tokens: &'a [Spanned<'a>],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn peek(&self) -> Option<&'a Token<'a>> {
        self.tokens.get(self.at).map(|t| &t.token)
    }

    pub fn peek_second(&self) -> Option<&'a Token<'a>> {
        self.tokens.get(self.at + 1).map(|t| &t.token)
    }

    /// The line of the next token, or of the last one.
    pub fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.line)
    }

    pub fn next(&mut self) -> Option<&'a Token<'a>> {
        let token = self.peek();
        self.at += 1;
        token
    }

    pub fn error<T>(&self, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError { line: self.line(), message: message.into() })
    }

    pub fn eat(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(&Token::Mark(mark));
        self.at += usize::from(found);
        found
    }

    pub fn eat_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(&Token::Word(word));
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, mark: char) -> Result<(), ParseError> {
        if self.eat(mark) {
            return Ok(());
        }
        self.error(format!("expected `{mark}` before {}", describe(self.peek())))
    }

    pub fn word(&mut self, what: &str) -> Result<&'a str, ParseError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            other => self.error(format!("expected {what} before {}", describe(other))),
        }
    }

    pub fn integer(&mut self, what: &str) -> Result<u64, ParseError> {
        match self.peek() {
            Some(Token::Int(value)) => {
                self.at += 1;
                Ok(*value)
            }
            other => self.error(format!("expected {what} before {}", describe(other))),
        }
    }

    /// Skips what is left of the line that `line` is.
    pub fn skip_line(&mut self, line: u32) {
        while self.tokens.get(self.at).is_some_and(|t| t.line == line) {
            self.at += 1;
        }
    }
}

fn describe(token: Option<&Token<'_>>) -> String {
    match token {
        None => "the end of the text".into(),
        Some(Token::Word(w)) => format!("`{w}`"),
        Some(Token::Int(i)) => format!("`{i}`"),
        Some(Token::Mark(c)) => format!("`{c}`"),
        Some(Token::Text(t)) => format!("{t:?}"),
        Some(Token::Double(d)) => format!("`{d}`"),
        Some(Token::Single(bits)) => format!("`{}`", f32::from_bits(*bits)),
    }
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    module: Module,
    globals: HashMap<&'a str, Var>,
    /// Where the next shared variable of the module, or of a `.func`, goes; and the same without gaps.
    shared_end: u64,
    shared_packed: u64,
    /// Calls by the caller's index, the instruction, and the name and line of the callee.
    calls: Vec<(usize, usize, String, u32)>,
}

/// A declaration of one variable: everything behind the state space.
pub(crate) struct Declaration<'a> {
    pub name: &'a str,
    pub ty: Type,
    pub align: u32,
    /// Elements; `None` is `[]`.
    pub count: Option<u64>,
    pub initial: Option<Vec<u8>>,
}

impl Declaration<'_> {
    pub fn size(&self) -> u64 {
        self.count.unwrap_or(0) * u64::from(self.ty.size())
    }
}

impl<'a> Parser<'a> {
    fn module_items(&mut self) -> Result<(), ParseError> {
        while let Some(token) = self.cursor.peek() {
            let line = self.cursor.line();
            let Token::Word(word) = token else {
                return self.cursor.error(format!("expected a directive before {}", describe(Some(token))));
            };
            self.cursor.next();
            match *word {
                ".version" => match self.cursor.next() {
                    Some(Token::Double(v)) => {
                        self.module.version = (*v as u32, ((v - v.floor()) * 10.0).round() as u32);
                    }
                    _ => return self.cursor.error("expected a version such as 7.8"),
                },
                ".target" => {
                    self.module.target = self.cursor.word("a target")?.to_string();
                    while self.cursor.eat(',') {
                        self.cursor.word("a target option")?;
                    }
                }
                ".address_size" => {
                    if self.cursor.integer("an address size")? != 64 {
                        return self.cursor.error("only addresses of 64 bits are supported");
                    }
                }
                ".visible" | ".weak" | ".extern" | ".common" => {}
                ".file" | ".loc" => self.cursor.skip_line(line),
                ".section" => self.skip_section()?,
                ".pragma" => {
                    self.cursor.next();
                    self.cursor.expect(';')?;
                }
                ".entry" => self.function(true)?,
                ".func" => self.function(false)?,
                ".global" => self.module_variable(Space::Global)?,
                ".const" => self.module_variable(Space::Const)?,
                ".shared" => self.module_shared()?,
                other => {
                    self.cursor.at -= 1;
                    return self.cursor.error(format!("`{other}` is not a directive of modules that is supported"));
                }
            }
        }
        Ok(())
    }

    fn skip_section(&mut self) -> Result<(), ParseError> {
        self.cursor.word("a section's name")?;
        self.cursor.expect('{')?;
        while let Some(token) = self.cursor.next() {
            if *token == Token::Mark('}') {
                return Ok(());
            }
        }
        self.cursor.error("a section that does not end")
    }

    fn module_variable(&mut self, space: Space) -> Result<(), ParseError> {
        let line = self.cursor.line();
        let declaration = declaration(&mut self.cursor)?;
        let index = self.module.variables.len() as u32;
        let (size, align) = (declaration.size(), declaration.align);
        if size == 0 {
            return Err(ParseError { line, message: format!("{} has no size", declaration.name) });
        }
        let name = declaration.name.to_string();
        let var = Var { name: name.clone(), space, place: Place::Module { index }, size, align };
        let bytes = declaration.initial.unwrap_or_default();
        self.module.variables.push(ModuleVariable { name, space, size, align, bytes });
        self.add_global(declaration.name, var, line)?;
        self.cursor.expect(';')
    }

    fn module_shared(&mut self) -> Result<(), ParseError> {
        let line = self.cursor.line();
        let declaration = declaration(&mut self.cursor)?;
        let var = self.shared_variable(&declaration, None, line)?;
        self.add_global(declaration.name, var, line)?;
        self.cursor.expect(';')
    }

    fn add_global(&mut self, name: &'a str, var: Var, line: u32) -> Result<(), ParseError> {
        if self.globals.insert(name, var).is_some() {
            return Err(ParseError { line, message: format!("{name} is declared twice") });
        }
        Ok(())
    }

    /// Places a shared variable: of the module if `entry` is `None`, otherwise at the ends that `entry` has.
    fn shared_variable(
        &mut self,
        declaration: &Declaration<'_>,
        entry: Option<(usize, &mut SharedEnds)>,
        line: u32,
    ) -> Result<Var, ParseError> {
        let (size, align) = (declaration.size(), declaration.align);
        let name = declaration.name.to_string();
        if declaration.initial.is_some() {
            return Err(ParseError { line, message: "shared variables have no initial values".into() });
        }
        let place = if size == 0 {
            Place::DynamicShared
        } else {
            let index = entry.as_ref().map(|e| e.0);
            let (end, packed) = match entry {
                Some((_, ends)) => (&mut ends.end, &mut ends.packed),
                None => (&mut self.shared_end, &mut self.shared_packed),
            };
            let offset = end.next_multiple_of(u64::from(align).max(GAP));
            *packed = packed.next_multiple_of(u64::from(align)) + size;
            *end = offset + size + GAP;
            if *end > 1 << 24 {
                return Err(ParseError { line, message: format!("{name}: more than 16 MiB of shared memory") });
            }
            let shared = SharedVar { name: name.clone(), offset: offset as u32, size: size as u32, entry: index };
            self.module.shared.push(shared);
            Place::Shared { offset: offset as u32 }
        };
        Ok(Var { name, space: Space::Shared, place, size, align })
    }

    fn function(&mut self, is_entry: bool) -> Result<(), ParseError> {
        let index = self.module.functions.len();
        let mut function = Function {
            name: String::new(),
            is_entry,
            params: Vec::new(),
            results: Vec::new(),
            code: Vec::new(),
            regs: Vec::new(),
            preds: 0,
            reg_names: Vec::new(),
            pred_names: Vec::new(),
            vars: Vec::new(),
            frame: 0,
            argument_bytes: 0,
            dynamic_base: 0,
            static_shared: 0,
            max_threads: None,
            required_threads: None,
        };
        let mut body = Body::new(index);
        if !is_entry && self.cursor.peek() == Some(&Token::Mark('(')) {
            function.results = self.params(&mut body, &mut function, false)?;
        }
        let line = self.cursor.line();
        let name = self.cursor.word("the function's name")?;
        function.name = name.to_string();
        if self.cursor.peek() == Some(&Token::Mark('(')) {
            function.params = self.params(&mut body, &mut function, is_entry)?;
        }
        self.function_directives(&mut function)?;
        if self.cursor.eat(';') {
            return Ok(()); // a declaration: calls are resolved by name at the end
        }
        if self.module.by_name.contains_key(name) {
            return Err(ParseError { line, message: format!("{name} is defined twice") });
        }
        body.ends = SharedEnds { end: self.shared_end, packed: self.shared_packed };
        self.cursor.expect('{')?;
        self.block(&mut body, &mut function)?;
        body.finish(&mut function)?;
        self.calls.extend(body.calls.drain(..).map(|(at, callee, line)| (index, at, callee, line)));
        if is_entry {
            function.static_shared = body.ends.packed as u32;
            function.dynamic_base = body.ends.end.next_multiple_of(1024) as u32;
        } else {
            (self.shared_end, self.shared_packed) = (body.ends.end, body.ends.packed);
        }
        self.module.by_name.insert(name.to_string(), index);
        self.module.functions.push(function);
        Ok(())
    }

    fn function_directives(&mut self, function: &mut Function) -> Result<(), ParseError> {
        loop {
            let Some(Token::Word(word)) = self.cursor.peek() else { return Ok(()) };
            match *word {
                ".maxntid" | ".reqntid" => {
                    self.cursor.next();
                    let mut dims = [1; 3];
                    for (i, dim) in dims.iter_mut().enumerate() {
                        if i == 0 || self.cursor.eat(',') {
                            *dim = self.cursor.integer("a number of threads")? as u32;
                        }
                    }
                    if *word == ".maxntid" {
                        function.max_threads = Some(dims);
                    } else {
                        function.required_threads = Some(dims);
                    }
                }
                ".minnctapersm" | ".maxnreg" => {
                    self.cursor.next();
                    self.cursor.integer("a number")?;
                }
                ".noreturn" => {
                    self.cursor.next();
                }
                ".pragma" => {
                    self.cursor.next();
                    self.cursor.next();
                    self.cursor.expect(';')?;
                }
                _ => return Ok(()),
            }
        }
    }

    /// A list of parameters in parentheses.
    fn params(
        &mut self,
        body: &mut Body<'a>,
        function: &mut Function,
        is_entry: bool,
    ) -> Result<Vec<Param>, ParseError> {
        self.cursor.expect('(')?;
        let mut params = Vec::new();
        if self.cursor.eat(')') {
            return Ok(params);
        }
        loop {
            let line = self.cursor.line();
            let space = self.cursor.word("`.param` or `.reg`")?;
            let declaration = declaration(&mut self.cursor)?;
            let (name, ty, size, align) = (declaration.name, declaration.ty, declaration.size(), declaration.align);
            let fail = |message: String| ParseError { line, message };
            let place = match space {
                ".reg" if !is_entry => ParamPlace::Reg(body.add_register(name, ty).map_err(fail)?),
                ".param" if size == 0 => return Err(fail(format!("{name} has no size"))),
                ".param" if is_entry => {
                    let offset = u64::from(function.argument_bytes).next_multiple_of(u64::from(align));
                    if offset + size > 32764 {
                        return Err(fail("more than 32764 bytes of parameters".into()));
                    }
                    function.argument_bytes = (offset + size) as u32;
                    let place = Place::Argument { offset: offset as u32 };
                    let var = Var { name: name.to_string(), space: Space::Param, place, size, align };
                    ParamPlace::Var(body.add_var(name, var).map_err(fail)?)
                }
                ".param" => ParamPlace::Var(body.add_frame_var(name, Space::Param, size, align).map_err(fail)?),
                other => return Err(fail(format!("`{other}` is not a space of parameters"))),
            };
            params.push(Param { name: name.to_string(), ty, size, align, place });
            if !self.cursor.eat(',') {
                break;
            }
        }
        self.cursor.expect(')')?;
        Ok(params)
    }

    fn resolve_calls(&mut self) -> Result<(), ParseError> {
        for (caller, at, callee, line) in std::mem::take(&mut self.calls) {
            let fail = |message: String| Err(ParseError { line, message });
            let Some(&index) = self.module.by_name.get(&callee) else {
                return fail(format!("the function {callee} is called but not defined"));
            };
            let function = &self.module.functions[index];
            if function.is_entry {
                return fail(format!("{callee} is an entry: it cannot be called"));
            }
            let (params, results) = (function.params.len(), function.results.len());
            if let crate::inst::Op::Call(call) = &mut self.module.functions[caller].code[at].op {
                if (call.args.len(), call.results.len()) != (params, results) {
                    return fail(format!("{callee} takes {params} arguments and gives {results} results"));
                }
                call.function = index as u32;
            }
        }
        Ok(())
    }
}

/// Where the next shared variable goes, with gaps and packed.
#[derive(Clone, Copy, Default)]
pub(crate) struct SharedEnds {
    end: u64,
    packed: u64,
}

/// `[.align N] .type [.ptr .space .align N] name [dims] [= initial]`
pub(crate) fn declaration<'a>(cursor: &mut Cursor<'a>) -> Result<Declaration<'a>, ParseError> {
    let mut align = None;
    let mut ty = None;
    while let Some(Token::Word(word)) = cursor.peek() {
        let Some(name) = word.strip_prefix('.') else { break };
        cursor.next();
        match name {
            "align" => {
                let value = cursor.integer("an alignment")?;
                if !value.is_power_of_two() || value > 4096 {
                    return cursor.error(format!("{value} is not an alignment"));
                }
                // Behind `.ptr` the alignment is the pointee's.
                if ty.is_none() {
                    align = Some(value as u32);
                }
            }
            "ptr" | "global" | "shared" | "const" | "local" | "attribute" => {}
            _ => match Type::parse(name) {
                Some(found) if ty.is_none() => ty = Some(found),
                _ => return cursor.error(format!("`.{name}` is not supported in a declaration")),
            },
        }
    }
    let Some(ty) = ty else { return cursor.error("a declaration without a type") };
    let name = cursor.word("a variable's name")?;
    let mut count = Some(1u64);
    while cursor.eat('[') {
        if cursor.eat(']') {
            count = None;
            continue;
        }
        let dim = cursor.integer("a number of elements")?;
        cursor.expect(']')?;
        count = count.map(|c| c.saturating_mul(dim));
    }
    if count.is_some_and(|c| c.saturating_mul(u64::from(ty.size())) > MAX_VARIABLE) {
        return cursor.error(format!("{name} is larger than 4 GiB"));
    }
    let mut initial = None;
    if cursor.eat('=') {
        let mut bytes = Vec::new();
        initial_values(cursor, ty, &mut bytes, 0)?;
        let size = count.unwrap_or(0) * u64::from(ty.size());
        if count.is_none() {
            count = Some(bytes.len() as u64 / u64::from(ty.size()));
        } else if bytes.len() as u64 > size {
            return cursor.error(format!("{name} has more initial values than elements"));
        }
        initial = Some(bytes);
    }
    Ok(Declaration { name, ty, align: align.unwrap_or(ty.size()), count, initial })
}

fn initial_values(cursor: &mut Cursor<'_>, ty: Type, bytes: &mut Vec<u8>, depth: u32) -> Result<(), ParseError> {
    if depth < 8 && cursor.eat('{') {
        loop {
            initial_values(cursor, ty, bytes, depth + 1)?;
            if !cursor.eat(',') {
                return cursor.expect('}');
            }
        }
    }
    let negative = cursor.eat('-');
    let literal = match cursor.next() {
        Some(Token::Int(v)) => operand::Literal::Int(if negative { v.wrapping_neg() } else { *v }),
        Some(Token::Double(v)) => operand::Literal::Double(if negative { -v } else { *v }),
        Some(Token::Single(bits)) => operand::Literal::Single(if negative { bits ^ (1 << 31) } else { *bits }),
        other => return cursor.error(format!("expected a number before {}", describe(other))),
    };
    match literal.to_bits(ty) {
        Some(value) => bytes.extend_from_slice(&value.to_le_bytes()[..ty.size() as usize]),
        None => return cursor.error(format!("not a value of type .{}", ty.name())),
    }
    Ok(())
}
