//! The settings of a network: what it declares, and what the user asks for. Text becomes numbers here, and is refused with
//! the setting's name and what would do.

use lehr_ir::Diag;
use std::fmt;

/// A setting as a network declares it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    pub doc: &'static str,
}

/// What values a setting takes, and which by default.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number between two bounds, which are included.
    Size { default: usize, least: usize, most: usize },
    /// A positive factor.
    Scale { default: f64 },
    /// One of some words; the first is the default.
    Word(&'static [&'static str]),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Size(usize),
    Scale(f64),
    Word(&'static str),
}

impl Setting {
    pub const fn size(name: &'static str, default: usize, least: usize, most: usize, doc: &'static str) -> Setting {
        Setting { name, kind: Kind::Size { default, least, most }, doc }
    }

    pub const fn scale(name: &'static str, doc: &'static str) -> Setting {
        Setting { name, kind: Kind::Scale { default: 1.0 }, doc }
    }

    pub const fn word(name: &'static str, words: &'static [&'static str], doc: &'static str) -> Setting {
        Setting { name, kind: Kind::Word(words), doc }
    }

    /// Height and width of the image.
    pub const fn input(default: usize) -> Setting {
        Setting::size("input", default, 1, 8192, "height and width of the image")
    }

    pub const fn classes(default: usize) -> Setting {
        Setting::size("classes", default, 1, 1 << 20, "number of classes")
    }

    pub const WIDTH: Setting = Setting::scale("width", "factor of the numbers of channels");

    fn default(&self) -> Value {
        match self.kind {
            Kind::Size { default, .. } => Value::Size(default),
            Kind::Scale { default } => Value::Scale(default),
            Kind::Word(words) => Value::Word(words[0]),
        }
    }

    fn parse(&self, text: &str) -> Result<Value, Diag> {
        let value = match self.kind {
            Kind::Size { least, most, .. } => text.parse().ok().filter(|n| (least..=most).contains(n)).map(Value::Size),
            Kind::Scale { .. } => text.parse().ok().filter(|f| (MIN_SCALE..=MAX_SCALE).contains(f)).map(Value::Scale),
            Kind::Word(words) => words.iter().copied().find(|w| *w == text).map(Value::Word),
        };
        value.ok_or_else(|| Diag::new("load.zoo", format!("{}={text}: it must be {}", self.name, self.kind)))
    }
}

const MIN_SCALE: f64 = 1.0 / 64.0;
const MAX_SCALE: f64 = 16.0;

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Size { least, most, .. } => write!(f, "a whole number from {least} to {most}"),
            Kind::Scale { .. } => write!(f, "a number from {MIN_SCALE} to {MAX_SCALE}"),
            Kind::Word(words) => write!(f, "one of {}", words.join(", ")),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Size(n) => write!(f, "{n}"),
            Value::Scale(x) => write!(f, "{x}"),
            Value::Word(w) => f.write_str(w),
        }
    }
}

/// `input=224`: the name and the default.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.default())
    }
}

/// A value for every setting of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Args(Vec<(&'static str, Value)>);

impl Args {
    /// Defaults.
    pub(super) fn new(settings: &[Setting]) -> Args {
        Args(settings.iter().map(|p| (p.name, p.default())).collect())
    }

    pub(super) fn set(&mut self, setting: &Setting, text: &str) -> Result<(), Diag> {
        let value = setting.parse(text)?;
        self.0.iter_mut().filter(|(name, _)| *name == setting.name).for_each(|(_, v)| *v = value);
        Ok(())
    }

    fn value(&self, name: &str) -> Value {
        let found = self.0.iter().find(|(n, _)| *n == name);
        found.unwrap_or_else(|| panic!("the network declares no setting {name}")).1
    }

    pub(super) fn size(&self, name: &str) -> usize {
        match self.value(name) {
            Value::Size(n) => n,
            Value::Scale(_) | Value::Word(_) => panic!("the setting {name} is no size"),
        }
    }

    pub(super) fn word(&self, name: &str) -> &'static str {
        match self.value(name) {
            Value::Word(w) => w,
            Value::Size(_) | Value::Scale(_) => panic!("the setting {name} is no word"),
        }
    }

    /// A number of channels times the setting `width`, at least 1.
    pub(super) fn channels(&self, n: usize) -> usize {
        match self.value("width") {
            Value::Scale(width) => ((n as f64 * width).round() as usize).max(1),
            Value::Size(_) | Value::Word(_) => panic!("the setting width is no factor"),
        }
    }
}
