//! Tokens of PTX text (PTX ISA 4). A word keeps its dots: `ld.global.v4.f32`, `%tid.x` and `.reg` are one token each,
//! so that an instruction's modifiers are split where they are decoded.

use crate::module::ParseError;

#[derive(Clone, PartialEq, Debug)]
pub enum Token<'a> {
    Word(&'a str),
    /// An integer literal: its value, in two's complement.
    Int(u64),
    /// A decimal or `0d` literal.
    Double(f64),
    /// The bits of a `0f` literal.
    Single(u32),
    Text(&'a str),
    /// A character of punctuation.
    Mark(char),
}

#[derive(Clone, Debug)]
pub struct Spanned<'a> {
    pub token: Token<'a>,
    /// Counted from 1.
    pub line: u32,
}

/// The tokens of `text`, without comments.
pub fn lex(text: &str) -> Result<Vec<Spanned<'_>>, ParseError> {
    if let Some((at, c)) = text.char_indices().find(|(_, c)| !c.is_ascii()) {
        let line = 1 + text[..at].matches('\n').count() as u32;
        let message = format!("{c:?} is not ASCII, which PTX is even in comments (PTX ISA 4.1)");
        return Err(ParseError { line, message });
    }
    let mut lexer = Lexer { text, at: 0, line: 1 };
    let mut tokens = Vec::new();
    while lexer.skip_blank()? {
        let line = lexer.line;
        let token = lexer.token()?;
        tokens.push(Spanned { token, line });
    }
    Ok(tokens)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError { line: self.line, message: message.into() }
    }

    /// Skips white space and comments; false at the end of the text.
    fn skip_blank(&mut self) -> Result<bool, ParseError> {
        loop {
            let rest = self.rest();
            let Some(c) = rest.chars().next() else { return Ok(false) };
            if c == '\n' {
                self.line += 1;
                self.at += 1;
            } else if c.is_whitespace() || c == '\0' {
                self.at += c.len_utf8();
            } else if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                let Some(end) = rest.find("*/") else { return Err(self.error("a comment that does not end")) };
                self.line += rest[..end].matches('\n').count() as u32;
                self.at += end + 2;
            } else {
                return Ok(true);
            }
        }
    }

    fn token(&mut self) -> Result<Token<'a>, ParseError> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let first = bytes[0];
        if first.is_ascii_digit() || (first == b'.' && bytes.get(1).is_some_and(u8::is_ascii_digit)) {
            return self.number();
        }
        if is_word_start(first) {
            let mut end = 1;
            while end < bytes.len() {
                if is_word(bytes[end]) {
                    end += 1;
                } else if bytes[end] == b':'
                    && bytes.get(end + 1) == Some(&b':')
                    && bytes.get(end + 2).is_some_and(|&b| is_word(b))
                {
                    end += 2;
                } else {
                    break;
                }
            }
            self.at += end;
            return Ok(Token::Word(&rest[..end]));
        }
        if first == b'"' {
            let Some(end) = rest[1..].find('"') else { return Err(self.error("a string that does not end")) };
            self.at += end + 2;
            self.line += rest[1..=end].matches('\n').count() as u32;
            return Ok(Token::Text(&rest[1..=end]));
        }
        if b"{}()[]<>,;:|!+-@=*".contains(&first) {
            self.at += 1;
            return Ok(Token::Mark(first as char));
        }
        let c = rest.chars().next().unwrap_or(' ');
        Err(self.error(format!("a character that PTX does not have: {c:?}")))
    }

    fn number(&mut self) -> Result<Token<'a>, ParseError> {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let mut end = 0;
        while end < bytes.len() {
            let sign = matches!(bytes[end], b'+' | b'-')
                && matches!(bytes[end - 1], b'e' | b'E')
                && !rest.starts_with("0x")
                && !rest.starts_with("0X");
            if bytes[end].is_ascii_alphanumeric() || bytes[end] == b'.' || bytes[end] == b'_' || sign {
                end += 1;
            } else {
                break;
            }
        }
        let word = &rest[..end];
        let token = parse_number(word).ok_or_else(|| self.error(format!("not a number: {word}")))?;
        self.at += end;
        Ok(token)
    }
}

fn is_word_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || matches!(b, b'_' | b'$' | b'%' | b'.')
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.')
}

fn parse_number(word: &str) -> Option<Token<'static>> {
    let radix = |digits: &str, radix| u64::from_str_radix(digits, radix).ok().map(Token::Int);
    let (prefix, digits) = word.split_at(2.min(word.len()));
    match prefix {
        "0f" | "0F" if digits.len() == 8 => return u32::from_str_radix(digits, 16).ok().map(Token::Single),
        "0d" | "0D" if digits.len() == 16 => {
            return u64::from_str_radix(digits, 16).ok().map(|bits| Token::Double(f64::from_bits(bits)));
        }
        "0x" | "0X" => return radix(digits.trim_end_matches('U'), 16),
        "0b" | "0B" => return radix(digits.trim_end_matches('U'), 2),
        _ => {}
    }
    let whole = word.trim_end_matches('U');
    if whole.bytes().all(|b| b.is_ascii_digit()) {
        return if whole.len() > 1 && whole.starts_with('0') { radix(whole, 8) } else { radix(whole, 10) };
    }
    word.parse::<f64>().ok().filter(|_| word.as_bytes()[0] != b'i').map(Token::Double)
}
