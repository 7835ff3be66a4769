//! Dimension expressions: sums of products of numbers, symbols, `floor(a/b)`, `max(a, b)`, `min(a, b)` and `mul(a, b)`.
//! Depth and length are bounded, so that hostile text costs little.

use super::lex::{Tok, Token, lex};
use crate::dim::Dim;

const MAX_DEPTH: usize = 32;
/// Tokens one expression may have.
const MAX_TOKENS: usize = 2000;

/// Parses one dimension expression, e.g. `2*h + 1`.
///
/// # Errors
/// In words, when `text` is none or is too deep or too long.
pub fn parse_dim(text: &str) -> Result<Dim, String> {
    if text.len() > 1 << 16 {
        return Err("the expression is too long".into());
    }
    let tokens = lex(text);
    let mut at = 0;
    let dim = expression(&tokens, &mut at)?;
    match &tokens[at].tok {
        Tok::End => Ok(dim),
        other => Err(format!("{} after a dimension", other.describe())),
    }
}

/// The expression at `at`, which moves past it. The last token is always [`Tok::End`].
pub(super) fn expression(tokens: &[Token], at: &mut usize) -> Result<Dim, String> {
    let mut p = DimParser { tokens, at: *at, start: *at };
    let dim = p.sum(0);
    *at = p.at;
    dim
}

struct DimParser<'t> {
    tokens: &'t [Token],
    at: usize,
    start: usize,
}

impl DimParser<'_> {
    fn peek(&self) -> &Tok {
        &self.tokens[self.at].tok
    }

    fn advance(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    fn eat(&mut self, c: char) -> bool {
        let here = *self.peek() == Tok::Punct(c);
        if here {
            self.advance();
        }
        here
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.eat(c) { Ok(()) } else { Err(format!("`{c}` is expected, not {}", self.peek().describe())) }
    }

    fn sum(&mut self, depth: usize) -> Result<Dim, String> {
        if depth > MAX_DEPTH {
            return Err(format!("a dimension nests deeper than {MAX_DEPTH}"));
        }
        let mut sum = self.product(depth)?;
        loop {
            if self.at - self.start > MAX_TOKENS {
                return Err("a dimension is too long".into());
            }
            if self.eat('+') {
                sum = &sum + &self.product(depth)?;
            } else if self.eat('-') {
                sum = &sum - &self.product(depth)?;
            } else {
                return Ok(sum);
            }
        }
    }

    fn product(&mut self, depth: usize) -> Result<Dim, String> {
        let mut product = self.factor(depth)?;
        while self.eat('*') {
            if self.at - self.start > MAX_TOKENS {
                return Err("a dimension is too long".into());
            }
            product = &product * &self.factor(depth)?;
        }
        Ok(product)
    }

    fn factor(&mut self, depth: usize) -> Result<Dim, String> {
        if self.eat('-') {
            // Together with its sign, or i64::MIN would not be readable.
            if let Tok::Num(n) = self.peek() {
                let dim = integer(&format!("-{n}"))?;
                self.advance();
                return Ok(dim);
            }
            return Ok(&Dim::ZERO - &self.primary(depth)?);
        }
        self.primary(depth)
    }

    fn primary(&mut self, depth: usize) -> Result<Dim, String> {
        let tok = self.peek().clone();
        match tok {
            Tok::Num(n) => {
                self.advance();
                integer(&n)
            }
            Tok::Str(s) => {
                self.advance();
                Ok(Dim::symbol(&s))
            }
            Tok::Ident(s) => {
                self.advance();
                let pair: fn(&Dim, &Dim) -> Dim = match s.as_str() {
                    "floor" => Dim::floor_div,
                    "max" => Dim::maximum,
                    "min" => Dim::minimum,
                    "mul" => |a, b| a * b,
                    _ => return Ok(Dim::symbol(&s)),
                };
                self.expect('(')?;
                let a = self.sum(depth + 1)?;
                self.expect(if s == "floor" { '/' } else { ',' })?;
                let b = self.sum(depth + 1)?;
                self.expect(')')?;
                Ok(pair(&a, &b))
            }
            Tok::Punct('(') => {
                self.advance();
                let inner = self.sum(depth + 1)?;
                self.expect(')')?;
                Ok(inner)
            }
            other => Err(format!("a dimension is expected, not {}", other.describe())),
        }
    }
}

fn integer(text: &str) -> Result<Dim, String> {
    text.parse().map(Dim::Const).map_err(|_| format!("{text} is no 64-bit integer"))
}
