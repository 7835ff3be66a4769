//! What is wrong with a user's model, in the words of that model.

use std::fmt;
use std::sync::Arc;

/// Where in the model: an ONNX node (name and index in the file), a line of text IR, or a value's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Location {
    #[default]
    Model,
    Node {
        name: Arc<str>,
        /// Position in the ONNX graph.
        index: Option<usize>,
        /// The ONNX operator or the IR op.
        op: Arc<str>,
    },
    Value {
        name: Arc<str>,
    },
    Line {
        line: usize,
    },
}

/// One complaint. `code` is stable (`conv.c1`, `import.unsupported-op`) and names the violated constraint;
/// `message` says what is wrong, `notes` what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Diag {
    pub location: Location,
    pub code: &'static str,
    pub message: String,
    pub notes: Vec<String>,
}

impl Diag {
    pub fn new(code: &'static str, message: impl Into<String>) -> Diag {
        Diag { location: Location::Model, code, message: message.into(), notes: vec![] }
    }

    pub fn note(mut self, note: impl Into<String>) -> Diag {
        self.notes.push(note.into());
        self
    }

    pub fn at(mut self, location: Location) -> Diag {
        self.location = location;
        self
    }

    /// Sets the location unless a more precise one is there already.
    pub fn at_if_unset(self, location: impl FnOnce() -> Location) -> Diag {
        if self.location == Location::Model { self.at(location()) } else { self }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Model => write!(f, "model"),
            Location::Node { name, index: Some(i), op } => write!(f, "node {i} '{name}' ({op})"),
            Location::Node { name, index: None, op } => write!(f, "node '{name}' ({op})"),
            Location::Value { name } => write!(f, "value '{name}'"),
            Location::Line { line } => write!(f, "line {line}"),
        }
    }
}

impl fmt::Display for Diag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.location, self.message, self.code)?;
        for note in &self.notes {
            write!(f, "\n    note: {note}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diag {}
