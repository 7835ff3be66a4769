//! Function bodies: scopes, declarations, labels and statements (PTX ISA 4.4, 5.4, 11.5).

use std::collections::HashMap;

use crate::inst::{Inst, Op};
use crate::lex::Token;
use crate::module::{Function, ParseError, Place, Var};
use crate::types::{Space, Special, Type};

use super::operand::{Decoder, Literal, Operand};
use super::{GAP, Parser, SharedEnds, declaration, describe};

/// Registers and predicates of one function, each.
const MAX_REGISTERS: usize = 60_000;
/// Blocks within blocks.
const MAX_DEPTH: usize = 64;

#[derive(Clone, Copy, Debug)]
pub enum Name {
    Reg(u16, Type),
    Pred(u16),
    Var(u16),
}

/// `.reg .b32 %r<10>`: the names %r0 to %r9.
struct Family<'a> {
    prefix: &'a str,
    first: usize,
    count: usize,
    ty: Type,
}

#[derive(Default)]
struct Scope<'a> {
    names: HashMap<&'a str, Name>,
    families: Vec<Family<'a>>,
    labels: HashMap<&'a str, u32>,
    /// `.branchtargets` lists by label
    tables: HashMap<&'a str, Vec<&'a str>>,
    parent: Option<usize>,
}

/// What is being gathered about one function.
pub struct Body<'a> {
    index: usize,
    scopes: Vec<Scope<'a>>,
    scope: usize,
    regs: Vec<Type>,
    reg_names: Vec<String>,
    pred_names: Vec<String>,
    vars: Vec<Var>,
    globals: HashMap<&'a str, u16>,
    frame: u64,
    code: Vec<Inst>,
    /// Branches whose labels are looked up at the end: instruction, scope, label.
    branches: Vec<(usize, usize, &'a str)>,
    pub calls: Vec<(usize, String, u32)>,
    pub ends: SharedEnds,
}

impl<'a> Body<'a> {
    pub fn new(index: usize) -> Self {
        Body {
            index,
            scopes: vec![Scope::default()],
            scope: 0,
            regs: Vec::new(),
            reg_names: Vec::new(),
            pred_names: Vec::new(),
            vars: Vec::new(),
            globals: HashMap::new(),
            frame: 0,
            code: Vec::new(),
            branches: Vec::new(),
            calls: Vec::new(),
            ends: SharedEnds::default(),
        }
    }

    fn bind(&mut self, text: &'a str, name: Name) -> Result<(), String> {
        if Special::parse(text).is_some() || Special::parse(&format!("{text}.x")).is_some() {
            return Err(format!("{text} is the name of a special register"));
        }
        if self.scopes[self.scope].names.insert(text, name).is_some() {
            return Err(format!("{text} is declared twice"));
        }
        Ok(())
    }

    pub fn add_register(&mut self, name: &'a str, ty: Type) -> Result<u16, String> {
        if self.regs.len().max(self.pred_names.len()) >= MAX_REGISTERS {
            return Err(format!("more than {MAX_REGISTERS} registers"));
        }
        if ty == Type::Pred {
            let index = self.pred_names.len() as u16;
            self.pred_names.push(name.to_string());
            self.bind(name, Name::Pred(index))?;
            return Ok(index);
        }
        let index = self.regs.len() as u16;
        self.regs.push(ty);
        self.reg_names.push(name.to_string());
        self.bind(name, Name::Reg(index, ty))?;
        Ok(index)
    }

    fn add_family(&mut self, prefix: &'a str, count: u64, ty: Type) -> Result<(), String> {
        let names = if ty == Type::Pred { &mut self.pred_names } else { &mut self.reg_names };
        let first = names.len();
        if count > (MAX_REGISTERS - first.min(MAX_REGISTERS)) as u64 {
            return Err(format!("more than {MAX_REGISTERS} registers"));
        }
        let count = count as usize;
        names.extend((0..count).map(|i| format!("{prefix}{i}")));
        if ty != Type::Pred {
            self.regs.resize(first + count, ty);
        }
        self.scopes[self.scope].families.push(Family { prefix, first, count, ty });
        Ok(())
    }

    pub fn add_var(&mut self, name: &'a str, var: Var) -> Result<u16, String> {
        let index = u16::try_from(self.vars.len()).map_err(|_| "too many variables")?;
        self.vars.push(var);
        self.bind(name, Name::Var(index))?;
        Ok(index)
    }

    /// A variable in each thread's frame.
    pub fn add_frame_var(&mut self, name: &'a str, space: Space, size: u64, align: u32) -> Result<u16, String> {
        let offset = self.frame.next_multiple_of(u64::from(align).max(16));
        self.frame = offset + size + if space == Space::Local { GAP } else { 0 };
        if self.frame > 1 << 20 {
            return Err("more than 1 MiB of local memory per thread".into());
        }
        let place = Place::Frame { offset: offset as u32 };
        self.add_var(name, Var { name: name.to_string(), space, place, size, align })
    }

    pub fn lookup(&self, text: &str) -> Option<Name> {
        let mut scope = Some(self.scope);
        while let Some(index) = scope {
            let here = &self.scopes[index];
            if let Some(&name) = here.names.get(text) {
                return Some(name);
            }
            let digits = text.len() - text.bytes().rev().take_while(u8::is_ascii_digit).count();
            for split in digits..text.len() {
                let (prefix, number) = text.split_at(split);
                let Some(family) = here.families.iter().find(|f| f.prefix == prefix) else { continue };
                let canonical = number.len() == 1 || !number.starts_with('0');
                if let Ok(n) = number.parse::<usize>()
                    && canonical
                    && n < family.count
                {
                    let index = (family.first + n) as u16;
                    return Some(match family.ty {
                        Type::Pred => Name::Pred(index),
                        ty => Name::Reg(index, ty),
                    });
                }
            }
            scope = here.parent;
        }
        None
    }

    pub fn var(&self, index: u16) -> &Var {
        &self.vars[index as usize]
    }

    /// Notes that the instruction being decoded branches to `label`.
    pub fn branch_to(&mut self, label: &'a str) {
        self.branches.push((self.code.len(), self.scope, label));
    }

    /// The targets of a `.branchtargets` table.
    pub fn table(&self, label: &str) -> Option<Vec<&'a str>> {
        let mut scope = Some(self.scope);
        while let Some(index) = scope {
            if let Some(table) = self.scopes[index].tables.get(label) {
                return Some(table.clone());
            }
            scope = self.scopes[index].parent;
        }
        None
    }

    pub fn call(&mut self, callee: &str, line: u32) {
        self.calls.push((self.code.len(), callee.to_string(), line));
    }

    fn label(&self, mut scope: usize, label: &str) -> Option<u32> {
        loop {
            if let Some(&at) = self.scopes[scope].labels.get(label) {
                return Some(at);
            }
            scope = self.scopes[scope].parent?;
        }
    }

    /// Resolves branches, finds where lanes reconverge, and hands everything to `function`.
    pub fn finish(&mut self, function: &mut Function) -> Result<(), ParseError> {
        for (at, scope, label) in std::mem::take(&mut self.branches) {
            let Some(found) = self.label(scope, label) else {
                return Err(ParseError { line: self.code[at].line, message: format!("no label {label}") });
            };
            match &mut self.code[at].op {
                Op::Bra { target } => *target = found,
                Op::BraIndexed { targets, .. } => {
                    if let Some(slot) = targets.iter_mut().find(|t| **t == u32::MAX) {
                        *slot = found;
                    }
                }
                _ => {}
            }
        }
        crate::cfg::set_reconvergence(&mut self.code);
        function.code = std::mem::take(&mut self.code);
        function.regs = std::mem::take(&mut self.regs);
        function.preds = self.pred_names.len();
        function.reg_names = std::mem::take(&mut self.reg_names);
        function.pred_names = std::mem::take(&mut self.pred_names);
        function.vars = std::mem::take(&mut self.vars);
        function.frame = self.frame.next_multiple_of(16) as u32;
        Ok(())
    }
}

impl<'a> Parser<'a> {
    /// Statements up to the closing brace; the opening one has been read.
    pub(super) fn block(&mut self, body: &mut Body<'a>, function: &mut Function) -> Result<(), ParseError> {
        loop {
            let line = self.cursor.line();
            match self.cursor.peek() {
                None => return self.cursor.error("a function that does not end"),
                Some(Token::Mark('}')) => {
                    self.cursor.next();
                    return Ok(());
                }
                Some(Token::Mark('{')) => {
                    self.cursor.next();
                    let outer = body.scope;
                    let mut depth = 0;
                    let mut at = Some(outer);
                    while let Some(index) = at {
                        depth += 1;
                        at = body.scopes[index].parent;
                    }
                    if depth > MAX_DEPTH {
                        return self.cursor.error("blocks are nested too deeply");
                    }
                    body.scopes.push(Scope { parent: Some(outer), ..Scope::default() });
                    body.scope = body.scopes.len() - 1;
                    self.block(body, function)?;
                    body.scope = outer;
                }
                Some(Token::Mark(';')) => {
                    self.cursor.next();
                }
                Some(Token::Word(word)) if self.cursor.peek_second() == Some(&Token::Mark(':')) => {
                    self.cursor.next();
                    self.cursor.next();
                    let at = body.code.len() as u32;
                    if self.cursor.eat_word(".branchtargets") {
                        let mut targets = Vec::new();
                        loop {
                            targets.push(self.cursor.word("a label")?);
                            if !self.cursor.eat(',') {
                                break;
                            }
                        }
                        self.cursor.expect(';')?;
                        body.scopes[body.scope].tables.insert(word, targets);
                    } else if body.scopes[body.scope].labels.insert(word, at).is_some() {
                        return Err(ParseError { line, message: format!("the label {word} is declared twice") });
                    }
                }
                Some(Token::Word(word)) if word.starts_with('.') => self.local_directive(body, function)?,
                Some(Token::Word(_) | Token::Mark('@')) => self.statement(body)?,
                other => return self.cursor.error(format!("expected a statement before {}", describe(other))),
            }
        }
    }

    fn local_directive(&mut self, body: &mut Body<'a>, function: &Function) -> Result<(), ParseError> {
        let line = self.cursor.line();
        let fail = |message: String| ParseError { line, message };
        let word = self.cursor.word("a directive")?;
        match word {
            ".reg" => return self.registers(body),
            ".loc" | ".file" => {
                self.cursor.skip_line(line);
                return Ok(());
            }
            ".pragma" => {
                self.cursor.next();
            }
            ".local" | ".param" => {
                let declaration = declaration(&mut self.cursor)?;
                if declaration.size() == 0 {
                    return Err(fail(format!("{} has no size", declaration.name)));
                }
                if declaration.initial.is_some() {
                    return Err(fail(format!("{} cannot have an initial value", declaration.name)));
                }
                let space = if word == ".local" { Space::Local } else { Space::Param };
                let (size, align) = (declaration.size(), declaration.align);
                body.add_frame_var(declaration.name, space, size, align).map_err(fail)?;
            }
            ".shared" => {
                let declaration = declaration(&mut self.cursor)?;
                let mut ends = body.ends;
                let entry = (body.index, &mut ends);
                let var = if function.is_entry {
                    self.shared_variable(&declaration, Some(entry), line)?
                } else {
                    let var = self.shared_variable(&declaration, None, line)?;
                    ends = SharedEnds { end: self.shared_end, packed: self.shared_packed };
                    var
                };
                body.ends = ends;
                body.add_var(declaration.name, var).map_err(fail)?;
            }
            other => return Err(fail(format!("`{other}` is not a directive of functions that is supported"))),
        }
        self.cursor.expect(';')
    }

    /// `.reg .type name<count>, name, ...;`
    fn registers(&mut self, body: &mut Body<'a>) -> Result<(), ParseError> {
        let line = self.cursor.line();
        let fail = |message: String| ParseError { line, message };
        let word = self.cursor.word("a type")?;
        let Some(ty) = word.strip_prefix('.').and_then(Type::parse) else {
            return Err(fail(format!("`{word}` is not a type of registers that is supported")));
        };
        if matches!(ty, Type::Tf32 | Type::Bf16 | Type::Bf16x2) {
            return Err(fail(format!("`{word}` is not a type of registers; use .b16 or .b32")));
        }
        loop {
            let name = self.cursor.word("a register's name")?;
            if self.cursor.eat('<') {
                let count = self.cursor.integer("a number of registers")?;
                self.cursor.expect('>')?;
                body.add_family(name, count, ty).map_err(fail)?;
            } else {
                body.add_register(name, ty).map_err(fail)?;
            }
            if !self.cursor.eat(',') {
                return self.cursor.expect(';');
            }
        }
    }

    fn statement(&mut self, body: &mut Body<'a>) -> Result<(), ParseError> {
        let mut guard = None;
        if self.cursor.eat('@') {
            let negated = self.cursor.eat('!');
            let line = self.cursor.line();
            let name = self.cursor.word("a predicate")?;
            let Some(Name::Pred(pred)) = body.lookup(name) else {
                return Err(ParseError { line, message: format!("{name} is not a predicate") });
            };
            guard = Some((pred, negated));
        }
        let line = self.cursor.line();
        let opcode = self.cursor.word("an instruction")?;
        let mut operands = Vec::new();
        if !self.cursor.eat(';') {
            loop {
                operands.push(self.operand(body, 0)?);
                if !self.cursor.eat(',') {
                    break;
                }
            }
            self.cursor.expect(';')?;
        }
        let op = Decoder::decode(body, opcode, operands, line)
            .map_err(|message| ParseError { line, message: format!("{opcode}: {message}") })?;
        body.code.push(Inst { op, guard, line, reconverge: u32::MAX });
        Ok(())
    }

    fn operand(&mut self, body: &mut Body<'a>, depth: u32) -> Result<Operand<'a>, ParseError> {
        let first = self.simple_operand(body, depth)?;
        if self.cursor.eat('|') {
            let second = self.simple_operand(body, depth)?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn simple_operand(&mut self, body: &mut Body<'a>, depth: u32) -> Result<Operand<'a>, ParseError> {
        if depth > 4 {
            return self.cursor.error("operands are nested too deeply");
        }
        let line = self.cursor.line();
        match self.cursor.next() {
            Some(Token::Int(v)) => Ok(Operand::Literal(Literal::Int(*v))),
            Some(Token::Double(v)) => Ok(Operand::Literal(Literal::Double(*v))),
            Some(Token::Single(bits)) => Ok(Operand::Literal(Literal::Single(*bits))),
            Some(Token::Mark('-')) => match self.cursor.next() {
                Some(Token::Int(v)) => Ok(Operand::Literal(Literal::Int(v.wrapping_neg()))),
                Some(Token::Double(v)) => Ok(Operand::Literal(Literal::Double(-v))),
                Some(Token::Single(bits)) => Ok(Operand::Literal(Literal::Single(bits ^ (1 << 31)))),
                other => self.cursor.error(format!("expected a number before {}", describe(other))),
            },
            Some(Token::Mark('!')) => match self.operand(body, depth + 1)? {
                Operand::Pred { pred, negated } => Ok(Operand::Pred { pred, negated: !negated }),
                _ => self.cursor.error("only predicates can be negated"),
            },
            Some(Token::Mark('{')) => Ok(Operand::Vector(self.operands(body, '}', depth)?)),
            Some(Token::Mark('(')) => Ok(Operand::List(self.operands(body, ')', depth)?)),
            Some(Token::Mark('[')) => {
                let inner = self.operand(body, depth + 1)?;
                let offset = self.offset()?;
                self.cursor.expect(']')?;
                Ok(Operand::Address(Box::new(inner), offset))
            }
            Some(Token::Word(word)) => {
                if *word == "_" {
                    return Ok(Operand::Sink);
                }
                let operand = match body.lookup(word) {
                    Some(Name::Reg(reg, ty)) => Operand::Reg(reg, ty),
                    Some(Name::Pred(pred)) => Operand::Pred { pred, negated: false },
                    Some(Name::Var(var)) => Operand::Var(var, 0),
                    None => self.global_operand(body, word, line)?,
                };
                if let Operand::Var(var, _) = operand
                    && depth == 0
                {
                    return Ok(Operand::Var(var, self.offset()?));
                }
                Ok(operand)
            }
            other => self.cursor.error(format!("expected an operand before {}", describe(other))),
        }
    }

    fn global_operand(&self, body: &mut Body<'a>, word: &'a str, line: u32) -> Result<Operand<'a>, ParseError> {
        if word == "WARP_SZ" {
            return Ok(Operand::Literal(Literal::Int(32)));
        }
        if let Some((special, ty)) = Special::parse(word) {
            return Ok(Operand::Special(special, ty));
        }
        if word.starts_with('%') {
            return Err(ParseError { line, message: format!("{word} is not declared, nor a special register") });
        }
        let Some(global) = self.globals.get(word) else { return Ok(Operand::Name(word)) };
        if let Some(&var) = body.globals.get(word) {
            return Ok(Operand::Var(var, 0));
        }
        let Ok(index) = u16::try_from(body.vars.len()) else {
            return Err(ParseError { line, message: "too many variables".into() });
        };
        body.vars.push(global.clone());
        body.globals.insert(word, index);
        Ok(Operand::Var(index, 0))
    }

    fn operands(&mut self, body: &mut Body<'a>, close: char, depth: u32) -> Result<Vec<Operand<'a>>, ParseError> {
        let mut operands = Vec::new();
        if self.cursor.eat(close) {
            return Ok(operands);
        }
        loop {
            operands.push(self.operand(body, depth + 1)?);
            if !self.cursor.eat(',') {
                self.cursor.expect(close)?;
                return Ok(operands);
            }
        }
    }

    /// `+4`, `+-4`, or nothing.
    fn offset(&mut self) -> Result<i64, ParseError> {
        if self.cursor.peek() == Some(&Token::Mark('-')) {
            return self.cursor.error("an offset is added: write `+-` and a number");
        }
        if !self.cursor.eat('+') {
            return Ok(0);
        }
        let negative = self.cursor.eat('-');
        let value = self.cursor.integer("an offset")? as i64;
        Ok(if negative { value.wrapping_neg() } else { value })
    }
}
