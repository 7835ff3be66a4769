//! Splits text into tokens with their lines. Total: whatever is no token becomes [`Tok::Bad`].

/// A token; `first` says that it opens its line, which is where statements start.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub tok: Tok,
    pub line: usize,
    pub first: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tok {
    Ident(String),
    /// Without sign; integers, decimals, `0x` bits.
    Num(String),
    Str(String),
    /// `%name`: the name with quotes resolved, `None` for numbered values, and the whole spelling as key.
    Value {
        name: Option<String>,
        key: String,
    },
    /// `@name`
    Global(String),
    Punct(char),
    Bad(String),
    End,
}

impl Tok {
    /// How a complaint calls it.
    pub fn describe(&self) -> String {
        match self {
            Tok::Ident(s) | Tok::Num(s) => format!("`{s}`"),
            Tok::Str(s) => format!("{s:?}"),
            Tok::Value { key, .. } => format!("`%{key}`"),
            Tok::Global(s) => format!("`@{s}`"),
            Tok::Punct(c) => format!("`{c}`"),
            Tok::Bad(why) => why.clone(),
            Tok::End => "the end of the text".into(),
        }
    }
}

pub(super) fn starts_identifier(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

pub(super) fn continues_identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

pub(super) fn lex(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: text, line: 1, first: true };
    let mut tokens = vec![];
    loop {
        let mut token = lexer.next();
        let end = token.tok == Tok::End;
        if let (true, Some(last)) = (end, tokens.last()) {
            // What is missing is missing behind the last token, not behind empty lines.
            let last: &Token = last;
            token.line = last.line;
        }
        tokens.push(token);
        if end {
            return tokens;
        }
    }
}

struct Lexer<'t> {
    rest: &'t str,
    line: usize,
    first: bool,
}

impl<'t> Lexer<'t> {
    fn next(&mut self) -> Token {
        self.skip_blank();
        let (line, first) = (self.line, std::mem::take(&mut self.first));
        Token { tok: self.token(), line, first }
    }

    fn skip_blank(&mut self) {
        while let Some(c) = self.rest.chars().next() {
            match c {
                '\n' => {
                    self.line += 1;
                    self.first = true;
                    self.rest = &self.rest[1..];
                }
                ';' => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                }
                c if c.is_whitespace() => self.rest = &self.rest[c.len_utf8()..],
                _ => return,
            }
        }
    }

    fn token(&mut self) -> Tok {
        let Some(c) = self.rest.chars().next() else { return Tok::End };
        match c {
            '"' => match self.string() {
                Ok(s) => Tok::Str(s),
                Err(why) => Tok::Bad(why),
            },
            '%' => self.value(),
            '@' => {
                self.rest = &self.rest[1..];
                match self.name() {
                    Some(Ok(name)) => Tok::Global(name),
                    Some(Err(why)) => Tok::Bad(why),
                    None => Tok::Bad("`@` without a name".into()),
                }
            }
            c if c.is_ascii_digit() => Tok::Num(self.number().to_string()),
            c if starts_identifier(c) => Tok::Ident(self.take_while(continues_identifier).to_string()),
            '(' | ')' | '{' | '}' | '[' | ']' | ',' | ':' | '=' | '+' | '-' | '*' | '/' | '#' => {
                self.rest = &self.rest[1..];
                Tok::Punct(c)
            }
            c => {
                self.rest = &self.rest[c.len_utf8()..];
                Tok::Bad(format!("the character {c:?}"))
            }
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        let (head, tail) = self.rest.split_at(end);
        self.rest = tail;
        head
    }

    fn number(&mut self) -> &'t str {
        let start = self.rest;
        if let Some(digits) = start.strip_prefix("0x") {
            self.rest = digits;
            self.take_while(|c| c.is_ascii_hexdigit());
        } else {
            self.take_while(|c| c.is_ascii_digit());
            if self.rest.starts_with('.') {
                self.rest = &self.rest[1..];
                self.take_while(|c| c.is_ascii_digit());
            }
            if self.rest.starts_with(['e', 'E']) {
                self.rest = &self.rest[1..];
                if self.rest.starts_with(['+', '-']) {
                    self.rest = &self.rest[1..];
                }
                self.take_while(|c| c.is_ascii_digit());
            }
        }
        &start[..start.len() - self.rest.len()]
    }

    /// An identifier or a quoted string; `None` if neither is here.
    fn name(&mut self) -> Option<Result<String, String>> {
        match self.rest.chars().next() {
            Some('"') => Some(self.string()),
            Some(c) if starts_identifier(c) => Some(Ok(self.take_while(continues_identifier).to_string())),
            _ => None,
        }
    }

    fn value(&mut self) -> Tok {
        self.rest = &self.rest[1..];
        let start = self.rest;
        let name = match self.name() {
            Some(Ok(name)) => Some(name),
            Some(Err(why)) => return Tok::Bad(why),
            None if self.take_while(|c| c.is_ascii_digit()).is_empty() => return Tok::Bad("`%` without a name".into()),
            None => None,
        };
        if name.is_some() && self.rest.starts_with('!') {
            self.rest = &self.rest[1..];
            self.take_while(|c| c.is_ascii_digit());
        }
        Tok::Value { name, key: start[..start.len() - self.rest.len()].to_string() }
    }

    /// A quoted string with the escapes of Rust's `{:?}`. It ends on its line, so that one missing quote costs one line.
    fn string(&mut self) -> Result<String, String> {
        self.rest = &self.rest[1..];
        let mut out = String::new();
        while let Some(c) = self.rest.chars().next() {
            if c == '\n' {
                break;
            }
            self.rest = &self.rest[c.len_utf8()..];
            match c {
                '"' => return Ok(out),
                '\\' => out.push(self.escape()?),
                c => out.push(c),
            }
        }
        Err("a quoted name without its closing quote".into())
    }

    fn escape(&mut self) -> Result<char, String> {
        let Some(c) = self.rest.chars().next() else { return Err("an escape without its letter".into()) };
        self.rest = &self.rest[c.len_utf8()..];
        match c {
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            '0' => Ok('\0'),
            '\\' | '"' | '\'' => Ok(c),
            'u' => {
                let braced = self.rest.strip_prefix('{').and_then(|r| r.split_once('}'));
                let Some((hex, rest)) = braced.filter(|(hex, _)| hex.len() <= 6) else {
                    return Err("an escape \\u without {hex}".into());
                };
                self.rest = rest;
                let code = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32);
                code.ok_or_else(|| format!("\\u{{{hex}}} is no character"))
            }
            c => Err(format!("the unknown escape \\{c}")),
        }
    }
}
