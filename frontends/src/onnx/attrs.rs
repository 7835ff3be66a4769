//! Attributes of one ONNX node, read by name and type. Whatever nobody read is an error: an attribute that is
//! ignored is a wrong answer.

use super::proto::attribute_proto::AttributeType;
use super::proto::{AttributeProto, TensorProto};
use super::types::computable_from_onnx;
use lehr_ir::{DType, Diag};

/// More than any operator has.
const MAX_ATTRIBUTES: usize = 256;

/// The attributes of a node; reading takes them.
#[derive(Debug)]
pub struct Attrs<'m> {
    list: Vec<(&'m str, &'m AttributeProto)>,
}

impl<'m> Attrs<'m> {
    /// Attributes under the names they have here: inside a function, a value may come from the caller's attribute
    /// of another name.
    pub fn new(list: Vec<(&'m str, &'m AttributeProto)>) -> Result<Attrs<'m>, Diag> {
        if list.len() > MAX_ATTRIBUTES {
            return Err(Diag::new("import.attribute", format!("{} attributes are absurd", list.len())));
        }
        for (i, (name, _)) in list.iter().enumerate() {
            if list[..i].iter().any(|(n, _)| n == name) {
                return Err(Diag::new("import.attribute", format!("attribute {name} is given twice")));
            }
        }
        Ok(Attrs { list })
    }

    /// Fails on what nobody read.
    pub fn finish(&self) -> Result<(), Diag> {
        match self.list.first() {
            None => Ok(()),
            Some((name, _)) => Err(Diag::new(
                "import.attribute",
                format!("attribute {name} is unknown to this operator in this opset"),
            )
            .note("the exporter may have mixed opsets; convert the model to one opset")),
        }
    }

    fn take(&mut self, name: &str, wanted: AttributeType) -> Result<Option<&'m AttributeProto>, Diag> {
        let Some(at) = self.list.iter().position(|(n, _)| *n == name) else { return Ok(None) };
        let (_, a) = self.list.remove(at);
        // Files of the first IR versions leave the type out.
        if a.r#type == wanted as i32 || a.r#type == AttributeType::Undefined as i32 {
            return Ok(Some(a));
        }
        let given = AttributeType::try_from(a.r#type).map_or("unknown", |t| t.as_str_name());
        Err(bad(name, &format!("it must be {}, not {given}", wanted.as_str_name())))
    }

    pub fn has(&self, name: &str) -> bool {
        self.list.iter().any(|(n, _)| *n == name)
    }

    pub fn opt_int(&mut self, name: &str) -> Result<Option<i64>, Diag> {
        Ok(self.take(name, AttributeType::Int)?.map(|a| a.i))
    }

    pub fn int(&mut self, name: &str, default: i64) -> Result<i64, Diag> {
        Ok(self.opt_int(name)?.unwrap_or(default))
    }

    /// An integer that counts something.
    pub fn count(&mut self, name: &str, default: usize) -> Result<usize, Diag> {
        match self.opt_int(name)? {
            None => Ok(default),
            Some(n) => usize::try_from(n).map_err(|_| bad(name, "it must not be negative")),
        }
    }

    /// An integer that is 0 or 1.
    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool, Diag> {
        match self.opt_int(name)? {
            None => Ok(default),
            Some(0) => Ok(false),
            Some(_) => Ok(true),
        }
    }

    pub fn opt_float(&mut self, name: &str) -> Result<Option<f32>, Diag> {
        Ok(self.take(name, AttributeType::Float)?.map(|a| a.f))
    }

    pub fn float(&mut self, name: &str, default: f32) -> Result<f32, Diag> {
        Ok(self.opt_float(name)?.unwrap_or(default))
    }

    pub fn ints(&mut self, name: &str) -> Result<Option<Vec<i64>>, Diag> {
        Ok(self.take(name, AttributeType::Ints)?.map(|a| a.ints.clone()))
    }

    pub fn required_ints(&mut self, name: &str) -> Result<Vec<i64>, Diag> {
        self.ints(name)?.ok_or_else(|| bad(name, "it is missing"))
    }

    /// Integers that count something.
    pub fn counts(&mut self, name: &str) -> Result<Option<Vec<usize>>, Diag> {
        let Some(list) = self.ints(name)? else { return Ok(None) };
        let counts: Option<Vec<usize>> = list.iter().map(|&n| usize::try_from(n).ok()).collect();
        counts.map(Some).ok_or_else(|| bad(name, &format!("{list:?} holds a negative number")))
    }

    pub fn floats(&mut self, name: &str) -> Result<Option<Vec<f32>>, Diag> {
        Ok(self.take(name, AttributeType::Floats)?.map(|a| a.floats.clone()))
    }

    pub fn opt_string(&mut self, name: &str) -> Result<Option<&'m str>, Diag> {
        let Some(a) = self.take(name, AttributeType::String)? else { return Ok(None) };
        std::str::from_utf8(&a.s).map(Some).map_err(|_| bad(name, "it is not UTF-8 text"))
    }

    /// One of a list of keywords.
    pub fn keyword<T: Copy>(&mut self, name: &str, default: T, words: &[(&str, T)]) -> Result<T, Diag> {
        let Some(word) = self.opt_string(name)? else { return Ok(default) };
        words.iter().find(|(w, _)| *w == word).map(|(_, v)| *v).ok_or_else(|| {
            let list: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
            bad(name, &format!("{word:?} is none of {}", list.join(", ")))
        })
    }

    pub fn tensor(&mut self, name: &str) -> Result<Option<&'m TensorProto>, Diag> {
        let Some(a) = self.take(name, AttributeType::Tensor)? else { return Ok(None) };
        a.t.as_deref().map(Some).ok_or_else(|| bad(name, "it holds no tensor"))
    }

    /// An element type by its ONNX number.
    pub fn dtype(&mut self, name: &str) -> Result<Option<DType>, Diag> {
        match self.opt_int(name)? {
            None => Ok(None),
            Some(n) => computable_from_onnx(n)
                .map(Some)
                .map_err(|e| Diag::new(e.code, format!("attribute {name}: {}", e.message))),
        }
    }
}

/// What is wrong with an attribute.
pub fn bad(name: &str, why: &str) -> Diag {
    Diag::new("import.attribute", format!("attribute {name}: {why}"))
}

/// What an attribute asks for and lehr does not do.
pub fn unsupported(name: &str, why: &str) -> Diag {
    Diag::new("import.unsupported-attribute", format!("attribute {name}: {why}"))
}
