//! The generated C header: the interface that all models share, then this model's names, shapes, sizes and a typed `run`.
//!
//! It compiles as C99 and as C++; headers of several models may be included together.

use std::fmt::Write;

use super::elf::SoOptions;
use super::image::{IoSpec, ModelImage};
use super::names::unique_identifiers;
use crate::runtime::abi::dtype_info;

const ABI: &str = include_str!("abi.h");

/// The header of a model that [`super::write_so`] writes with the same options.
pub fn c_header(image: &ModelImage, options: &SoOptions) -> String {
    let symbol = options.symbol(&image.name);
    let names = unique_identifiers(image.inputs.iter().chain(&image.outputs).map(|spec| spec.name.as_str()));
    let (inputs, outputs) = names.split_at(image.inputs.len());
    let model = Model {
        image,
        macros: symbol.to_ascii_uppercase(),
        symbol,
        inputs: inputs.iter().zip(&image.inputs).collect(),
        outputs: outputs.iter().zip(&image.outputs).collect(),
    };
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = model.write(&mut text);
    text
}

struct Model<'a> {
    image: &'a ModelImage,
    symbol: String,
    macros: String,
    inputs: Vec<(&'a String, &'a IoSpec)>,
    outputs: Vec<(&'a String, &'a IoSpec)>,
}

/// A function of the descriptor with typed parameters, and what it takes besides tensors.
struct Call {
    suffix: &'static str,
    parameter: &'static str,
    argument: &'static str,
}

impl Model<'_> {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Model { symbol, macros, .. } = self;
        self.opening(out)?;
        write!(out, "#ifndef {macros}_H\n#define {macros}_H\n\n#include <stdint.h>\n\n{ABI}\n")?;
        writeln!(out, "/* Bytes of scratch memory in a workspace, and of weights in the library. */")?;
        writeln!(out, "#define {macros}_ARENA_BYTES UINT64_C({})", self.image.arena_bytes)?;
        writeln!(out, "#define {macros}_WEIGHTS_BYTES UINT64_C({})", self.image.weights_bytes)?;
        if self.image.device_bytes > 0 {
            writeln!(out, "/* Bytes of the GPU's memory that an open workspace holds. */")?;
            writeln!(out, "#define {macros}_DEVICE_BYTES UINT64_C({})", self.image.device_bytes)?;
        }
        writeln!(out, "#define {macros}_INPUTS {}", self.inputs.len())?;
        writeln!(out, "#define {macros}_OUTPUTS {}", self.outputs.len())?;
        for (side, list) in [("INPUT", &self.inputs), ("OUTPUT", &self.outputs)] {
            for (index, (name, spec)) in list.iter().enumerate() {
                self.constants(out, side, index, name, spec)?;
            }
        }
        write!(out, "\n#ifdef __cplusplus\nextern \"C\" {{\n#endif\n\nextern const struct lehr_model {symbol};\n\n")?;
        let about = "One inference of a model that was found by dlsym. Returns LEHR_OK or what was wrong.";
        self.run_with(out, about, &Call { suffix: "_run", parameter: "", argument: "" })?;
        if self.image.device_bytes > 0 {
            let about = "The same in the order of a stream; data in the GPU's memory is not waited for.";
            self.run_with(out, about, &Call { suffix: "_run_on", parameter: ", void *stream", argument: ", stream" })?;
        }
        write!(out, "#ifdef __cplusplus\n}}\n#endif\n#endif\n")
    }

    fn opening(&self, out: &mut String) -> std::fmt::Result {
        let Model { symbol, .. } = self;
        let name = commented(&self.image.name);
        writeln!(
            out,
            "/* The model '{name}', compiled by lehr {} for {}.",
            env!("CARGO_PKG_VERSION"),
            self.image.target
        )?;
        writeln!(out, "\n   const struct lehr_model *m = &{symbol};")?;
        writeln!(out, "   uint64_t bytes = m->workspace_bytes(m, 0);")?;
        writeln!(out, "   void *ws = aligned_alloc(LEHR_ALIGN, bytes);")?;
        writeln!(out, "   if (m->open(m, ws, bytes, 0) != LEHR_OK) puts(m->last_error(ws));")?;
        let arguments = self.arguments().join("");
        writeln!(out, "   if ({symbol}_run(ws{arguments}) != LEHR_OK) puts(m->last_error(ws));")?;
        writeln!(out, "   m->close(m, ws);\n   free(ws); */")
    }

    fn constants(&self, out: &mut String, side: &str, index: usize, name: &str, spec: &IoSpec) -> std::fmt::Result {
        let prefix = format!("{}_{side}_{}", self.macros, name.to_ascii_uppercase());
        let (dtype, element) = dtype_info(spec.dtype).unwrap_or(("?", 1));
        let dims: Vec<String> = spec.dims.iter().map(|dim| dim.to_string()).collect();
        let side = side.to_ascii_lowercase();
        writeln!(out, "\n/* {side} {index}, '{}': {dtype}[{}] */", commented(&spec.name), dims.join(","))?;
        writeln!(out, "#define {prefix}_INDEX {index}")?;
        writeln!(out, "#define {prefix}_DTYPE LEHR_{}", dtype.to_ascii_uppercase())?;
        writeln!(out, "#define {prefix}_RANK {}", dims.len())?;
        writeln!(out, "#define {prefix}_DIMS {{{}}}", initialiser(spec))?;
        writeln!(out, "#define {prefix}_ELEMENTS {}", spec.bytes / element)?;
        writeln!(out, "#define {prefix}_BYTES {}", spec.bytes)
    }

    /// A call by a model's address, and one of the model that a program is linked with.
    fn run_with(&self, out: &mut String, about: &str, call: &Call) -> std::fmt::Result {
        let Model { symbol, .. } = self;
        let Call { suffix, parameter, argument } = call;
        let parameters = self.parameters().join("");
        writeln!(out, "/* {about} */")?;
        writeln!(
            out,
            "static inline int32_t {symbol}{suffix}_with(const struct lehr_model *model, void *ws{parameters}{parameter}) {{"
        )?;
        for (array, list) in [("inputs", &self.inputs), ("outputs", &self.outputs)] {
            // C has no empty arrays.
            writeln!(out, "  struct lehr_tensor lehr_{array}[{}];", list.len().max(1))?;
            for (index, (_, spec)) in list.iter().enumerate() {
                writeln!(out, "  static const int64_t lehr_{array}_{index}[] = {{{}}};", initialiser(spec))?;
            }
        }
        for (array, list) in [("inputs", &self.inputs), ("outputs", &self.outputs)] {
            for (index, (name, spec)) in list.iter().enumerate() {
                let item = format!("lehr_{array}[{index}]");
                writeln!(out, "  {item}.data = (void *)(uintptr_t){name};")?;
                writeln!(out, "  {item}.dtype = {};", spec.dtype)?;
                writeln!(out, "  {item}.rank = {};", spec.dims.len())?;
                writeln!(out, "  {item}.dims = lehr_{array}_{index};")?;
                writeln!(out, "  {item}.bytes = UINT64_C({});", spec.bytes)?;
            }
        }
        let (n_inputs, n_outputs) = (self.inputs.len(), self.outputs.len());
        let function = suffix.trim_start_matches('_');
        let tensors = format!("lehr_inputs, {n_inputs}, lehr_outputs, {n_outputs}");
        writeln!(out, "  return model->{function}(model, ws, {tensors}{argument});\n}}\n")?;
        let arguments = self.arguments().join("");
        writeln!(out, "/* The same, of the model that this program is linked with. */")?;
        writeln!(out, "static inline int32_t {symbol}{suffix}(void *ws{parameters}{parameter}) {{")?;
        writeln!(out, "  return {symbol}{suffix}_with(&{symbol}, ws{arguments}{argument});\n}}\n")
    }

    /// `, const float *x` and so on; each begins with its comma.
    fn parameters(&self) -> Vec<String> {
        let inputs = self.inputs.iter().map(|(name, spec)| format!(", const {} *{name}", c_type(spec)));
        let outputs = self.outputs.iter().map(|(name, spec)| format!(", {} *{name}", c_type(spec)));
        inputs.chain(outputs).collect()
    }

    fn arguments(&self) -> Vec<String> {
        self.inputs.iter().chain(&self.outputs).map(|(name, _)| format!(", {name}")).collect()
    }
}

fn c_type(spec: &IoSpec) -> &'static str {
    match dtype_info(spec.dtype).map(|(name, _)| name) {
        Some("f64") => "double",
        Some("f32") => "float",
        Some("i8") => "int8_t",
        Some("i16") => "int16_t",
        Some("i32") => "int32_t",
        Some("i64") => "int64_t",
        Some("u8" | "bool") => "uint8_t",
        // Half floats travel as their bits.
        Some("u16" | "f16" | "bf16") => "uint16_t",
        Some("u32") => "uint32_t",
        Some("u64") => "uint64_t",
        Some(_) | None => "void",
    }
}

/// Dims for braces; a scalar gets a number that is never read.
fn initialiser(spec: &IoSpec) -> String {
    if spec.dims.is_empty() {
        return "0".into();
    }
    spec.dims.iter().map(|dim| format!("INT64_C({dim})")).collect::<Vec<_>>().join(", ")
}

/// Free text inside a comment.
fn commented(text: &str) -> String {
    text.replace("*/", "* /").replace("/*", "/ *").replace(['\n', '\r', '\\', '\0'], " ")
}

#[cfg(test)]
mod tests {
    use super::ABI;
    use crate::runtime::abi::{ABI_VERSION, ALIGN, LehrModel, LehrTensor, MAGIC, TensorSpec, dtype, place, status};
    use std::collections::BTreeMap;
    use std::mem::{offset_of, size_of};

    /// The numbers that `abi.h` defines, by name.
    fn defined() -> BTreeMap<String, i128> {
        let number = |text: &str| {
            let text = text.trim_start_matches("UINT64_C").trim_matches(['(', ')']);
            match text.strip_prefix("0x") {
                Some(hex) => i128::from_str_radix(hex, 16),
                None => text.parse(),
            }
        };
        let line = |line: &str| {
            let (name, value) = line.strip_prefix("#define LEHR_")?.split_once(' ')?;
            Some((name.to_owned(), number(value).unwrap_or_else(|e| panic!("{line}: {e}"))))
        };
        ABI.lines().filter_map(line).collect()
    }

    macro_rules! named {
        ($($module:ident: $($name:ident)*;)*) => { [$($((stringify!($name), $module::$name as i128),)*)*] };
    }

    #[test]
    fn the_header_has_the_runtimes_numbers() {
        let of_modules = named! {
            dtype: F64 F32 F16 BF16 I8 I16 I32 I64 U8 U16 U32 U64 BOOL;
            status: OK NULL BAD_MODEL BAD_WORKSPACE WORKSPACE_TOO_SMALL UNSUPPORTED_CPU BAD_COUNT BAD_DTYPE BAD_SHAPE BAD_SIZE
                MISALIGNED BUSY THREADS FAULT NO_DRIVER OLD_DRIVER NO_DEVICE DEVICE_MEMORY DEVICE_CODE DEVICE;
            place: ON_CPU NOT_OPEN;
        };
        let others = [("MAGIC", MAGIC as i128), ("ABI_VERSION", ABI_VERSION as i128), ("ALIGN", ALIGN as i128)];
        let expected: BTreeMap<String, i128> =
            of_modules.into_iter().chain(others).map(|(name, number)| (name.to_owned(), number)).collect();
        assert_eq!(defined(), expected);
        assert!(ABI.contains(&format!("#ifndef LEHR_ABI_{ABI_VERSION}\n#define LEHR_ABI_{ABI_VERSION}\n")));
    }

    /// The fields of a struct in `abi.h`, with their sizes, in order.
    fn fields(name: &str) -> Vec<(String, usize)> {
        let start = ABI.find(&format!("struct {name} {{")).expect("abi.h has the struct");
        let body = ABI[start..].split_once('{').expect("it has a body").1;
        let body = body.split_once("\n};").expect("it ends").0;
        let mut text = String::new();
        for (index, part) in body.split("/*").enumerate() {
            text += if index == 0 { part } else { part.split_once("*/").expect("comments end").1 };
        }
        let field = |declaration: &str| {
            let declaration = declaration.trim();
            let function = declaration.split_once("(*").map(|(_, rest)| rest.split_once(')').expect("a name").0);
            let last = declaration.rsplit([' ', '*']).next().expect("a name");
            let is_pointer = function.is_some() || declaration.contains('*');
            let size = if is_pointer || declaration.contains("64_t") { 8 } else { 4 };
            (function.unwrap_or(last).to_owned(), size)
        };
        text.split(';').filter(|declaration| !declaration.trim().is_empty()).map(field).collect()
    }

    #[track_caller]
    fn same(name: &str, expected: &[(&str, usize)], bytes: usize) {
        let mut at = 0usize;
        let mut laid_out = Vec::new();
        for (field, size) in fields(name) {
            at = at.next_multiple_of(size);
            laid_out.push((field, at));
            at += size;
        }
        assert_eq!(at.next_multiple_of(8), bytes, "{name}");
        let expected: Vec<_> = expected.iter().map(|&(field, at)| (field.to_owned(), at)).collect();
        assert_eq!(laid_out, expected, "{name}");
    }

    macro_rules! offsets {
        ($of:ident: $($field:ident)*) => { (&[$((stringify!($field), offset_of!($of, $field)),)*], size_of::<$of>()) };
    }

    #[test]
    fn the_headers_structs_are_laid_out_as_the_runtimes() {
        let (model, bytes) = offsets! { LehrModel: magic abi_version struct_bytes name producer target n_inputs n_outputs inputs
        outputs arena_bytes weights_bytes weights isa_required n_faults reserved faults metadata metadata_bytes
        workspace_bytes open run close last_error status_text main gpu run_on wait runs_on device };
        same("lehr_model", model, bytes);
        let (spec, bytes) = offsets! { TensorSpec: name dtype rank dims bytes };
        same("lehr_tensor_spec", spec, bytes);
        let (tensor, bytes) = offsets! { LehrTensor: data dtype rank dims bytes };
        same("lehr_tensor", tensor, bytes);
    }
}
