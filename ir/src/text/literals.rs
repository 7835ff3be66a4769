//! The parser's literals: attributes, types and constants.

use super::lex::Tok;
use super::parse::{Parsed, Parser, Stop};
use super::{dims, elements};
use crate::dtype::DType;
use crate::op::{Attr, AttrValue, Attrs};
use crate::tensor::{ConstValue, Tensor};
use crate::types::TensorType;

const MAX_LIST_DEPTH: usize = 8;

impl Parser<'_> {
    // ---- attributes ----

    pub(super) fn attrs(&mut self) -> Parsed<Attrs> {
        let mut attrs = Attrs::default();
        if self.opens_line() || !self.eat('{') {
            return Ok(attrs);
        }
        while *self.peek() != Tok::Punct('}') {
            let line = self.line();
            let name = self.ident("an attribute")?;
            if attrs.0.iter().any(|(n, _)| *n == name) {
                self.complain(line, "parse.attr", format!("{name} is given twice"));
                return Err(Stop);
            }
            self.expect('=')?;
            let value = self.attr(0)?;
            attrs.0.push((name, value));
            if !self.eat(',') {
                break;
            }
        }
        self.expect('}')?;
        Ok(attrs)
    }

    fn attr(&mut self, depth: usize) -> Parsed<AttrValue> {
        if *self.peek() == Tok::Punct('[') {
            return self.attr_list(depth);
        }
        let start = self.at;
        let negative = self.eat('-');
        let plain = match self.peek().clone() {
            Tok::Ident(w) => match w.as_str() {
                "true" | "false" if !negative => Some(AttrValue::Bool(w == "true")),
                "none" if !negative => Some(AttrValue::Word(w)),
                "nan" | "inf" => Some(self.float(negative, &w)?),
                // A keyword or a symbol, unless it begins an expression.
                _ if !negative && !self.expression_follows() => Some(AttrValue::Word(w)),
                _ => None,
            },
            Tok::Num(n) if n.contains(['.', 'e', 'E', 'x']) => Some(self.float(negative, &n)?),
            _ => None,
        };
        if let Some(plain) = plain {
            self.advance();
            return Ok(plain);
        }
        self.at = start;
        let first = self.peek().clone();
        match dims::expression(&self.tokens, &mut self.at) {
            Ok(dim) if self.at == start + 1 => Ok(match first {
                Tok::Str(s) => AttrValue::Text(s),
                _ => dim.to_value(),
            }),
            Ok(dim) => Ok(dim.to_value()),
            Err(why) => {
                self.complain(self.line(), "parse.syntax", why);
                Err(Stop)
            }
        }
    }

    /// Whether the token after this one continues a dimension expression.
    fn expression_follows(&self) -> bool {
        let next = self.tokens.get(self.at + 1).map(|t| &t.tok);
        matches!(next, Some(Tok::Punct('(' | '+' | '-' | '*' | '/')))
    }

    fn attr_list(&mut self, depth: usize) -> Parsed<AttrValue> {
        if depth >= MAX_LIST_DEPTH {
            self.complain(self.line(), "parse.limit", format!("lists nest deeper than {MAX_LIST_DEPTH}"));
            return Err(Stop);
        }
        self.expect('[')?;
        let mut items = vec![];
        while *self.peek() != Tok::Punct(']') {
            items.push(self.attr(depth + 1)?);
            if !self.eat(',') {
                break;
            }
        }
        self.expect(']')?;
        Ok(AttrValue::List(items))
    }

    fn float(&mut self, negative: bool, text: &str) -> Parsed<AttrValue> {
        match elements::parse_f32(negative, text) {
            Ok(v) => Ok(v.to_value()),
            Err(why) => {
                self.complain(self.line(), "parse.attr", why);
                Err(Stop)
            }
        }
    }

    // ---- types and constants ----

    pub(super) fn tensor_type(&mut self) -> Parsed<TensorType> {
        let line = self.line();
        let name = self.ident("a type")?;
        let Some(dtype) = DType::from_name(&name) else {
            self.complain(line, "parse.type", format!("there is no element type `{name}`"));
            return Err(Stop);
        };
        self.expect('[')?;
        let mut shape = vec![];
        while *self.peek() != Tok::Punct(']') {
            match dims::expression(&self.tokens, &mut self.at) {
                Ok(dim) => shape.push(dim),
                Err(why) => {
                    self.complain(line, "parse.type", why);
                    return Err(Stop);
                }
            }
            if !self.eat(',') {
                break;
            }
        }
        self.expect(']')?;
        Ok(TensorType { dtype, shape })
    }

    pub(super) fn constant(&mut self, value_name: Option<&str>) -> Parsed<ConstValue> {
        let line = self.line();
        let ty = self.tensor_type()?;
        let checked = ty.check_size().and_then(|()| match ty.const_shape() {
            Some(shape) if ty.dtype.is_computable() => Ok(shape),
            Some(_) => Err(format!("constants of {} hold no data yet", ty.dtype)),
            None => Err(format!("the constant's shape {ty} is not all numbers")),
        });
        let shape = match checked {
            Ok(shape) => shape,
            Err(why) => {
                self.complain(line, "parse.type", why);
                return Err(Stop);
            }
        };
        let dtype = ty.dtype;
        let name = if self.eat_word("unnamed") {
            None
        } else if self.eat_word("named") {
            Some(self.string()?)
        } else {
            value_name.map(str::to_string)
        };
        if self.eat_word("splat") {
            self.expect('(')?;
            let mut data = vec![];
            self.element(dtype, &mut data)?;
            self.expect(')')?;
            let element = self.tensor(dtype, vec![], data, line)?;
            return Ok(ConstValue::Splat { element, shape });
        }
        if self.eat_word("seeded") {
            self.expect('(')?;
            let seed = self.count("a seed")?;
            self.expect(')')?;
            return Ok(ConstValue::Seeded { dtype, shape, seed });
        }
        if self.eat_word("weight") {
            self.expect('(')?;
            let key = self.string()?;
            self.expect(')')?;
            let Some(tensor) = (self.weight)(&key) else {
                self.complain(line, "parse.weight", format!("there is no weight {key:?}"));
                return Err(Stop);
            };
            if tensor.ty() != ty {
                let message = format!("the weight {key:?} is {}, not {ty}", tensor.ty());
                self.complain(line, "parse.weight", message);
                return Err(Stop);
            }
            return Ok(ConstValue::Dense { tensor, name: name.map(Into::into) });
        }
        if *self.peek() != Tok::Punct('[') {
            return self.fail("splat(..), seeded(..), weight(\"..\") or [elements]");
        }
        self.advance();
        let mut data = vec![];
        while *self.peek() != Tok::Punct(']') {
            self.element(dtype, &mut data)?;
            if !self.eat(',') {
                break;
            }
        }
        self.expect(']')?;
        let tensor = self.tensor(dtype, shape, data, line)?;
        Ok(ConstValue::Dense { tensor, name: name.map(Into::into) })
    }

    fn tensor(&mut self, dtype: DType, shape: Vec<usize>, data: Vec<u8>, line: usize) -> Parsed<Tensor> {
        Tensor::new(dtype, shape, data.into()).map_err(|why| {
            self.complain(line, "parse.type", why);
            Stop
        })
    }

    fn element(&mut self, dtype: DType, data: &mut Vec<u8>) -> Parsed<()> {
        let negative = self.eat('-');
        let (Tok::Num(text) | Tok::Ident(text)) = self.peek().clone() else { return self.fail("an element") };
        if let Err(why) = elements::parse(dtype, negative, &text, data) {
            self.complain(self.line(), "parse.type", why);
            return Err(Stop);
        }
        self.advance();
        Ok(())
    }
}
