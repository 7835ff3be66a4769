//! The parser: tokens to a [`Graph`], statement by statement. After an error it goes on with the next statement, so that all
//! errors are found; values that a bad statement would have defined are known, and cause no further complaints.

use super::lex::{Tok, Token, lex};
use crate::diag::{Diag, Location};
use crate::graph::{Graph, Origin, Provenance, ValueId};
use crate::ops::Op;
use crate::tensor::Tensor;
use crate::types::TensorType;
use std::collections::HashMap;

const MAX_BYTES: usize = 1 << 28;
const MAX_REGION_DEPTH: usize = 16;
const MAX_DIAGS: usize = 100;

/// Reads one graph. `weight` gives the tensors that the text mentions by name.
///
/// # Errors
/// Everything wrong with the text, each with its line.
pub fn parse(text: &str, weight: &dyn Fn(&str) -> Option<Tensor>) -> Result<Graph, Vec<Diag>> {
    if text.len() > MAX_BYTES {
        return Err(vec![Diag::new("parse.limit", format!("the text is longer than {MAX_BYTES} bytes"))]);
    }
    let mut p = Parser { tokens: lex(text), at: 0, weight, diags: vec![] };
    let graph = p.graph(0);
    match graph {
        Ok(g) => {
            if *p.peek() != Tok::End {
                let found = p.peek().describe();
                p.complain(p.line(), "parse.syntax", format!("{found} after the graph"));
            }
            if p.diags.is_empty() { Ok(g) } else { Err(p.diags) }
        }
        Err(Stop) => Err(p.diags),
    }
}

/// The statement (or the graph) can't go on; the complaint has been made.
pub(super) struct Stop;
pub(super) type Parsed<T> = Result<T, Stop>;

pub(super) struct Parser<'t> {
    pub tokens: Vec<Token>,
    pub at: usize,
    pub weight: &'t dyn Fn(&str) -> Option<Tensor>,
    diags: Vec<Diag>,
}

/// Values in scope; `None` for those whose definition was wrong.
type Scope = HashMap<String, Option<ValueId>>;

/// A result as written: key, name, line, and the type if given.
struct Written {
    key: String,
    name: Option<String>,
    line: usize,
    ty: Option<TensorType>,
}

impl Parser<'_> {
    pub(super) fn peek(&self) -> &Tok {
        &self.tokens[self.at].tok
    }

    pub(super) fn line(&self) -> usize {
        self.tokens[self.at].line
    }

    pub(super) fn opens_line(&self) -> bool {
        self.tokens[self.at].first
    }

    pub(super) fn advance(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    pub(super) fn complain(&mut self, line: usize, code: &'static str, message: impl Into<String>) {
        self.push(Diag::new(code, message).at(Location::Line { line }));
    }

    fn push(&mut self, diag: Diag) {
        if self.diags.len() < MAX_DIAGS {
            self.diags.push(diag);
        }
    }

    pub(super) fn fail<T>(&mut self, what: &str) -> Parsed<T> {
        let found = self.peek().describe();
        self.complain(self.line(), "parse.syntax", format!("{what} is expected, not {found}"));
        Err(Stop)
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let here = *self.peek() == Tok::Punct(c);
        if here {
            self.advance();
        }
        here
    }

    pub(super) fn expect(&mut self, c: char) -> Parsed<()> {
        if self.eat(c) { Ok(()) } else { self.fail(&format!("`{c}`")) }
    }

    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let here = matches!(self.peek(), Tok::Ident(w) if w == word);
        if here {
            self.advance();
        }
        here
    }

    pub(super) fn string(&mut self) -> Parsed<String> {
        let Tok::Str(s) = self.peek() else { return self.fail("a quoted name") };
        let s = s.clone();
        self.advance();
        Ok(s)
    }

    pub(super) fn ident(&mut self, what: &str) -> Parsed<String> {
        let Tok::Ident(s) = self.peek() else { return self.fail(what) };
        let s = s.clone();
        self.advance();
        Ok(s)
    }

    pub(super) fn count(&mut self, what: &str) -> Parsed<u64> {
        let Tok::Num(n) = self.peek() else { return self.fail(what) };
        let Ok(n) = n.parse() else { return self.fail(what) };
        self.advance();
        Ok(n)
    }

    /// The key, the name and the line of a value.
    fn value(&mut self) -> Parsed<(String, Option<String>, usize)> {
        let Tok::Value { name, key } = self.peek() else { return self.fail("a value") };
        let found = (key.clone(), name.clone(), self.line());
        self.advance();
        Ok(found)
    }

    // ---- graphs ----

    fn graph(&mut self, depth: usize) -> Parsed<Graph> {
        if depth > MAX_REGION_DEPTH {
            self.complain(self.line(), "parse.limit", format!("regions nest deeper than {MAX_REGION_DEPTH}"));
            return Err(Stop);
        }
        if !self.eat_word("graph") {
            return self.fail("`graph`");
        }
        let Tok::Global(name) = self.peek() else { return self.fail("the graph's name, `@name`") };
        let mut g = Graph::new(name.clone());
        self.advance();
        let mut scope = Scope::new();
        self.expect('(')?;
        while *self.peek() != Tok::Punct(')') {
            let (key, name, line) = self.value()?;
            self.expect(':')?;
            let ty = self.tensor_type()?;
            if let Err(why) = ty.check_size() {
                self.complain(line, "type.size", why);
            }
            let v = g.add_input(name.as_deref().unwrap_or(""), ty);
            if name.is_none() {
                g.set_value_name(v, None);
            }
            self.define(&mut scope, key, Some(v), line);
            if !self.eat(',') {
                break;
            }
        }
        self.expect(')')?;
        self.expect('{')?;
        loop {
            let start = self.at;
            match self.peek() {
                Tok::Value { .. } => {
                    if self.statement(&mut g, &mut scope, depth).is_err() {
                        self.skip_statement(start);
                    }
                }
                Tok::Ident(w) if w == "return" => {
                    self.advance();
                    if self.returns(&mut g, &scope).is_err() {
                        self.skip_statement(start);
                    }
                    self.expect('}')?;
                    return Ok(g);
                }
                Tok::Punct('}') | Tok::End => return self.fail("a statement or `return`"),
                _ => {
                    let _: Parsed<()> = self.fail("a statement or `return`");
                    self.skip_statement(start);
                }
            }
        }
    }

    /// From inside the statement at `start` to the next line that opens like one. A region that was broken is passed over line by line.
    fn skip_statement(&mut self, start: usize) {
        if self.at == start {
            self.advance();
        }
        loop {
            let opens = match self.peek() {
                Tok::End => return,
                Tok::Value { .. } | Tok::Punct('}') | Tok::Bad(_) => true,
                Tok::Ident(w) => w == "return",
                _ => false,
            };
            if opens && self.opens_line() {
                return;
            }
            self.advance();
        }
    }

    fn define(&mut self, scope: &mut Scope, key: String, v: Option<ValueId>, line: usize) {
        if scope.contains_key(&key) {
            self.complain(line, "parse.redefined", format!("%{key} is defined twice"));
            return;
        }
        scope.insert(key, v);
    }

    /// A value used at `line`: `None` (without a new complaint) if its definition was wrong.
    fn lookup(&mut self, scope: &Scope, key: &str, line: usize) -> Option<ValueId> {
        match scope.get(key) {
            Some(v) => *v,
            None => {
                self.complain(line, "parse.undefined", format!("%{key} is not defined above"));
                None
            }
        }
    }

    fn returns(&mut self, g: &mut Graph, scope: &Scope) -> Parsed<()> {
        if *self.peek() == Tok::Punct('}') {
            return Ok(());
        }
        loop {
            let (key, name, line) = self.value()?;
            let name = if self.eat_word("as") { self.string()? } else { name.unwrap_or_default() };
            if let Some(v) = self.lookup(scope, &key, line) {
                g.add_output(&name, v);
            }
            if !self.eat(',') {
                return Ok(());
            }
        }
    }

    // ---- statements ----

    fn statement(&mut self, g: &mut Graph, scope: &mut Scope, depth: usize) -> Parsed<()> {
        let mut written = vec![];
        let parsed = self.written_results(&mut written).and_then(|()| self.definition(g, scope, &written, depth));
        match parsed {
            Ok(values) => {
                for (w, v) in written.into_iter().zip(values) {
                    self.define(scope, w.key, v, w.line);
                }
                Ok(())
            }
            Err(Stop) => {
                for w in written {
                    scope.entry(w.key).or_insert(None);
                }
                Err(Stop)
            }
        }
    }

    fn written_results(&mut self, written: &mut Vec<Written>) -> Parsed<()> {
        loop {
            let (key, name, line) = self.value()?;
            written.push(Written { key, name, line, ty: None });
            if self.eat(':') {
                let ty = self.tensor_type()?;
                if let Some(w) = written.last_mut() {
                    w.ty = Some(ty);
                }
            }
            if !self.eat(',') {
                return self.expect('=');
            }
        }
    }

    /// One value per written result; `None`s if the node could not be made.
    fn definition(
        &mut self,
        g: &mut Graph,
        scope: &Scope,
        written: &[Written],
        depth: usize,
    ) -> Parsed<Vec<Option<ValueId>>> {
        let line = self.line();
        let op_name = self.ident("an operator")?;
        if op_name == "const" {
            let name = written[0].name.as_deref();
            let value = self.constant(name)?;
            let v = g.add_const(value);
            g.node_mut(v.node).origins = self.origins()?;
            return Ok(self.finish_node(g, Some(v.node), written));
        }
        let operands = self.operands(scope)?;
        let mut attrs = self.attrs()?;
        let mut regions = vec![];
        while matches!(self.peek(), Tok::Ident(w) if w == "graph") {
            regions.push(self.graph(depth + 1)?);
        }
        let origins = self.origins()?;
        if !self.opens_line() && *self.peek() != Tok::Punct('}') && *self.peek() != Tok::End {
            return self.fail("the end of the statement");
        }
        let op = match Op::parse(&op_name, &mut attrs) {
            None => {
                self.complain(line, "parse.op", format!("there is no operator `{op_name}`"));
                None
            }
            Some(op) => match op.and_then(|op| attrs.finish().map(|()| op)) {
                Ok(op) => Some(op),
                Err(why) => {
                    self.complain(line, "parse.attr", format!("{op_name}: {why}"));
                    None
                }
            },
        };
        let (Some(op), Some(operands)) = (op, operands) else { return Ok(self.finish_node(g, None, written)) };
        match g.add_with_regions(op, &operands, regions, origins) {
            Ok(id) => Ok(self.finish_node(g, Some(id), written)),
            Err(diag) => {
                self.push(diag.at(Location::Line { line }));
                Ok(self.finish_node(g, None, written))
            }
        }
    }

    /// Names the results and compares the written types with the inferred ones.
    fn finish_node(&mut self, g: &mut Graph, id: Option<crate::NodeId>, written: &[Written]) -> Vec<Option<ValueId>> {
        let Some(id) = id else { return vec![None; written.len()] };
        let results = g.node(id).results.len();
        if written.len() > results {
            let message = format!("{} gives {results} results, {} are written", g.node(id).op.name(), written.len());
            self.complain(written[0].line, "parse.type", message);
        }
        let mut values = vec![None; written.len()];
        for (port, w) in written.iter().enumerate().take(results) {
            let v = id.out(port as u32);
            g.set_value_name(v, w.name.as_deref().map(Into::into));
            let inferred = &g.result(v).ty;
            if let Some(ty) = &w.ty
                && inferred.as_tensor() != Some(ty)
            {
                let message = format!("%{} is written as {ty}, but it is {inferred}", w.key);
                self.complain(w.line, "parse.type", message);
            }
            values[port] = Some(v);
        }
        values
    }

    /// `None` if one of them was defined wrongly or not at all.
    fn operands(&mut self, scope: &Scope) -> Parsed<Option<Vec<Option<ValueId>>>> {
        let mut operands = vec![];
        let mut all_known = true;
        if self.opens_line() || !self.at_operand() {
            return Ok(Some(operands));
        }
        loop {
            if self.opens_line() {
                let line = self.tokens[self.at.saturating_sub(1)].line;
                self.complain(line, "parse.syntax", "a value on this line is expected after the comma");
                return Err(Stop);
            }
            if self.eat_word("_") {
                operands.push(None);
            } else {
                let (key, _, line) = self.value()?;
                let v = self.lookup(scope, &key, line);
                all_known &= v.is_some();
                operands.push(v);
            }
            if !self.eat(',') {
                return Ok(all_known.then_some(operands));
            }
        }
    }

    fn at_operand(&self) -> bool {
        match self.peek() {
            Tok::Value { .. } => true,
            Tok::Ident(w) => w == "_",
            _ => false,
        }
    }

    fn origins(&mut self) -> Parsed<Provenance> {
        let mut origins = vec![];
        if self.opens_line() || !self.eat_word("from") {
            return Ok(origins);
        }
        loop {
            let name = self.string()?;
            self.expect('(')?;
            let op = match self.peek() {
                Tok::Str(_) => self.string()?,
                _ => self.ident("an operator")?,
            };
            let index = if self.eat('#') { usize::try_from(self.count("an index")?).ok() } else { None };
            self.expect(')')?;
            origins.push(Origin { name: name.into(), index, op: op.into() });
            if !self.eat(',') {
                return Ok(origins);
            }
        }
    }
}
